"""Labelled images on the host, in memory or in a mapped file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bam_search.tasks.classification.sizing import measured_of
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
        return self._pixels.shape

    @property
    def x(self) -> np.ndarray:
        """(N, h, w, C) uint8: all pixels, in memory."""
        return self._pixels.x

    def read(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(n, h, w, C) uint8: the pixels of the images at `index`, copied; into `out` if given."""
        return self._pixels.read(index, out)

    def chunks(self) -> Iterator[np.ndarray]:
        """The pixels of all images, in their order, some megabytes at a time."""
        return self._pixels.chunks()

    def take(self, index: np.ndarray) -> "Images":
        """The images at `index`."""
        return _labelled(self._pixels.take(index), self.y[index])

    def first(self, n: int) -> "Images":
        """The first `n` images; they share the memory."""
        return _labelled(self._pixels.first(n), self.y[:n])

    def arrays(self) -> Iterable[np.ndarray]:
        """Pixels, piece by piece, and labels."""
        yield from self.chunks()
        yield self.y

    @property
    def _pixels(self) -> Pixels:
        return Pixels(self.stored, self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        return _labelled, (self._pixels, self.y)


def _labelled(pixels: Pixels, y: np.ndarray) -> Images:
    return Images(pixels.stored, y, pixels.index)


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
