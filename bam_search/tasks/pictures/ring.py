"""Images that do not fit in a device's memory: they pass through it, ahead of the steps.

A ring has two windows of slots. While the steps of one window run, the images of the next are
copied into the other: a thread gathers them from where they lie into page-locked memory of the
host, and a stream of its own copies them to the GPU. The thread calls no CUDA, so a step can be
captured at any time; the host waits for it only when a step would overtake it. A step finds its
images where it would find them were all there, so a training is the same, bit for bit.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bam_search.tasks.pictures.pixels import Pixels

LARGEST = 2**29
"""The most bytes that a ring takes: a larger one is no faster, and takes longer to begin."""


class Memory(Protocol):
    """Slots for images on a device."""

    @property
    def memory(self) -> Tensor: ...

    def write(self, first: int, images: Tensor) -> None:
        """Put (n, h, w, C) uint8 images of the host into the slots from `first` on."""
        ...


def steps_a_window(samples: int, batch: int, bytes_each: int, room: int) -> int:
    """How many steps a window of a ring has that takes at most `room` bytes, at least one.

    It is 0 if all samples fit there, and need no ring. A sample takes `bytes_each`.
    """
    if samples * bytes_each <= room:
        return 0
    return max(1, min(room, LARGEST) // (2 * batch * bytes_each))


def fill(memory: Memory, images: Pixels) -> None:
    """Put all images into the slots from the first on, some megabytes at a time."""
    first = 0
    for chunk in images.chunks():
        memory.write(first, torch.from_numpy(chunk))
        first += len(chunk)


class Ring:
    """Two windows of `steps` steps with `batch` images each, in the slots of `memory`.

    The image that is number k of an order lies in slot k modulo `slots` when its step comes.
    """

    def __init__(self, images: Pixels, memory: Memory, batch: int, steps: int) -> None:
        self._images, self._memory = images, memory
        self._steps, self._window = steps, steps * batch
        on_gpu = memory.memory.device.type == "cuda"
        shape = (2, self._window, *images.shape)
        self._staging = torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu)
        self._lane = _Lane(memory.memory) if on_gpu else _InOrder()
        self._thread = ThreadPoolExecutor(1)
        self._order = np.empty(0, dtype=np.int64)
        self._gathered: dict[int, Future[int]] = {}

    @property
    def slots(self) -> int:
        """Those of both windows."""
        return 2 * self._window

    def begin(self, order: np.ndarray) -> None:
        """Let the images at `order` pass, from its first on."""
        for gathered in self._gathered.values():
            gathered.exception()  # waits: it works on what is gathered anew
        self._order, self._gathered = order, {}
        for half in (0, 1):
            self._lane.release(half)
            self._gather(half)

    def ready(self, step: int) -> None:
        """Have the images of step number `step` in their slots; called before each step."""
        window, within = divmod(step, self._steps)
        if within == 0:
            self._enter(window)
        elif window + 1 in self._gathered and self._gathered[window + 1].done():
            self._write(window + 1)

    def _enter(self, window: int) -> None:
        """Have a window filled; the one before it is free from now on."""
        if window in self._gathered:
            self._write(window)
        self._lane.use(window % 2)
        if window:
            self._lane.release((window - 1) % 2)
            self._gather(window + 1)

    def _gather(self, window: int) -> None:
        """Have the thread gather the images of a window; there may be no more."""
        index = self._order[window * self._window : (window + 1) * self._window]
        if len(index):
            self._lane.drain(window % 2)
            out = self._staging[window % 2].numpy()[: len(index)]
            self._gathered[window] = self._thread.submit(self._read, index, out)

    def _read(self, index: np.ndarray, out: np.ndarray) -> int:
        self._images.read(index, out)
        return len(index)

    def _write(self, window: int) -> None:
        """Copy a window to the device, once it is gathered."""
        count, half = self._gathered.pop(window).result(), window % 2
        with self._lane.fill(half):
            self._memory.write(half * self._window, self._staging[half, :count])


class _Lane:
    """The stream on which a GPU copies, and the order of copies and steps there, by half."""

    def __init__(self, memory: Tensor) -> None:
        self._stream = torch.cuda.Stream()
        memory.record_stream(self._stream)  # it is not used again before the copies are done
        self._used = (torch.cuda.Event(), torch.cuda.Event())
        self._filled = (torch.cuda.Event(), torch.cuda.Event())

    def release(self, half: int) -> None:
        """A half may be filled when the steps that are queued so far are done."""
        self._used[half].record()

    @contextlib.contextmanager
    def fill(self, half: int) -> Iterator[None]:
        """The context in which a half is filled."""
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._used[half])
            yield
            self._filled[half].record()

    def use(self, half: int) -> None:
        """The steps that are queued from now on wait until a half is filled."""
        torch.cuda.current_stream().wait_event(self._filled[half])

    def drain(self, half: int) -> None:
        """Wait until what was gathered for a half has been copied."""
        self._filled[half].synchronize()


class _InOrder:
    """A CPU copies and steps in the order in which it is told to."""

    def release(self, half: int) -> None:
        """Nothing is queued."""

    def fill(self, half: int) -> contextlib.AbstractContextManager[None]:
        """The context in which a half is filled."""
        del half
        return contextlib.nullcontext()

    def use(self, half: int) -> None:
        """It is filled."""

    def drain(self, half: int) -> None:
        """It has been copied."""
