"""Labelled images on the host, in memory or in a mapped file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bam_search.tasks.pictures.pixels import Pixels


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size with their labels: `y`, (N,) int64 from 0.

    `stored` and `index` are those of `Pixels`.
    """

    stored: np.ndarray
    y: np.ndarray
    index: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, C) of an image."""
        return self.pixels.shape

    @property
    def x(self) -> np.ndarray:
        """(N, h, w, C) uint8: all pixels, in memory."""
        return self.pixels.x

    def read(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(n, h, w, C) uint8: the pixels of the images at `index`, copied; into `out` if given."""
        return self.pixels.read(index, out)

    def chunks(self) -> Iterator[np.ndarray]:
        """The pixels of all images, in their order, some megabytes at a time."""
        return self.pixels.chunks()

    def take(self, index: np.ndarray) -> "Images":
        """The images at `index`."""
        return _labelled(self.pixels.take(index), self.y[index])

    def first(self, n: int) -> "Images":
        """The first `n` images; they share the memory."""
        return _labelled(self.pixels.first(n), self.y[:n])

    def arrays(self) -> Iterable[np.ndarray]:
        """Pixels, piece by piece, and labels."""
        yield from self.chunks()
        yield self.y

    @property
    def pixels(self) -> Pixels:
        """Those of the images, without their labels."""
        return Pixels(self.stored, self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        return _labelled, (self.pixels, self.y)


def _labelled(pixels: Pixels, y: np.ndarray) -> Images:
    return Images(pixels.stored, y, pixels.index)
