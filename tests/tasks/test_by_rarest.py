"""The split of annotated pictures: a rare class has its share of each part."""

import numpy as np
import pytest

from bam_search.errors import UserError
from bam_search.tasks.detection.by_rarest import rarest_classes, split_by_rarest
from bam_search.tasks.detection.samples import DetectionSamples
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset


def of(labels: list[list[int]], ignore: bool = False) -> DetectionSamples:
    """Pictures with objects of these classes."""
    every = np.array([label for some in labels for label in some], np.int64)
    return DetectionSamples(
        Pixels(np.zeros((len(labels), 4, 4, 3), np.uint8)),
        np.tile(np.array([0, 0, 2, 2], np.float32), (len(every), 1)),
        every,
        np.full(len(every), ignore),
        np.concatenate([[0], np.cumsum([len(some) for some in labels])]),
        np.full((len(labels), 2), 4),
    )


def dataset(samples: DetectionSamples) -> Dataset:
    return Dataset("squares", "", samples, samples, classes=("one", "two", "three"))


def test_a_picture_counts_for_its_rarest_class() -> None:
    pictures = [[1, 2], [1], [1, 1, 3], [2, 3], [2], [], [1]]
    assert rarest_classes(of(pictures)).tolist() == [2, 1, 3, 3, 2, 0, 1]
    assert rarest_classes(of([[1]], ignore=True)).tolist() == [0]


@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_has_its_share_of_each_part(seed: int) -> None:
    labels = [[1, 1, 2]] * 70 + [[1]] * 20 + [[1, 3]] * 10
    split = split_by_rarest(dataset(of(labels)), SplitSizes.of(100, None, 0.2), seed)
    assert (len(split.fit), len(split.validation)) == (80, 20)
    assert ((split.validation.labels == 3).sum(), (split.fit.labels == 3).sum()) == (2, 8)
    other = split_by_rarest(dataset(of(labels)), SplitSizes.of(100, None, 0.2), seed + 1)
    assert not np.array_equal(other.fit.labels, split.fit.labels)


def test_a_part_without_objects_is_an_error() -> None:
    labels: list[list[int]] = [[]] * 8 + [[1], [1]]
    with pytest.raises(UserError, match="1 validation image without an object to find"):
        split_by_rarest(dataset(of(labels)), SplitSizes.of(10, None, 1), 0)
