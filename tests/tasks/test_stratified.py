"""Each part of a split has each class, or a sentence says of which class there are too few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bam_search.errors import UserError
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.stratified import split_stratified
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Split

LABELS = ("cat", "dog", "eel")


def split(counts: list[int], images: int | None = None, validation: float = 0.2) -> Split:
    """The split of a data set with so many images of each class; each pixel is its number."""
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    train = Images(pixels, labels)
    data = Dataset("uneven", "", train, train, classes=LABELS[: len(counts)])
    return split_stratified(data, len(counts), SplitSizes.of(sum(counts), images, validation), 0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=3),
    st.floats(0.1, 0.5),
    st.none() | st.floats(0.3, 0.9),
)
def test_each_part_has_each_class_and_no_image_is_in_two(
    counts: list[int], validation: float, share: float | None
) -> None:
    total = sum(counts)
    images = None if share is None else max(1, round(share * total))
    sizes = SplitSizes.of(total, images, validation) if round(total * validation) else None
    if sizes is None or min(sizes.fit, sizes.validation) < len(counts):
        return
    parts = split(counts, images, validation)
    fit, held_out = set(parts.fit.x.flatten()), set(parts.validation.x.flatten())
    assert (len(fit), len(held_out)) == (sizes.fit, sizes.validation)
    assert not fit & held_out
    assert set(parts.fit.y) == set(parts.validation.y) == set(range(len(counts)))
    assert fit <= set(parts.train.x.flatten())


def test_a_class_of_one_image_is_named_with_its_count() -> None:
    with pytest.raises(UserError, match=r"class 'eel' has 1 training image\n"):
        split([60, 30, 1])


def test_classes_without_a_name_have_a_number() -> None:
    labels = np.array([0] * 20 + [1])
    train = Images(np.zeros((21, 1, 1, 1), np.uint8), labels)
    with pytest.raises(UserError, match=r"class number 1 has 1 training image\n"):
        split_stratified(Dataset("few", "", train, train), 2, SplitSizes.of(21, None, 0.2), 0)
