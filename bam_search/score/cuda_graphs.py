"""Make one CUDA graph of a function that is called again and again.

The GPU then no longer waits for Python between its kernels.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs (whole-network capture). Knows
nothing of training.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator

import torch

from bam_search.errors import first_line

EAGER = 3
"""Calls that run as they are before the capture.

In them libraries choose their kernels, and an optimizer makes its buffers.
"""


class NotOneGraph(Exception):
    """The function cannot be captured: something in it waits for the device."""


def replayed(
    function: Callable[[], None], capture: Callable[[Callable[[], None]], Callable[[], None]]
) -> Callable[[], None]:
    """`function`, called as it is for its first calls, then captured once and replayed.

    After the capture, whatever it decided in Python stays decided. `capture` takes a function and
    returns one that does the same again, on the same memory.
    """
    eager = iter(range(EAGER))
    replay: Callable[[], None] | None = None

    def call() -> None:
        nonlocal replay
        if next(eager, None) is not None:
            function()
            return
        replay = replay or capture(function)
        replay()

    return call


def cuda_graph(function: Callable[[], object]) -> Callable[[], None]:
    """Capture `function` on the current stream, which must be that of `stream`.

    Raises NotOneGraph, and torch's own errors.

    After NotOneGraph the process should train no more: some versions of torch go on as if they were
    capturing.
    """
    # Garbage collected during the capture could free device memory, which is not allowed there; see
    # `settle`.
    gc.collect()
    torch.cuda.synchronize()  # errors of earlier steps come up here, not as errors of the capture
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            function()
    except RuntimeError as error:
        # A capture that is broken off raises an error of its own; the cause is its context.
        causes = (error, error.__context__)
        if any(isinstance(cause, torch.OutOfMemoryError) for cause in causes):
            raise torch.OutOfMemoryError(first_line(error)) from None
        graph.reset()
        reason = first_line(error.__context__ or error)
        raise NotOneGraph(
            f"a step of this model cannot be one CUDA graph: {reason} "
            "(recipe.cuda_graph = false trains it)"
        ) from error
    return functools.partial(_replay, graph, function)


def _replay(graph: torch.cuda.CUDAGraph, _function: Callable[[], object]) -> None:
    """Replay the graph. It works on memory of what `function` holds, which lives as long."""
    graph.replay()


@functools.cache  # once a process
def settle() -> None:
    """Leave what the process has loaded so far out of all later garbage collections.

    A collection before each capture looks at every object: half a second with torch loaded, some
    milliseconds beside what a candidate has made. To be called before the first candidate, as what
    is dead by then, but not collected, would stay.
    """
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def stream(device: str) -> Iterator[None]:
    """Within the context the device's work is queued on a stream that can be captured.

    On a CPU nothing is done.
    """
    if device != "cuda":
        yield
        return
    before = torch.cuda.current_stream()
    side = _side_stream()
    side.wait_stream(before)
    try:
        with torch.cuda.stream(side):
            yield
    finally:
        # Also where a training is given up whose steps are still queued: its memory is about to be
        # used again.
        before.wait_stream(side)


@functools.cache  # one for the process: libraries keep a workspace for each stream
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()
