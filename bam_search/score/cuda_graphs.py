"""A function that is called again and again becomes one CUDA graph: the GPU no longer waits for
Python between its kernels.

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
"""Calls that run as they are before the capture: libraries choose their kernels in them, and an
optimizer makes its buffers.
"""


class NotOneGraph(Exception):
    """The function cannot be captured: something in it waits for the device."""


def replayed(
    function: Callable[[], None], capture: Callable[[Callable[[], None]], Callable[[], None]]
) -> Callable[[], None]:
    """`function` as it is for its first calls, then captured once and replayed: what it decides in
    Python is then decided for good.

    `capture` takes a function and gives one that does the same again, on the same memory.
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


def cuda_graph(function: Callable[[], None]) -> Callable[[], None]:
    """Capture `function` on the current stream, which must be that of `stream`.

    Raises NotOneGraph, and torch's own errors.

    After NotOneGraph the process should train no more: some versions of torch go on as if they were
    capturing.
    """
    gc.collect()  # what Python finds dead during the capture could free device memory, which is not allowed there; see `settle`
    torch.cuda.synchronize()  # a fault of the steps before is the device's
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            function()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or isinstance(
            error.__context__, torch.OutOfMemoryError
        ):
            raise torch.OutOfMemoryError(first_line(error)) from None
        graph.reset()
        said = first_line(
            error.__context__ or error
        )  # as it breaks off, the capture ends in an error of its own
        raise NotOneGraph(
            f"a step of this model cannot be one CUDA graph: {said} (recipe.cuda_graph = false trains it)"
        ) from error
    return graph.replay


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
    """Within the context the device's work is queued where it can be captured; on a CPU nothing is
    to be done.
    """
    if device != "cuda":
        yield
        return
    before, own = torch.cuda.current_stream(), _own_stream()
    own.wait_stream(before)
    try:
        with torch.cuda.stream(own):
            yield
    finally:  # also where a training is given up whose steps are still queued: its memory is about to be used again
        before.wait_stream(own)


@functools.cache  # one for the process: libraries keep a workspace for each stream
def _own_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()
