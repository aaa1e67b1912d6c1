"""Labelled images on the host, and their stratified split."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bam_search.errors import UserError
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

    def joined(self, other: "Images") -> "Images":
        """These images, then the others."""
        return Images(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))

    def arrays(self) -> Iterable[np.ndarray]:
        """Pixels and labels."""
        return self.x, self.y


def split_stratified(
    data: Dataset, classes: int, images: int | None, validation: float, seed: int
) -> Split:
    """The split of `images` of the training set (None: all), with the share `validation` held out.

    Stratified: each class has its share to within one image. `seed` fixes the choice. Raises
    UserError if there are too few images.
    """
    wanted = len(data.train) if images is None else images
    held_out = round(wanted * validation)
    if wanted > len(data.train):
        raise UserError(
            f"data.images = {wanted}, but the training set has {len(data.train)}",
            'use a smaller number, or "all"',
        )
    if held_out < classes or wanted - held_out < classes:
        raise UserError(
            f"data.images = {wanted} with data.validation = {validation} "
            f"leaves {wanted - held_out} to train and {held_out} to validate",
            f"each part needs at least {classes} images, one a class",
        )
    order = _stratified_order(data.train.y, np.random.default_rng(seed))
    fit = data.train.take(order[held_out:wanted])
    held_out_images = data.train.take(order[:held_out])
    return Split(fit, held_out_images, data.test, "stratified")


def _stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of the images in which every prefix is balanced over the classes.

    First comes one image of each class, then a second of each, and so on.
    """
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        rank[members] = np.arange(len(members))
    return order[np.argsort(rank, kind="stable")]
