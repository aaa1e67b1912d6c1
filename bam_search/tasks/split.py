"""How many of a data set's training samples train, and how many validate."""

from dataclasses import dataclass

import numpy as np

from bam_search.errors import UserError


@dataclass(frozen=True)
class SplitSizes:
    """The sizes of a split of `total` training samples.

    Finalists train on the first `train` samples of some order. The last `validation` samples of it
    validate the search: samples that train nobody, as long as there are enough. `fit`, the first
    ones, train in the search: all of `train` but what validates.
    """

    total: int
    train: int
    validation: int

    @classmethod
    def of(cls, total: int, samples: int | None, validation: float) -> "SplitSizes":
        """The sizes if `samples` train, None for all of `total`.

        `validation` is a share of `total`, or a number of samples if it is an integer. Raises
        UserError for more samples than there are, and if none is left for a part.
        """
        train = total if samples is None else samples
        if train > total:
            raise UserError(
                f"data.images = {train}, but the training set has {total}",
                'use a smaller number, or "all"',
            )
        held_out = validation if isinstance(validation, int) else round(total * validation)
        sizes = cls(total, train, held_out)
        sizes.check(1, "each part needs samples")
        return sizes

    @property
    def fit(self) -> int:
        """How many samples train in the search."""
        return min(self.train, self.total - self.validation)

    def check(self, least: int, hint: str) -> None:
        """Raise UserError, with this hint, unless each part has `least` samples."""
        if min(self.fit, self.validation) < least:
            raise UserError(
                f"data.images = {self.train} and data.validation leave, of {self.total} samples, "
                f"{max(self.fit, 0)} to train in the search and {self.validation} to validate",
                hint,
            )


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of the samples in which each run of samples has each class's share of them.

    Of classes of one size, first comes one sample of each, then a second of each, and so on.
    """
    order = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place, kind="stable")]
