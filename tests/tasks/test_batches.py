"""What a batch holds: each image once an epoch, cropped and flipped as the recipe says."""

import numpy as np
import pytest
import torch

from bam_search.tasks.classification.batches import (
    DeviceImages,
    EpochPlan,
    ImageBatches,
    LabelledPart,
)
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.normalisation import Normalisation
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe


def images(n: int) -> Images:
    x, y, _, _ = generate_images(n, 0)
    return Images(x, y)


def loaded(
    some: Images, batch: int, seed: int, epoch: int, recipe: Recipe
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pixels and labels of the epoch's batches."""
    batches = batches_of(some, batch, recipe)
    batches.load(seed, epoch)
    return [
        (pixels(part), part.labels)
        for step in range(len(batches))
        for part in batches.parts(torch.tensor([step]), 1)
    ]


def batches_of(some: Images, batch: int, recipe: Recipe) -> ImageBatches:
    """Batches whose inputs are the pixels as they are."""
    plain = Normalisation(torch.zeros(1), torch.ones(1))
    return ImageBatches.of(DeviceImages.of(some, "cpu"), plain, recipe, batch)


def pixels(part: LabelledPart) -> torch.Tensor:
    return part.inputs.permute(0, 2, 3, 1).to(torch.uint8)


@pytest.mark.parametrize("augment", ["crop-flip", "flip", "none"])
def test_a_batch_is_what_padding_cropping_and_flipping_one_by_one_gives(augment: str) -> None:
    some = images(100)
    recipe = Recipe(augment=augment)  # type: ignore[arg-type]
    plan = EpochPlan.of(100, 4, 7, 1, recipe)
    got = loaded(some, 30, 7, 1, recipe)
    assert [len(labels) for _, labels in got] == [30, 30, 30]
    expected = []
    for i in range(90):
        padded = torch.nn.functional.pad(
            torch.from_numpy(some.x[plan.index[i]]), (0, 0, 4, 4, 4, 4)
        )
        crop = padded[plan.top[i] : plan.top[i] + 32, plan.left[i] : plan.left[i] + 32]
        expected.append(crop.flip(1) if plan.flipped[i] else crop)
    assert torch.equal(torch.cat([pixels for pixels, _ in got]), torch.stack(expected))
    assert torch.cat([labels for _, labels in got]).tolist() == some.y[plan.index[:90]].tolist()


def test_an_order_takes_each_image_once_and_shifts_and_flips_as_the_recipe_says() -> None:
    plan = EpochPlan.of(1000, 4, 0, 0, Recipe())
    assert sorted(plan.index.tolist()) == list(range(1000))
    assert set(plan.top.tolist()) == set(plan.left.tolist()) == set(range(9))
    assert 400 < plan.flipped.sum() < 600
    for augment, flips in (("flip", True), ("none", False)):
        plan = EpochPlan.of(1000, 4, 0, 0, Recipe(augment=augment))  # type: ignore[arg-type]
        assert set(plan.top.tolist()) == set(plan.left.tolist()) == {4}
        assert bool(plan.flipped.any()) == flips


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    orders = [EpochPlan.of(100, 4, 3, epoch, Recipe(alternate=True)) for epoch in range(4)]
    flips = [plan.flipped[plan.index.argsort()] for plan in orders]
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert 20 < flips[0].sum() < 80


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def plan(seed: int, epoch: int) -> list[int]:
        return EpochPlan.of(64, 4, seed, epoch, Recipe()).index.tolist()

    assert plan(1, 2) == plan(1, 2)
    assert plan(1, 2) != plan(1, 3) != plan(2, 3)


def test_the_parts_of_a_batch_are_the_batch() -> None:
    batches = batches_of(images(50), 25, Recipe())
    batches.load(0, 0)
    (whole,) = batches.parts(torch.tensor([1]), 1)
    halves = list(batches.parts(torch.tensor([1]), 2))
    assert [len(half) for half in halves] == [13, 12]
    assert torch.equal(whole.inputs, torch.cat([half.inputs for half in halves]))
    assert torch.equal(whole.labels, torch.cat([half.labels for half in halves]))


def test_images_need_not_be_square_nor_of_three_channels() -> None:
    pixels_before = torch.arange(6 * 12 * 8, dtype=torch.int64).remainder(251).to(torch.uint8)
    some = Images(pixels_before.view(6, 12, 8, 1).numpy(), np.arange(6))
    ((got, labels),) = loaded(some, 6, 0, 0, Recipe(augment="none"))
    assert torch.equal(got, torch.from_numpy(some.x)[labels])
