"""Mean average precision: that of pycocotools, with a standard error over images."""

import contextlib
import io
import sys
from typing import Any

import numpy as np
import pytest

from bam_search.errors import UserError
from bam_search.tasks.bootstrap import RESAMPLES
from bam_search.tasks.detection import matching
from bam_search.tasks.detection.average_precision import (
    KINDS,
    average_precision,
    precisions,
)
from bam_search.tasks.detection.matching import Detections, match
from bam_search.tasks.detection.samples import DetectionSamples
from bam_search.tasks.pictures.pixels import Pixels

CLASSES = 4


def drawn(seed: int, images: int = 20, noise: float = 3.0) -> tuple[Detections, DetectionSamples]:
    """Objects in pictures of 120 x 160 px, and detections of them that are off by some pixels.

    Some objects are to ignore, some detections have one score, and class 4 has no object.
    """
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 12, images)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    corners, sides = rng.uniform(0, 100, (offsets[-1], 2)), rng.uniform(8, 40, (offsets[-1], 2))
    samples = DetectionSamples(
        Pixels(np.zeros((images, 120, 160, 3), np.uint8)),
        np.concatenate([corners, corners + sides], 1).astype(np.float32),
        rng.integers(1, CLASSES, offsets[-1]),
        rng.random(offsets[-1]) < 0.1,
        offsets,
        np.tile([120, 160], (images, 1)),
    )
    boxes = rng.uniform(0, 60, (images, 40, 4))
    boxes[..., 2:] += boxes[..., :2] + 5
    labels = rng.integers(0, CLASSES + 1, (images, 40))
    for image, (first, count) in enumerate(zip(offsets, counts, strict=False)):
        chosen = first + rng.integers(0, max(count, 1), 15)
        if count:
            off = rng.normal(0, noise, (15, 4)).clip(-3.5, 3.5)  # no side is less than 8 px
            boxes[image, :15] = samples.boxes[chosen] + off
            labels[image, :15] = samples.labels[chosen]
    scores = rng.random((images, 40)).round(2)
    return Detections(boxes.astype(np.float32), scores.astype(np.float32), labels), samples


def of_pycocotools(found: Detections, samples: DetectionSamples) -> Any:
    """Its evaluation, of (T, 101, C) precisions."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def boxes(xyxy: np.ndarray) -> list[float]:
        return [*xyxy[:2].tolist(), *(xyxy[2:] - xyxy[:2]).tolist()]

    image = np.repeat(np.arange(len(samples)), np.diff(samples.offsets))
    truth = [
        {
            "id": number + 1,
            "image_id": int(image[number]),
            "category_id": int(samples.labels[number]),
            "bbox": boxes(box.astype(float)),
            "area": float(np.prod(box[2:] - box[:2])),
            "iscrowd": int(samples.ignore[number]),
        }
        for number, box in enumerate(samples.boxes)
    ]
    guesses = [
        {
            "image_id": row,
            "category_id": int(label),
            "bbox": boxes(box.astype(float)),
            "score": float(score),
        }
        for row in range(len(samples))
        for box, score, label in zip(
            found.boxes[row], found.scores[row], found.labels[row], strict=True
        )
        if label
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(samples))],
            "annotations": truth,
            "categories": [{"id": number} for number in range(1, CLASSES + 1)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(guesses), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_pycocotools_computes(seed: int) -> None:
    found, samples = drawn(seed)
    theirs = of_pycocotools(found, samples)
    ours = average_precision(found, samples, CLASSES, "coco")
    assert ours.value / 100 == pytest.approx(theirs.stats[0], abs=1e-9)
    assert ours.further["mAP50, %"] / 100 == pytest.approx(theirs.stats[1], abs=1e-9)
    assert ours.further["mAP75, %"] / 100 == pytest.approx(theirs.stats[2], abs=1e-9)
    by_class = theirs.eval["precision"][:, :, :, 0, 2].mean((0, 1))
    assert by_class[-1] == -1  # it has no object
    assert [100 * value for value in by_class[:-1]] == pytest.approx(ours.by_class[:-1], abs=1e-7)
    assert ours.by_class[-1] is None
    assert sum(ours.objects) == (~samples.ignore).sum()


def test_more_than_a_hundred_detections_of_a_class_count_as_in_pycocotools() -> None:
    found, samples = drawn(7, images=3)
    many = Detections(*(np.repeat(some, 12, 1) for some in vars(found).values()))
    scores = np.random.default_rng(0).random(many.scores.shape).astype(np.float32)
    many = Detections(many.boxes, scores, many.labels)
    theirs = of_pycocotools(many, samples)
    assert (many.labels == 1).sum(1).max() > matching.MOST
    ours = average_precision(many, samples, CLASSES, "coco50")
    assert ours.value / 100 == pytest.approx(theirs.stats[1], abs=1e-9)


def test_eleven_points_are_those_of_voc_2007() -> None:
    """Three objects: found first, missed by the second, found by the third and the fourth."""
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
    samples = DetectionSamples(
        Pixels(np.zeros((1, 60, 60, 3), np.uint8)),
        boxes,
        np.ones(3, np.int64),
        np.zeros(3, bool),
        np.array([0, 3]),
        np.array([[60, 60]]),
    )
    guesses = np.array([boxes[0], boxes[0] + 30, boxes[1], boxes[2]])[None]
    found = Detections(guesses, np.array([[0.9, 0.8, 0.7, 0.6]]), np.ones((1, 4), np.int64))
    # Recalls 1/3, 2/3, 1 at precisions 1, 2/3, 3/4: 4 of the 11 points at 1, 7 at 3/4.
    ours = average_precision(found, samples, 1, "voc07")
    assert ours.value == pytest.approx(100 * (4 + 7 * 0.75) / 11)
    assert ours.further["mAP50, %"] == pytest.approx(100 * (34 + 67 * 0.75) / 101)


def test_weights_of_images_are_images_that_are_there_as_often() -> None:
    found, samples = drawn(3)
    weights = np.random.default_rng(0).integers(0, 4, len(samples))
    # Equal scores of different images are in another order where images are repeated.
    scores = found.scores + np.random.default_rng(1).random(found.scores.shape) / 1000
    found = Detections(found.boxes, scores, found.labels)
    index = np.repeat(np.arange(len(samples)), weights)
    repeated = Detections(found.boxes[index], found.scores[index], found.labels[index])
    theirs = match(repeated, samples.take(index), CLASSES)
    expected = precisions(theirs, np.ones((1, len(index))), 101)
    got = precisions(match(found, samples, CLASSES), weights[None].astype(float), 101)
    # They differ where a precision is between the copies of one detection.
    assert got == pytest.approx(expected, abs=0.01, nan_ok=True)


def test_the_standard_error_is_the_spread_of_values_over_sets_of_images() -> None:
    values = [average_precision(*drawn(seed, 30), CLASSES, "coco50") for seed in range(25)]
    spread = np.std([one.value for one in values], ddof=1)
    said = np.mean([one.standard_error for one in values])
    assert 0.7 < said / spread < 1.4


def test_two_detectors_are_compared_on_the_same_resamples() -> None:
    found, samples = drawn(1, 40)
    worse = Detections(found.boxes + np.float32(1.5), found.scores, found.labels)
    one, other = (average_precision(some, samples, CLASSES, "coco") for some in (found, worse))
    paired = (one.resampled - other.resampled).std(ddof=1)
    assert len(one.resampled) == RESAMPLES
    assert paired < 0.6 * np.hypot(one.standard_error, other.standard_error)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_found_is_zero_and_everything_a_hundred(kind: str) -> None:
    found, samples = drawn(2)
    nothing = Detections(found.boxes, found.scores, np.zeros_like(found.labels))
    none = average_precision(nothing, samples, CLASSES, kind)
    assert (none.value, none.standard_error) == (0, 0)
    boxes = np.zeros((len(samples), 12, 4), np.float32)
    labels = np.zeros((len(samples), 12), np.int64)
    for image in range(len(samples)):
        objects = slice(*samples.offsets[image : image + 2])
        count = objects.stop - objects.start
        boxes[image, :count], labels[image, :count] = (
            samples.boxes[objects],
            samples.labels[objects],
        )
    every = Detections(boxes, np.ones(labels.shape), labels)
    assert average_precision(every, samples, CLASSES, kind).value == pytest.approx(100)


def test_images_without_an_object_to_find_are_an_error() -> None:
    found, samples = drawn(2)
    all_ignored = DetectionSamples(
        samples.pixels,
        samples.boxes,
        samples.labels,
        np.ones_like(samples.ignore),
        samples.offsets,
        samples.sizes,
    )
    with pytest.raises(UserError, match="the 20 images that are measured have no object to find"):
        average_precision(found, all_ignored, CLASSES, "coco")


def test_it_is_said_how_to_install_what_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match=r"pip install 'bam_search\[detection\]'"):
        matching.check_installed()
