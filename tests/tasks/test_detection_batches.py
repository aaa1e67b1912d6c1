"""Boxes follow their objects through crops and flips, and what is found is counted as it is."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bam_search.model.load import Inputs, load
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.measure import measured
from bam_search.tasks.detection.batches import AnnotatedBatches, Objects
from bam_search.tasks.detection.on_device import BATCH, TrainingPictures
from bam_search.tasks.detection.samples import DetectionSamples
from bam_search.tasks.detection.shapes import shapes
from bam_search.tasks.load_task import load_task
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.recipe import Recipe

SIZE = (96, 128)
ROOM = 10**9
AUGMENTATIONS = ("none", "flip", "crop-flip", "resized-crop-flip")


def one_bright(n: int) -> DetectionSamples:
    """Black pictures, each with one white rectangle, whose box is exact."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((n, *SIZE, 3), dtype=np.uint8)
    corners = rng.integers((8, 8), (70, 50), (n, 2))
    boxes = np.concatenate([corners, corners + rng.integers(12, 40, (n, 2))], 1)
    for picture, (x1, y1, x2, y2) in zip(pixels, boxes, strict=True):
        picture[y1:y2, x1:x2] = 255
    return samples(pixels, boxes, np.ones(n, dtype=np.int64), np.arange(n + 1))


def samples(
    pixels: np.ndarray, boxes: np.ndarray, labels: np.ndarray, offsets: np.ndarray
) -> DetectionSamples:
    ignore = np.zeros(len(boxes), dtype=bool)
    sizes = np.full((len(pixels), 2), SIZE)
    return DetectionSamples(
        Pixels(pixels), boxes.astype(np.float32), labels, ignore, offsets, sizes
    )


def on_device(some: DetectionSamples, augment: str = "flip", room: int = ROOM) -> TrainingPictures:
    recipe = Recipe(augment=augment, precision="fp32")  # type: ignore[arg-type]
    return TrainingPictures.of(some, recipe, "cpu", room, 3, "coco")


def loaded(data: TrainingPictures, batch: int, epoch: int = 0) -> AnnotatedBatches:
    batches = data.batches(batch)
    batches.load(0, epoch)
    return batches


def extent(bright: Tensor) -> list[float]:
    """x1 y1 x2 y2 of what is bright in (H, W)."""
    rows, columns = (torch.nonzero(bright.any(axis))[:, 0] for axis in (1, 0))
    corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [float(corner) for corner in corners]


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_a_box_lies_around_its_object_in_every_crop(augment: str) -> None:
    data = on_device(one_bright(32), augment)
    batches, seen = loaded(data, 8), 0
    for step in range(len(batches)):
        (part,) = batches.parts(torch.tensor([step]), 1)
        found = zip(part.inputs, part.objects.boxes, part.objects.labels, strict=True)
        for inputs, boxes, labels in found:
            if labels[0]:
                bright = inputs[0] > (inputs.max() + inputs.min()) / 2
                assert boxes[0].tolist() == pytest.approx(extent(bright), abs=1.01)
                seen += 1
    assert seen > 20
    assert augment in ("crop-flip", "resized-crop-flip") or seen == 32


def test_half_of_the_objects_are_mirrored_and_the_epoch_says_which() -> None:
    data = on_device(one_bright(64))
    windows = [loaded(data, 64, epoch).windows[0, :, 4] for epoch in (0, 0, 1)]
    assert 20 < windows[0].sum() < 44
    assert torch.equal(windows[0], windows[1])
    assert not torch.equal(windows[0], windows[2])


def test_parts_of_a_batch_are_the_batch() -> None:
    batches = loaded(on_device(shapes(16, 0), "resized-crop-flip"), 8)
    step = torch.tensor([1])
    (whole,), halves = batches.parts(step, 1), tuple(batches.parts(step, 2))
    assert [len(part) for part in halves] == [4, 4]
    assert torch.equal(whole.inputs, torch.cat([part.inputs for part in halves]))
    assert torch.equal(whole.objects.boxes, torch.cat([part.objects.boxes for part in halves]))


@pytest.mark.parametrize("augment", ["flip", "resized-crop-flip"])
def test_pictures_that_pass_through_a_small_memory_are_the_same_batches(augment: str) -> None:
    some = shapes(24, 0)
    for epoch in (0, 1):
        all_there = loaded(on_device(some, augment), 4, epoch)
        passing = loaded(on_device(some, augment, room=1), 4, epoch)
        assert passing.pixels.ring is not None
        for step in range(6):
            passing.ready(step)
            (one,), (other,) = (
                batches.parts(torch.tensor([step]), 1) for batches in (all_there, passing)
            )
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.objects.boxes, other.objects.boxes)


def test_a_crop_has_the_objects_whose_middle_it_shows() -> None:
    boxes = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 40, 20], [30, 30, 50, 60], [90, 0, 100, 9]]])
    windows = torch.tensor([[15.0, 0, 64, 48, 0]])
    seen = Objects(boxes, torch.tensor([[1, 2, 3, 1]])).seen(windows, SIZE)
    assert seen.labels.tolist() == [[0, 2, 3, 0]]
    assert seen.boxes[0, 1:3].tolist() == [[0, 0, 50, 40], [30, 60, 70, 96]]
    (target,) = seen.targets
    assert target["labels"].tolist() == [2, 3]
    assert target["boxes"].tolist() == seen.boxes[0, 1:3].tolist()


def test_what_is_to_be_ignored_is_not_learned_and_an_empty_picture_is_trained_on() -> None:
    some = shapes(4, 0).take(np.array([0, 1]))
    some.ignore[: some.offsets[1]] = True
    first, second = Objects.of(some, "cpu").targets
    assert first["boxes"].shape == (0, 4)
    assert len(second["labels"]) == some.offsets[2] - some.offsets[1]
    net = load("fcos_small", Inputs((3, *SIZE), 4)).backbone(4)
    losses = net(torch.zeros(2, 3, *SIZE), [first, second])
    assert all(torch.isfinite(loss) for loss in losses.values())


class Knows(nn.Module):
    """Finds what it is told, picture after picture."""

    def __init__(self, answers: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.answers = answers
        self.asked = 0

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)}
        found = self.answers[self.asked : self.asked + len(images)]
        self.asked += len(images)
        return found + [nothing] * (len(images) - len(found))


def answers_of(some: DetectionSamples) -> list[dict[str, Tensor]]:
    return [
        {**target, "scores": torch.linspace(0.5, 0.9, len(target["labels"]))}
        for target in Objects.of(some, "cpu").targets
    ]


def test_finding_all_has_the_best_value_and_finding_nothing_the_worst() -> None:
    some = shapes(BATCH["cpu"] + 3, 1)
    metric = load_task("detection").metric
    context = TrainingContext(choose("cpu"), False, on_device(some))
    all_found = measured(Knows(answers_of(some)), some, context)
    assert all_found.value == pytest.approx(metric.best)
    assert measured(Knows([]), some, context).value == metric.chance
    half = answers_of(some)
    half[::2] = [{key: value[:0] for key, value in answer.items()} for answer in half[::2]]
    assert 0 < measured(Knows(half), some, context).value < all_found.value


def test_only_the_surest_objects_of_many_count() -> None:
    some = shapes(2, 1)
    many = [
        {key: torch.cat([value] * 60) for key, value in answer.items()}
        for answer in answers_of(some)
    ]
    tally = on_device(some).held_out(some).tally()
    tally.add(Knows(many), torch.tensor([0]))
    scores = tally.found().scores
    assert scores.shape == (2, 100)
    assert (np.diff(scores, axis=1) <= 0).all()
