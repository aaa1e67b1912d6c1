"""What a batch holds: each image once an epoch, cropped and flipped as the recipe says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from bam_search.tasks.classification.batches import (
    DeviceImages,
    ImageBatches,
    LabelledPart,
)
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.pictures.crops import Resized, resize_all, resize_each
from bam_search.tasks.pictures.measured import as_measured
from bam_search.tasks.pictures.normalisation import Normalisation
from bam_search.tasks.pictures.plan import ASPECT, SCALE, EpochPlan, Frame
from bam_search.tasks.recipe import Recipe

CROP = Recipe(augment="crop-flip")
ROOM = 2**30
PADDED = Frame((40, 40), (32, 32))


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
    recipe = recipe.for_size(some.shape[:2])
    on_device = DeviceImages.of(some, some.shape[:2], recipe, "cpu", batch, ROOM)
    return ImageBatches.of(on_device, plain, recipe, batch)


def pixels(part: LabelledPart) -> torch.Tensor:
    return part.inputs.permute(0, 2, 3, 1).to(torch.uint8)


@pytest.mark.parametrize("augment", ["crop-flip", "flip", "none"])
def test_a_batch_is_what_padding_cropping_and_flipping_one_by_one_gives(augment: str) -> None:
    some = images(100)
    recipe = Recipe(augment=augment)  # type: ignore[arg-type]
    plan = EpochPlan.of(100, PADDED, 7, 1, recipe)
    got = loaded(some, 30, 7, 1, recipe)
    assert [len(labels) for _, labels in got] == [30, 30, 30]
    expected = []
    for i in range(90):
        padded = torch.nn.functional.pad(
            torch.from_numpy(some.x[plan.index[i]]), (0, 0, 4, 4, 4, 4)
        )
        top, left = plan.boxes.top[i], plan.boxes.left[i]
        crop = padded[top : top + 32, left : left + 32]
        expected.append(crop.flip(1) if plan.flipped[i] else crop)
    assert torch.equal(torch.cat([pixels for pixels, _ in got]), torch.stack(expected))
    assert torch.cat([labels for _, labels in got]).tolist() == some.y[plan.index[:90]].tolist()


def test_an_order_takes_each_image_once_and_shifts_and_flips_as_the_recipe_says() -> None:
    plan = EpochPlan.of(1000, PADDED, 0, 0, CROP)
    assert sorted(plan.index.tolist()) == list(range(1000))
    assert set(plan.boxes.top.tolist()) == set(plan.boxes.left.tolist()) == set(range(9))
    assert 400 < plan.flipped.sum() < 600
    for augment, flips in (("flip", True), ("none", False)):
        plan = EpochPlan.of(1000, PADDED, 0, 0, Recipe(augment=augment))  # type: ignore[arg-type]
        assert set(plan.boxes.top.tolist()) == set(plan.boxes.left.tolist()) == {4}
        assert bool(plan.flipped.any()) == flips


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    orders = [
        EpochPlan.of(100, PADDED, 3, epoch, replace(CROP, alternate=True)) for epoch in range(4)
    ]
    flips = [plan.flipped[plan.index.argsort()] for plan in orders]
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert 20 < flips[0].sum() < 80


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def plan(seed: int, epoch: int) -> list[int]:
        return EpochPlan.of(64, PADDED, seed, epoch, CROP).index.tolist()

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


def large(n: int, height: int = 73, width: int = 73) -> Images:
    """Pictures that change smoothly, so that a shift by a pixel is a small change."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 5, 5)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    pixels = smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return Images(pixels.numpy(), np.arange(n) % 10)


RESIZED = Recipe(augment="resized-crop-flip")


def test_boxes_lie_in_the_image_and_have_the_area_and_aspect_that_they_should() -> None:
    for source in ((60, 80), (73, 73)):
        plan = EpochPlan.of(4000, Frame(source, (64, 64)), 0, 0, RESIZED)
        boxes = plan.boxes
        assert bool((boxes.top >= 0).all() and (boxes.left >= 0).all())
        assert bool((boxes.top + boxes.height <= source[0]).all())
        assert bool((boxes.left + boxes.width <= source[1]).all())
        area = boxes.height * boxes.width / (source[0] * source[1])
        assert SCALE[0] - 0.02 < area.min() < SCALE[0] + 0.02
        aspect = boxes.width / boxes.height
        assert ASPECT[0] - 0.03 < aspect.min() < aspect.max() < ASPECT[1] + 0.03
        assert sorted(plan.index.tolist()) == list(range(4000))
        assert 1800 < plan.flipped.sum() < 2200
    assert area.max() > 0.95


def test_a_picture_that_no_box_fits_gives_what_it_has() -> None:
    boxes = EpochPlan.of(100, Frame((8, 400), (8, 8)), 0, 0, RESIZED).boxes
    assert set(boxes.height.tolist()) == {8}
    assert bool((boxes.width <= 400).all())


def test_boxes_are_resized_as_torch_resizes_each_picture_cut_out() -> None:
    some = large(20)
    batches = ImageBatches.of(
        DeviceImages.of(some, (64, 64), RESIZED, "cpu", 10, ROOM),
        Normalisation(torch.zeros(1), torch.ones(1)),
        RESIZED,
        10,
    )
    batches.load(3, 1)
    plan = EpochPlan.of(20, Frame((73, 73), (64, 64)), 3, 1, RESIZED)
    boxes, seen = plan.boxes, []
    for i in range(20):
        top, left = int(boxes.top[i]), int(boxes.left[i])
        box = torch.from_numpy(some.x[plan.index[i]]).permute(2, 0, 1)
        box = box[:, top : top + boxes.height[i], left : left + boxes.width[i]]
        crop = torch.nn.functional.interpolate(
            box[None].float(), (64, 64), mode="bilinear", antialias=True
        )
        seen.append(crop.flip(3) if plan.flipped[i] else crop)
    got = torch.cat([part.inputs for s in (0, 1) for part in batches.parts(torch.tensor([s]), 2)])
    assert (got - torch.cat(seen)).abs().max() <= 1.01  # of 255, for rounding
    assert batches.labels.flatten().tolist() == some.y[plan.index].tolist()


def test_a_gpu_resizes_all_boxes_at_once_as_a_cpu_does_one_by_one() -> None:
    some = large(30, 73, 140)
    memory = Resized.of(some.shape, (64, 80), 30, "cpu")
    memory.write(0, torch.from_numpy(some.x))
    plan = EpochPlan.of(30, memory.frame, 0, 0, RESIZED)
    cuts = memory.cuts(plan.index, plan)
    planes = memory.memory.permute(0, 3, 1, 2)
    one, all_at_once = resize_each(planes, cuts, (64, 80)), resize_all(planes, cuts, (64, 80))
    assert plan.flipped.any()
    assert all_at_once.shape == one.shape == (30, 3, 64, 80)
    assert (one.float() - all_at_once).abs().max() <= 1.01


def test_larger_images_are_cropped_about_their_middle() -> None:
    some = large(10)
    for augment in ("none", "crop-flip"):
        recipe = Recipe(augment=augment)  # type: ignore[arg-type]
        on_device = DeviceImages.of(some, (64, 64), recipe, "cpu", 10, ROOM)
        plain = Normalisation(torch.zeros(1), torch.ones(1))
        batches = ImageBatches.of(on_device, plain, recipe, 10)
        batches.load(0, 0)
        (part,) = batches.parts(torch.tensor([0]), 1)
        plan = EpochPlan.of(10, Frame((80, 80), (64, 64)), 0, 0, recipe)
        padded = torch.nn.functional.pad(torch.from_numpy(some.x), (0, 0, 4, 3, 4, 3))
        for i in range(10):
            top, left = plan.boxes.top[i], plan.boxes.left[i]
            crop = padded[plan.index[i], top : top + 64, left : left + 64]
            expected = crop.flip(1) if plan.flipped[i] else crop
            assert torch.equal(pixels(part)[i], expected)
    assert torch.equal(padded[:, 8:72, 8:72], as_measured(torch.from_numpy(some.x), (64, 64)))


@pytest.mark.parametrize(
    ("stored", "scaled"),
    [((64, 64), (64, 64)), ((73, 73), (73, 73)), ((128, 128), (73, 73)), ((300, 150), (146, 73))],
)
def test_what_is_measured_is_what_torchvision_resizes_and_crops(
    stored: tuple[int, int], scaled: tuple[int, int]
) -> None:
    some = torch.from_numpy(large(3, *stored).x)
    usual = v2.Compose([v2.Resize(scaled, antialias=True), v2.CenterCrop(64)])
    expected = usual(some.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.equal(as_measured(some, (64, 64)), expected)
