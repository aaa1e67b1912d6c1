"""Mean average precision, in percent, with a bootstrap standard error over images.

Detections are matched once; resamples of the images only weigh the matches. Samples of one number
have the same resamples, so that the values of two detectors are paired: the standard error of their
difference is the standard deviation of the differences of `resampled`.

COCO: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. VOC 2007: M.
Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.bootstrap import resamples
from bam_search.tasks.detection.matching import OVERLAPS, Detections, Matches, match
from bam_search.tasks.detection.samples import DetectionSamples
from bam_search.tasks.task import Measured

AT_A_TIME = 2_000_000
"""Weights of detections that are in memory at a time."""


@dataclass(frozen=True)
class Kind:
    """A mean average precision: its name, and where a precision-recall curve is looked at.

    The mean is over the first `overlaps` of OVERLAPS, over the classes, and over `recalls` evenly
    spaced recalls from 0 to 1.
    """

    name: str
    overlaps: int
    recalls: int


KINDS: Mapping[str, Kind] = {
    "coco": Kind("mAP", len(OVERLAPS), 101),
    "coco50": Kind("mAP50", 1, 101),
    "voc07": Kind("mAP50, 11 points", 1, 11),
}
"""COCO's two usual ones, and that of VOC 2007, with COCO's way of matching."""


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """What was found of the objects in some images, in percent.

    `resampled` is the value, were the images others: RESAMPLES of them, or nearly that. `further`
    are other means, by their titles. `by_class` has None for a class without objects, of which
    there are `objects`.
    """

    value: float
    resampled: np.ndarray
    further: Mapping[str, float]
    by_class: tuple[float | None, ...]
    objects: tuple[int, ...]

    @property
    def standard_error(self) -> float:
        """That of the value: how far another such set of images would change it."""
        return float(self.resampled.std(ddof=1))

    def measured(self, loss: float) -> Measured:
        """As a task says it, with the mean loss."""
        return Measured(
            self.value, loss, self.standard_error, self.further, self.by_class, self.objects
        )


def average_precision(
    found: Detections, samples: DetectionSamples, classes: int, kind: str
) -> AveragePrecision:
    """How much of the objects in these samples was found, as a `kind` of KINDS has it.

    Raises UserError if there is no object to find, or faster-coco-eval is not installed.
    """
    if samples.ignore.all():
        raise UserError(
            f"the {len(samples)} images that are measured have no object to find",
            "take more of them with data.validation, or other data",
        )
    wanted = KINDS[kind]
    matches = match(found, samples, classes)
    once = np.ones((1, len(samples)))
    values = precisions(matches, once, wanted.recalls)[0]
    weights = _resamples(matches.objects.sum(0))
    resampled = precisions(matches, weights, wanted.recalls)[:, : wanted.overlaps]
    of_class = values[: wanted.overlaps].mean(0)
    return AveragePrecision(
        _mean(values[: wanted.overlaps]),
        100 * np.nanmean(resampled, axis=(1, 2)),
        dict(_further(matches, wanted)),
        tuple(None if np.isnan(value) else 100 * float(value) for value in of_class),
        tuple(matches.objects.sum(1).tolist()),
    )


def _resamples(objects: np.ndarray) -> np.ndarray:
    """(B, n): how often each of n images is drawn, n times with replacement.

    `objects` are how many each has; a resample without any has no value and is left out.
    """
    drawn = resamples(len(objects))
    return drawn[drawn @ objects > 0].astype(float)


def _further(matches: Matches, wanted: Kind) -> Iterator[tuple[str, float]]:
    """Yield COCO's means that are not the value."""
    values = precisions(matches, np.ones((1, matches.objects.shape[1])), 101)[0]
    means = {"mAP": values, "mAP50": values[:1], "mAP75": values[5:6]}
    for name, some in means.items():
        if name != wanted.name:
            yield f"{name}, %", _mean(some)


def _mean(values: np.ndarray) -> float:
    return 100 * float(np.nanmean(values))


def precisions(matches: Matches, weights: np.ndarray, recalls: int) -> np.ndarray:
    """(B, T, C): the average precision at each of T overlaps, of each of C classes.

    `weights` is (B, N): how often each image counts. A class without objects has nan.
    """
    classes = len(matches.objects)
    values = np.full((len(weights), len(matches.hit), classes), np.nan)
    for number in range(classes):
        rows = np.flatnonzero(matches.label == number + 1)
        order = rows[np.argsort(-matches.score[rows], kind="stable")]
        step = max(1, AT_A_TIME // max(1, len(order)))
        for first in range(0, len(weights), step):
            some = weights[first : first + step]
            objects = some @ matches.objects[number]
            counts = some[:, matches.image[order]]
            values[first : first + step, :, number] = np.stack(
                [
                    _class_precision(counts, objects, hit[order], ignored[order], recalls)
                    for hit, ignored in zip(matches.hit, matches.ignored, strict=True)
                ],
                axis=1,
            )
    return values


def _class_precision(
    counts: np.ndarray, objects: np.ndarray, hit: np.ndarray, ignored: np.ndarray, recalls: int
) -> np.ndarray:
    """(B,): the mean over evenly spaced recalls of the best precision at that recall or more.

    `counts` is (B, D): how often each detection counts, the surest first; `hit` and `ignored` are
    (D,), and `objects`, (B,), is how many there are to find. Without any it is nan.
    """
    last = np.flatnonzero(hit).max(initial=-1) + 1  # what is less sure changes nothing
    counts, hit, ignored = counts[:, :last], hit[:last], ignored[:last]
    every = np.cumsum(np.where(ignored, 0, counts), 1)[:, hit]
    hits = np.cumsum(counts[:, hit], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.nan_to_num(hits / objects[:, None])
        precision = np.nan_to_num(hits / every)
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    # A recall is first reached at one of the hits: each hit stands for those it is the first at.
    reached = np.searchsorted(np.linspace(0, 1, recalls), recall, side="right")
    first = np.diff(reached, axis=1, prepend=0)
    return np.where(objects > 0, (first * best).sum(1) / recalls, np.nan)
