"""Labelled images on the host, in memory or in a mapped file."""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bam_search.errors import UserError
from bam_search.tasks.classification.cache import VARIABLE
from bam_search.tasks.classification.sizing import measured_of

CHUNK = 2**24
"""About how many bytes of pixels are read at a time where all are looked at."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size with their labels: `y`, (N,) int64 from 0.

    `stored` is (M, h, w, C) uint8. Without `index` it is these images. If it is a mapped file
    (`np.load(..., mmap_mode="r")`) they are the rows `index`, (N,): pixels are read when they are
    asked for, and a process that receives the images opens the file itself.
    """

    stored: np.ndarray
    y: np.ndarray
    index: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, C) of an image."""
        height, width, channels = self.stored.shape[1:]
        return height, width, channels

    @property
    def x(self) -> np.ndarray:
        """(N, h, w, C) uint8: all pixels, in memory."""
        return self.stored if self._in_memory else self.read(np.arange(len(self)))

    def read(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(n, h, w, C) uint8: the pixels of the images at `index`, copied; into `out` if given."""
        rows = index if self.index is None else self.index[index]
        # "clip": numpy would otherwise copy once more. The rows are all there.
        return np.take(np.asarray(self.stored), rows, axis=0, out=out, mode="clip")

    def chunks(self) -> Iterator[np.ndarray]:
        """The pixels of all images, in their order, some megabytes at a time."""
        size = max(1, CHUNK // int(np.prod(self.shape)))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            if self._in_memory:
                yield self.stored[start:stop]
            else:
                yield self.read(np.arange(start, stop))

    def take(self, index: np.ndarray) -> "Images":
        """The images at `index`."""
        if self._in_memory:
            return Images(self.stored[index], self.y[index])
        return Images(self.stored, self.y[index], self._rows[index])

    def first(self, n: int) -> "Images":
        """The first `n` images; they share the memory."""
        if self._in_memory:
            return Images(self.stored[:n], self.y[:n])
        return Images(self.stored, self.y[:n], self._rows[:n])

    def arrays(self) -> Iterable[np.ndarray]:
        """Pixels, piece by piece, and labels."""
        yield from self.chunks()
        yield self.y

    @property
    def _in_memory(self) -> bool:
        return not is_mapped(self.stored)

    @property
    def _rows(self) -> np.ndarray:
        return np.arange(len(self)) if self.index is None else self.index

    def __reduce__(self) -> tuple[Any, ...]:
        if self._in_memory:
            return Images, (self.stored, self.y, self.index)
        file: Any = self.stored  # numpy's stubs know no `filename` and `offset`
        return _opened, (str(file.filename), file.offset, file.shape, self.y, self.index)


def as_measured(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W, C) uint8: how a model that is not trained gets (n, h, w, C) images.

    They are the middle of the images, scaled down if they are much larger than that.
    """
    pixels = scaled(pixels, size)
    top, left = ((a - b) // 2 for a, b in zip(pixels.shape[1:3], size, strict=True))
    return pixels[:, top : top + size[0], left : left + size[1]]


def scaled(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The (n, h, w, C) uint8 images at the size of which the middle is measured."""
    height, width = pixels.shape[1:3]
    smaller = measured_of((height, width), size)
    if smaller == (height, width):
        return pixels
    planes = pixels.permute(0, 3, 1, 2)
    if pixels.device.type != "cpu":  # only a CPU scales bytes
        planes = planes.float()
    planes = functional.interpolate(planes, smaller, mode="bilinear", antialias=True)
    return planes.round().to(torch.uint8).permute(0, 2, 3, 1)


def is_mapped(x: np.ndarray) -> bool:
    """Whether `x` is a whole mapped file; a part of one no longer knows where it begins."""
    return isinstance(x, np.memmap) and isinstance(x.base, mmap.mmap)


def _opened(
    path: str, offset: int, shape: tuple[int, ...], y: np.ndarray, index: np.ndarray | None
) -> Images:
    """The images of a mapped file, in the process that received them. Raises UserError."""
    try:
        stored: np.ndarray = np.memmap(path, np.uint8, "r", offset, shape)
    except (OSError, ValueError) as error:
        why = "is not there" if not Path(path).exists() else f"cannot be mapped: {error}"
        # In one line: of what a worker says, the last one is told.
        raise UserError(
            f"the packed images {path} {why}, on the machine of a worker: "
            f"keep them in a folder that all machines share, which {VARIABLE} names"
        ) from None
    return Images(stored, y, index)
