"""Labelled images on the host."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Images:
    """`x`: (N, H, W, C) uint8; `y`: (N,) int64 labels from 0."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: np.ndarray) -> "Images":
        """The images at `index`."""
        return Images(self.x[index], self.y[index])

    def first(self, n: int) -> "Images":
        """The first `n` images."""
        return Images(self.x[:n], self.y[:n])

    def arrays(self) -> Iterable[np.ndarray]:
        """Pixels and labels."""
        return self.x, self.y
