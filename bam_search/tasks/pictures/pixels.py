"""Pictures of one size as pixels, in memory or in a mapped file."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.pictures.cache import VARIABLE

CHUNK = 2**24
"""About how many bytes of pixels are read at a time where all are looked at."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pictures of one size.

    `stored` is (M, h, w, C) uint8. Without `index` it is these pictures. If it is a mapped file
    (`np.load(..., mmap_mode="r")`) they are the rows `index`, (N,): pixels are read when they are
    asked for, and a process that receives the pictures opens the file itself.
    """

    stored: np.ndarray
    index: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.stored) if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, C) of a picture."""
        height, width, channels = self.stored.shape[1:]
        return height, width, channels

    @property
    def x(self) -> np.ndarray:
        """(N, h, w, C) uint8: all pixels, in memory."""
        return self.stored if self.in_memory else self.read(np.arange(len(self)))

    def read(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(n, h, w, C) uint8: the pixels at `index`, copied; into `out` if given."""
        rows = index if self.index is None else self.index[index]
        # "clip": numpy would otherwise copy once more. The rows are all there.
        return np.take(np.asarray(self.stored), rows, axis=0, out=out, mode="clip")

    def chunks(self) -> Iterator[np.ndarray]:
        """The pixels of all pictures, in their order, some megabytes at a time."""
        size = max(1, CHUNK // int(np.prod(self.shape)))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            if self.in_memory:
                yield self.stored[start:stop]
            else:
                yield self.read(np.arange(start, stop))

    def take(self, index: np.ndarray) -> "Pixels":
        """The pictures at `index`."""
        if self.in_memory:
            return Pixels(self.stored[index])
        return Pixels(self.stored, self._rows[index])

    def first(self, n: int) -> "Pixels":
        """The first `n` pictures; they share the memory."""
        if self.in_memory:
            return Pixels(self.stored[:n])
        return Pixels(self.stored, self._rows[:n])

    @property
    def in_memory(self) -> bool:
        """Whether they are no mapped file."""
        return not is_mapped(self.stored)

    @property
    def _rows(self) -> np.ndarray:
        return np.arange(len(self)) if self.index is None else self.index

    def __reduce__(self) -> tuple[Any, ...]:
        if self.in_memory:
            return Pixels, (self.stored, self.index)
        file: Any = self.stored  # numpy's stubs know no `filename` and `offset`
        return _opened, (str(file.filename), file.offset, file.shape, self.index)


def is_mapped(x: np.ndarray) -> bool:
    """Whether `x` is a whole mapped file; a part of one no longer knows where it begins."""
    return isinstance(x, np.memmap) and isinstance(x.base, mmap.mmap)


def _opened(path: str, offset: int, shape: tuple[int, ...], index: np.ndarray | None) -> Pixels:
    """The pictures of a mapped file, in the process that received them. Raises UserError."""
    try:
        stored: np.ndarray = np.memmap(path, np.uint8, "r", offset, shape)
    except (OSError, ValueError) as error:
        why = "is not there" if not Path(path).exists() else f"cannot be mapped: {error}"
        # In one line: of what a worker says, the last one is told.
        raise UserError(
            f"the packed images {path} {why}, on the machine of a worker: "
            f"keep them in a folder that all machines share, which {VARIABLE} names"
        ) from None
    return Pixels(stored, index)
