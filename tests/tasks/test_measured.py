"""What classification measures: top-1, top-5 with more than five classes, and class by class."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bam_search.model.load import Inputs
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Measured


def measured(labels: np.ndarray, logits: Tensor) -> Measured:
    """What is measured of images with these labels, for which a model returns these logits."""
    n, classes = logits.shape
    task = sources.task().for_inputs(Inputs((3, 8, 8), classes))
    train = Images(
        np.random.default_rng(0).integers(0, 256, (classes, 8, 8, 3), np.uint8), np.arange(classes)
    )
    held_out = task.on_device(train, Recipe(), "cpu", room=1_000_000).held_out(
        Images(np.zeros((n, 8, 8, 3), np.uint8), labels)
    )
    tally, begun = held_out.tally(), 0

    def model(images: Tensor) -> Tensor:
        nonlocal begun
        begun += len(images)
        rows = logits[begun - len(images) : begun]
        return torch.cat([rows, rows.new_zeros(len(images) - len(rows), classes)])

    for step in range(len(held_out)):
        tally.add(model, torch.tensor([step]))
    return tally.measured()


@pytest.mark.parametrize("n", [7, 125, 300])
def test_it_is_what_a_plain_count_gives(n: int) -> None:
    rng = np.random.default_rng(n)
    labels, logits = rng.integers(0, 8, n), torch.from_numpy(rng.normal(size=(n, 8)))
    labels[0] = 7
    found = measured(labels, logits.float())
    order = np.argsort(-logits.numpy(), axis=1)
    right = order[:, 0] == labels
    assert found.value == pytest.approx(100 * (1 - right.mean()))
    among = (order[:, :5] == labels[:, None]).any(1)
    assert dict(found.further) == {"top-5 error, %": pytest.approx(100 * (1 - among.mean()))}
    assert sum(found.class_samples) == n
    for number, error in enumerate(found.by_class):
        of_class = labels == number
        assert found.class_samples[number] == of_class.sum()
        if of_class.any():
            assert error == pytest.approx(100 * (1 - right[of_class].mean()), abs=0.006)
        else:
            assert error is None


def test_five_classes_have_no_top_5_error() -> None:
    found = measured(np.arange(5), torch.eye(5))
    assert (found.value, dict(found.further), found.by_class) == (0.0, {}, (0.0,) * 5)
