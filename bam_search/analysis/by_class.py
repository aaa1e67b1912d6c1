"""Class by class: what a placement gains and loses against no attention, on the test samples.

The differences of one seed are paired: both placements were trained with it. A class's noise is
taken to be that of a share of its samples, times a factor which is the same for all classes and
comes from all of them, as three seeds say little of one class. Where the metric is no share, the
noise is of one size. The intervals are made for all classes together (Bonferroni), so that one may
look at the largest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bam_search.analysis.final_metrics import ComparedTo
from bam_search.analysis.recommendation import Recommendation
from bam_search.analysis.statistics import VERDICT_LEVEL, Difference
from bam_search.study.record import Record


@dataclass(frozen=True)
class ClassDifference:
    """One class: the means of both placements on its samples, and their difference.

    `number` is its place among the classes. `verdict` is 'better', 'worse' or 'unclear', of the
    placement beside no attention.
    """

    number: int
    samples: int
    mean: float
    mean_without: float
    difference: Difference
    verdict: str


@dataclass(frozen=True)
class ByClass:
    """A placement beside no attention, class by class, the largest gain first."""

    record: Record
    without: Record
    classes: tuple[ClassDifference, ...]

    @property
    def told(self) -> int:
        """How many classes are told apart."""
        return sum(one.verdict != "unclear" for one in self.classes)

    @property
    def seeds(self) -> int:
        """How many seeds both placements had."""
        return self.classes[0].difference.n


def recommended_by_class(
    found: Recommendation | None, records: Sequence[Record], has_verdicts: bool
) -> ByClass | None:
    """The recommended placement, or the most promising one, beside no attention.

    None where there is no such placement, or where nothing is known of its classes.
    """
    if found is None:
        return None
    record = found.record if found.promising is None else found.promising.record
    tested = [one for one in records if one.is_tested and not one.has_attention]
    if not record.has_attention or not tested:
        return None
    return by_class(record, tested[0], has_verdicts)


def by_class(record: Record, without: Record, has_verdict: bool) -> ByClass | None:
    """`record` beside `without`; None where the classes of common seeds are not known."""
    seeds = [seed for seed in record.test_seeds if seed in without.test_seeds]
    if not (seeds and record.test_by_class and without.test_by_class):
        return None
    ours, theirs = _values(record, seeds), _values(without, seeds)
    samples = np.array(record.test_class_samples)
    known = np.flatnonzero(samples > 0)
    if not len(known):
        return None
    differences = _differences(record, ours[:, known], theirs[:, known], samples[known])
    rows = [
        ClassDifference(
            int(number),
            int(samples[number]),
            float(ours[:, number].mean()),
            float(theirs[:, number].mean()),
            difference,
            ComparedTo(record, without, difference, None, has_verdict).verdict,
        )
        for number, difference in zip(known, differences, strict=True)
    ]
    rows.sort(key=lambda row: (record.metric.minimised(row.difference.mean), row.number))
    return ByClass(record, without, tuple(rows))


def _values(record: Record, seeds: Sequence[int]) -> np.ndarray:
    """(seeds, classes): the metric, not a number for a class without samples."""
    by_seed = dict(zip(record.test_seeds, record.test_by_class, strict=True))
    return np.array([by_seed[seed] for seed in seeds], dtype=float)


def _differences(
    record: Record, ours: np.ndarray, theirs: np.ndarray, samples: np.ndarray
) -> list[Difference]:
    """Each class's difference; both values are (seeds, classes)."""
    gaps = ours - theirs
    n, classes = gaps.shape
    means = gaps.mean(0)
    degrees = classes * (n - 1)
    if not degrees:
        return [Difference(float(mean), None, None, n) for mean in means]
    scale = _scale(record, (ours.mean(0) + theirs.mean(0)) / 2, samples)
    factor = np.sqrt(np.square((gaps - means) / scale).sum() / degrees)
    quantile = stats.t.ppf(1 - (1 - VERDICT_LEVEL) / (2 * classes), degrees)
    halves = quantile * factor * scale / np.sqrt(n)
    return [
        Difference(float(mean), float(mean - half), float(mean + half), n)
        for mean, half in zip(means, halves, strict=True)
    ]


def _scale(record: Record, means: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(classes,): the noise of each class, up to a factor: of a share of so many samples."""
    if record.unit != "%":
        return np.ones(len(means))
    shares = (samples * means / 100 + 0.5) / (samples + 1)  # never 0 or 1
    return np.sqrt(shares * (1 - shares) / samples)
