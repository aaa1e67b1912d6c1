"""What a batch holds: each image once an epoch, cropped and flipped as the recipe says."""

import pytest
import torch

from bam_search.score.batches import Batches, Order, Stock
from bam_search.score.data import Images
from bam_search.score.generated import generate
from bam_search.score.recipe import Recipe


def images(n: int) -> Images:
    x, y, _, _ = generate(n, 0)
    return Images(x, y)


def dealt(some: Images, batch: int, order: Order) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pixels and labels of the epoch's batches."""
    batches = Batches.of(Stock.of(some, "cpu"), batch)
    batches.deal(order)
    return [part for step in range(len(batches)) for part in batches.parts(torch.tensor([step]), 1)]


@pytest.mark.parametrize("augment", ["crop-flip", "flip", "none"])
def test_a_batch_is_what_padding_cropping_and_flipping_one_by_one_gives(augment: str) -> None:
    some = images(100)
    order = Order.of(100, 7, 1, Recipe(augment=augment))  # type: ignore[arg-type]
    got = dealt(some, 30, order)
    assert [len(labels) for _, labels in got] == [30, 30, 30]
    expected = []
    for i in range(90):
        padded = torch.nn.functional.pad(torch.from_numpy(some.x[order.index[i]]), (0, 0, 4, 4, 4, 4))
        crop = padded[order.top[i] : order.top[i] + 32, order.left[i] : order.left[i] + 32]
        expected.append(crop.flip(1) if order.flipped[i] else crop)
    assert torch.equal(torch.cat([pixels for pixels, _ in got]), torch.stack(expected))
    assert torch.cat([labels for _, labels in got]).tolist() == some.y[order.index[:90]].tolist()


def test_an_order_takes_each_image_once_and_shifts_and_flips_as_the_recipe_says() -> None:
    order = Order.of(1000, 0, 0, Recipe())
    assert sorted(order.index.tolist()) == list(range(1000))
    assert set(order.top.tolist()) == set(order.left.tolist()) == set(range(9))
    assert 400 < order.flipped.sum() < 600
    for augment, flips in (("flip", True), ("none", False)):
        order = Order.of(1000, 0, 0, Recipe(augment=augment))  # type: ignore[arg-type]
        assert set(order.top.tolist()) == set(order.left.tolist()) == {4}
        assert bool(order.flipped.any()) == flips


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    orders = [Order.of(100, 3, epoch, Recipe(alternate=True)) for epoch in range(4)]
    flips = [order.flipped[order.index.argsort()] for order in orders]
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert 20 < flips[0].sum() < 80


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return Order.of(64, seed, epoch, Recipe()).index.tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) != order(2, 3)


def test_the_parts_of_a_batch_are_the_batch() -> None:
    batches = Batches.of(Stock.of(images(50), "cpu"), 25)
    batches.deal(Order.of(50, 0, 0, Recipe()))
    ((whole, labels),) = batches.parts(torch.tensor([1]), 1)
    halves = batches.parts(torch.tensor([1]), 2)
    assert [len(known) for _, known in halves] == [13, 12]
    assert torch.equal(whole, torch.cat([pixels for pixels, _ in halves]))
    assert torch.equal(labels, torch.cat([known for _, known in halves]))
