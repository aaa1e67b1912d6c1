"""Which detections find which objects, at each overlap: by faster-coco-eval, the extra `detection`.

Its results are those of COCO's reference implementation, at a fraction of the time. torchmetrics,
which can use it too, gives neither the matches nor, therefore, a standard error over images.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.detection.samples import DetectionSamples, pictures_of

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""The intersections over unions at which COCO matches: 0.5, 0.55, ..., 0.95."""
MOST = 100
"""Detections of a class that count in an image: those of the highest scores."""
AREAS = (0.0, 1e10)
"""Square pixels: objects of any size."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in N pictures, at most K boxes in each.

    Args:
        boxes: (N, K, 4): x1, y1, x2, y2 in pixels of the samples' `x`.
        scores: (N, K), of any range; the higher, the surer.
        labels: (N, K) integers: the class, from 1; 0 is no detection.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Matches:
    """D detections in N pictures, and at which of T overlaps each one is right.

    Args:
        image: (D,) the number of the picture.
        label: (D,) the class, from 1.
        score: (D,).
        hit: (T, D) bool: it finds an object.
        ignored: (T, D) bool: it lies on one that is neither learned nor missed.
        objects: (C, N): how many objects of each class each picture has to find.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def check_installed() -> None:
    """Raise UserError if what matches is not installed."""
    _faster_coco_eval()


def match(
    found: Detections, samples: DetectionSamples, classes: int, overlaps: np.ndarray = OVERLAPS
) -> Matches:
    """The matches of detections in these samples, at each of (T,) overlaps.

    As COCO does, each object is found by one detection at most, the surest one first; a detection
    on an object to ignore counts for nothing, and there the overlap is its share that lies in it.
    Raises UserError if faster-coco-eval is not installed.
    """
    rows, columns = _counted(found)
    labels = found.labels[rows, columns]
    boxes = found.boxes[rows, columns].astype(np.float64)
    scores = found.scores[rows, columns].astype(np.float64)
    image = pictures_of(samples.offsets)
    truth = _dataset(len(samples), classes, image, samples.boxes, samples.labels)
    for one, ignore in zip(truth["annotations"], samples.ignore.tolist(), strict=True):
        one["iscrowd"] = int(ignore)
    guess = _dataset(len(samples), classes, rows, boxes, labels)
    for one, score in zip(guess["annotations"], scores.tolist(), strict=True):
        one["score"] = score
    hit, ignored = _flags(truth, guess, samples.ignore, overlaps)
    wanted = ~samples.ignore
    objects = np.zeros((classes, len(samples)), np.int64)
    np.add.at(objects, (samples.labels[wanted] - 1, image[wanted]), 1)
    return Matches(rows, labels, scores, hit, ignored, objects)


def _counted(found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the detections that count, in the order of the pictures.

    In a picture these are the MOST surest ones of a class.
    """
    rows, columns = np.nonzero(found.labels > 0)
    scores, labels = found.scores[rows, columns], found.labels[rows, columns]
    order = np.lexsort((-scores, labels, rows))
    group = np.stack([rows, labels])[:, order]
    begins = np.flatnonzero(np.diff(group, axis=1, prepend=-1).any(0))
    lengths = np.diff(np.append(begins, len(order)))
    rank = np.arange(len(order)) - np.repeat(begins, lengths)
    kept = np.sort(order[rank < MOST])
    return rows[kept], columns[kept]


def _dataset(
    images: int, classes: int, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """COCO's form of boxes, (M, 4), in pictures `image`, (M,); their ids are 1 to M."""
    sides = boxes[:, 2:] - boxes[:, :2]
    columns = zip(
        image.tolist(),
        labels.tolist(),
        np.concatenate([boxes[:, :2], sides], 1).tolist(),
        sides.prod(1).tolist(),
        strict=True,
    )
    return {
        "info": {},
        "images": [{"id": number} for number in range(images)],
        "categories": [{"id": label, "name": str(label)} for label in range(1, classes + 1)],
        "annotations": [
            {"id": number, "image_id": i, "category_id": label, "bbox": box, "area": area}
            for number, (i, label, box, area) in enumerate(columns, 1)
        ],
    }


def _flags(
    truth: dict[str, Any], guess: dict[str, Any], ignore: np.ndarray, overlaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(T, D) bool each: whether a detection hits, and whether it lies on an object to ignore."""
    library, compiled = _faster_coco_eval()
    evaluator = library.COCOeval_faster(library.COCO(truth), library.COCO(guess), "bbox")
    settings = evaluator.params
    settings.areaRng, settings.areaRngLbl, settings.maxDets = [AREAS], ["all"], [MOST]
    settings.iouThrs = overlaps[:1]
    evaluator.evaluate()
    pairs = [[evaluator.ious[i, label] for label in settings.catIds] for i in settings.imgIds]
    hit = np.zeros((len(overlaps), len(guess["annotations"])), bool)
    ignored = np.zeros_like(hit)
    for row, overlap in enumerate(overlaps):
        # The matches that it tells are those of the first overlap, so each one is asked for.
        one = copy.copy(settings)
        one.iouThrs = np.array([overlap])
        sets = (evaluator.gt_dataset, evaluator.dt_dataset, settings.imgIds, settings.catIds)
        matched = compiled.COCOevalEvaluateAccumulate(one, pairs, *sets, True)["matched"]
        texts = "_".join(matched).split("_") if matched else []
        detection, found = np.array(texts, np.int64).reshape(-1, 2).T - 1
        hit[row, detection] = ~ignore[found]
        ignored[row, detection] = ignore[found]
    return hit, ignored


def _faster_coco_eval() -> tuple[Any, Any]:
    try:
        import faster_coco_eval
        from faster_coco_eval import faster_eval_api_cpp
    except ImportError:
        raise UserError(
            "mean average precision needs faster-coco-eval, which is not installed",
            "pip install 'bam_search[detection]', or pip install faster-coco-eval",
        ) from None
    return faster_coco_eval, faster_eval_api_cpp
