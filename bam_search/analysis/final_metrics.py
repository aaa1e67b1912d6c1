"""The final trainings of a study: their noise, each mean, and how placements compare.

A final training is one with a fresh seed, which is tested; finalists and ablations have them.
See `bam_search.analysis.statistics` for the model of what they measure.

Comparisons are by hierarchical means: placements are taken to be normal around a common mean, with
a spread that their own means show, so the best of many is drawn back by as much as it probably owes
to luck. References, which were named before anything was trained, have a spread of their own.
Source: Andrew Gelman, Jennifer Hill, Masanao Yajima, "Why we (usually) don't have to worry about
multiple comparisons", Journal of Research on Educational Effectiveness 5(2), 2012.

Means and differences are of the metric as it is measured; what is better depends on its direction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.analysis.linear_model import PAIRS, Regression, fit
from bam_search.analysis.pareto import dominated_in_draws
from bam_search.analysis.statistics import (
    VERDICT_LEVEL,
    Difference,
    Mean,
    Noise,
    TwoWay,
    central_interval,
    least_squares_means,
    mean,
    noise,
)
from bam_search.study.record import METRIC, Record

MIN_SEEDS = 3
"""With fewer common seeds there is no verdict."""


@dataclass(frozen=True)
class ComparedTo:
    """A record beside another.

    `difference` is that of their hierarchical means, the record's minus the other's. `smallest` is
    the difference that their number of seeds can tell apart; None if the noise is not known.
    `has_verdict` is false where nothing is to be told, whatever the difference is.
    """

    record: Record
    other: Record
    difference: Difference
    smallest: float | None = None
    has_verdict: bool = True

    @property
    def improvement(self) -> Difference:
        """How much better the record is: positive where it is better."""
        larger = self.record.larger_is_better
        return self.difference if larger else self.difference.turned

    @property
    def verdict(self) -> str:
        """How the record is: 'better', 'worse' or 'unclear'.

        Unclear is a difference whose interval has zero in it, or that has no interval, or is of
        fewer than MIN_SEEDS seeds.
        """
        low, high = self.improvement.low, self.improvement.high
        told = self.has_verdict and self.difference.n >= MIN_SEEDS
        if not told or low is None or high is None or low <= 0 <= high:
            return "unclear"
        return "better" if low > 0 else "worse"


@dataclass(frozen=True, eq=False)
class FinalMetrics:
    """The noise of all final trainings, and the mean of each tested record by its number.

    Attributes:
        noise: None if it is not known.
        means: least-squares means, with the spread of the record's own trainings.
        draws: (2 * PAIRS,) draws of each record's value to minimise from the posterior of the
            hierarchical means; empty if the noise is not known.
        verdicts: whether differences have verdicts.
    """

    noise: Noise | None
    means: Mapping[int, Mean]
    draws: Mapping[int, np.ndarray]
    verdicts: bool = True

    @classmethod
    def of(cls, records: Sequence[Record], verdicts: bool = True) -> "FinalMetrics":
        """The final trainings of a study's records."""
        tested = [record for record in records if record.is_tested]
        centres = least_squares_means(tested)
        means = {
            record.number: mean(record.test_metrics, record.metric.minimised(centre))
            for record, centre in zip(tested, centres, strict=True)
        }
        spread = noise(tested)
        return cls(spread, means, _hierarchical(tested) if spread else {}, verdicts)

    def mean(self, record: Record) -> Mean | None:
        """The mean of a record's final trainings; None if it had none."""
        return self.means.get(record.number)

    def expected(self, record: Record) -> float:
        """The hierarchical mean of a tested record; its plain one if the noise is not known."""
        draws = self.draws.get(record.number)
        if draws is None:
            return self.means[record.number].mean
        return record.metric.minimised(float(draws.mean()))

    def value(self, record: Record) -> float:
        """The mean of a complete record's final trainings, or its validation without any."""
        test = self.mean(record)
        return record.value(METRIC) if test is None else test.mean

    def objective(self, record: Record) -> float:
        """The same as a value to minimise."""
        return record.metric.minimised(self.value(record))

    def compare(
        self, record: Record, others: Iterable[Record], level: float = VERDICT_LEVEL
    ) -> tuple[ComparedTo, ...]:
        """The record beside each of `others` with which it has seeds in common.

        `level` is the probability of the intervals.
        """
        compared = []
        for other in others:
            n = len(set(record.test_seeds) & set(other.test_seeds))
            if n:
                compared.append(self._compared(record, other, n, level))
        return tuple(compared)

    def _compared(self, record: Record, other: Record, n: int, level: float) -> ComparedTo:
        """The record beside another; they have `n` seeds in common."""
        if self.noise is None:
            centre = self.means[record.number].mean - self.means[other.number].mean
            return ComparedTo(record, other, Difference(centre, None, None, n), None, self.verdicts)
        gaps = self.draws[record.number] - self.draws[other.number]
        minimised = Difference(float(gaps.mean()), *central_interval(gaps, level), n)
        difference = minimised.turned if record.larger_is_better else minimised
        smallest = self.noise.smallest_difference(n)
        return ComparedTo(record, other, difference, smallest, self.verdicts)

    def on_front(self, records: Sequence[Record], costs: Sequence[str]) -> list[float]:
        """The probability of each of these tested records that it is on their front.

        The front is of the hierarchical means and `costs`. Where the noise is not known the
        probabilities are 0 or 1, from the plain means.
        """
        known = [[record.final_cost(key) for key in costs] for record in records]
        if self.noise is None:
            objectives = [[r.metric.minimised(self.means[r.number].mean)] for r in records]
            draws = np.array(objectives).T
        else:
            draws = np.stack([self.draws[record.number] for record in records], axis=1)
        beaten = dominated_in_draws(draws, np.array(known).reshape(len(records), -1))
        return [float(share) for share in 1 - beaten.mean(0)]


def _hierarchical(records: Sequence[Record]) -> Mapping[int, np.ndarray]:
    """Draws of each record's value to minimise, at the mean of all seeds' effects."""
    layout = TwoWay.of(records)
    named = np.array([record.is_reference for record in records])
    each = np.eye(len(records))
    groups = tuple(each[:, members] for members in (~named, named) if members.any())
    # The common mean is in the seeds' levels.
    of_rows = tuple(group[layout.placement] for group in groups)
    posterior = fit(Regression(layout.values, layout.of_seeds, of_rows))
    assert posterior is not None  # the noise is known
    levels, deviations = posterior.sample(PAIRS, np.random.default_rng(0))
    values = levels.mean(1, keepdims=True) + deviations @ np.concatenate(groups, axis=1).T
    return {record.number: values[:, i] for i, record in enumerate(records)}
