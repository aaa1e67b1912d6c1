"""What a batch holds: each image once an epoch, cropped and flipped as the recipe says."""

import pytest
import torch

from bam_search.score.batches import Batches, DeviceImages, EpochPlan
from bam_search.score.data import Images
from bam_search.score.recipe import Recipe
from bam_search.score.synthetic import generate_images


def images(n: int) -> Images:
    x, y, _, _ = generate_images(n, 0)
    return Images(x, y)


def loaded(some: Images, batch: int, plan: EpochPlan) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pixels and labels of the epoch's batches."""
    batches = Batches.of(DeviceImages.of(some, "cpu"), batch)
    batches.load(plan)
    return [part for step in range(len(batches)) for part in batches.parts(torch.tensor([step]), 1)]


@pytest.mark.parametrize("augment", ["crop-flip", "flip", "none"])
def test_a_batch_is_what_padding_cropping_and_flipping_one_by_one_gives(augment: str) -> None:
    some = images(100)
    plan = EpochPlan.of(100, 7, 1, Recipe(augment=augment))  # type: ignore[arg-type]
    got = loaded(some, 30, plan)
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
    plan = EpochPlan.of(1000, 0, 0, Recipe())
    assert sorted(plan.index.tolist()) == list(range(1000))
    assert set(plan.top.tolist()) == set(plan.left.tolist()) == set(range(9))
    assert 400 < plan.flipped.sum() < 600
    for augment, flips in (("flip", True), ("none", False)):
        plan = EpochPlan.of(1000, 0, 0, Recipe(augment=augment))  # type: ignore[arg-type]
        assert set(plan.top.tolist()) == set(plan.left.tolist()) == {4}
        assert bool(plan.flipped.any()) == flips


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    orders = [EpochPlan.of(100, 3, epoch, Recipe(alternate=True)) for epoch in range(4)]
    flips = [plan.flipped[plan.index.argsort()] for plan in orders]
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert 20 < flips[0].sum() < 80


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def plan(seed: int, epoch: int) -> list[int]:
        return EpochPlan.of(64, seed, epoch, Recipe()).index.tolist()

    assert plan(1, 2) == plan(1, 2)
    assert plan(1, 2) != plan(1, 3) != plan(2, 3)


def test_the_parts_of_a_batch_are_the_batch() -> None:
    batches = Batches.of(DeviceImages.of(images(50), "cpu"), 25)
    batches.load(EpochPlan.of(50, 0, 0, Recipe()))
    ((whole, labels),) = batches.parts(torch.tensor([1]), 1)
    halves = batches.parts(torch.tensor([1]), 2)
    assert [len(known) for _, known in halves] == [13, 12]
    assert torch.equal(whole, torch.cat([pixels for pixels, _ in halves]))
    assert torch.equal(labels, torch.cat([known for _, known in halves]))
