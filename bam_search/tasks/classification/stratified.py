"""The stratified split of labelled images: each class has its share of each part."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.split import SplitSizes, stratified_order
from bam_search.tasks.task import Dataset, Split
from bam_search.words import counted


def split_stratified(data: Dataset, classes: int, sizes: SplitSizes, seed: int) -> Split:
    """The split of these sizes, in which each class has its share of each part.

    `seed` fixes the choice. A class of few images has one in each part. Raises UserError if there
    are too few images, or too few of one class.
    """
    sizes.check(classes, f"each part needs at least {classes} images, one a class")
    labels = data.train.y
    order = stratified_order(labels, np.random.default_rng(seed))
    parts = _Parts(order, labels, sizes)
    for label in np.unique(labels).tolist():
        parts.complete(label, _name(data, label))
    return Split.of(data, order, sizes, "stratified")


def _name(data: Dataset, label: int) -> str:
    names = data.classes
    return repr(names[label]) if names else f"number {label}"


@dataclass(frozen=True, eq=False)
class _Parts:
    """An order of all images, which is changed in place, and which of it fits and validates."""

    order: np.ndarray
    labels: np.ndarray
    sizes: SplitSizes

    @property
    def fit(self) -> range:
        return range(self.sizes.fit)

    @property
    def validation(self) -> range:
        return range(self.sizes.total - self.sizes.validation, self.sizes.total)

    def complete(self, label: int, name: str) -> None:
        """See that both parts have an image of a class. Raises UserError if it has too few."""
        places = np.flatnonzero(self.labels[self.order] == label).tolist()
        for part, other in ((self.fit, self.validation), (self.validation, self.fit)):
            if any(place in part for place in places):
                continue
            # First an image that is in no part; the other part keeps one.
            spare = [place for place in places if place not in other]
            giver = next(iter(spare), places[-1] if len(places) > 1 else None)
            if giver is None:
                raise UserError(
                    f"class {name} has {counted(len(places), 'training image')}",
                    "what trains and what validates need one each: add some, or leave it out",
                )
            self._swap(giver, self._of_the_largest_class(part))
            places = np.flatnonzero(self.labels[self.order] == label).tolist()

    def _swap(self, one: int, other: int) -> None:
        self.order[[one, other]] = self.order[[other, one]]

    def _of_the_largest_class(self, part: range) -> int:
        """The last place in a part of the class of which it has most images."""
        labels = self.labels[self.order[part.start : part.stop]].tolist()
        ((largest, _),) = Counter(labels).most_common(1)
        return part.stop - 1 - labels[::-1].index(largest)
