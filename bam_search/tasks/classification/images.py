"""Labelled images on the host, and their stratified split."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Split


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


def split_stratified(data: Dataset, classes: int, sizes: SplitSizes, seed: int) -> Split:
    """The split of these sizes, in which each class has its share of each part.

    `seed` fixes the choice. Raises UserError if there are too few images.
    """
    sizes.check(classes, f"each part needs at least {classes} images, one a class")
    order = _stratified_order(data.train.y, np.random.default_rng(seed))
    return Split.of(data, order, sizes, "stratified")


def _stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of the images in which each run of images has each class's share of them.

    Of classes of one size, first comes one image of each, then a second of each, and so on.
    """
    order = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place, kind="stable")]
