"""The study at a glance: everything that was tested, on one scale.

Values are hierarchical means, the same that the recommendation is chosen by and that differences
are of, so that no two numbers of an overview can contradict each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bam_search.analysis.final_metrics import ComparedTo, FinalMetrics
from bam_search.analysis.recommendation import TITLES, expected_front
from bam_search.study.record import Record


@dataclass(frozen=True)
class Standing:
    """A tested record: the value to expect of it, and its difference to the baseline.

    `beside` is None of the baseline itself, and where the two have no seed in common.
    """

    record: Record
    expected: float
    beside: ComparedTo | None

    @property
    def bar(self) -> tuple[float, float] | None:
        """The interval of the difference, around the value of the baseline; None without one."""
        difference = self.beside.difference if self.beside else None
        if difference is None or difference.low is None or difference.high is None:
            return None
        zero = self.expected - difference.mean
        return zero + difference.low, zero + difference.high


@dataclass(frozen=True)
class Overview:
    """All that was tested.

    Attributes:
        standings: the cheapest first.
        baseline: no attention, or the first tested reference where that was not tested.
        recommended: the recommended record; None if nothing is.
        best: the record of best expected value.
        best_beside: the best one beside the recommended one, unless they are the same.
        random_beside: the recommended one beside the best of the random search.
        axes: the two overheads that are drawn.
        fronts: by each overhead that is known of all, the Pareto front of expected value and it.
    """

    standings: tuple[Standing, ...]
    baseline: Record
    recommended: Record | None
    best: Record
    best_beside: ComparedTo | None
    random_beside: ComparedTo | None
    axes: tuple[str, ...]
    fronts: Mapping[str, tuple[Record, ...]]

    def standing(self, record: Record) -> Standing:
        """The standing of a tested record."""
        return next(one for one in self.standings if one.record is record)

    def compared_to(self, baseline: Record, finals: FinalMetrics) -> "Overview":
        """The same with differences to another tested record."""
        records = [one.record for one in self.standings]
        return replace(self, baseline=baseline, standings=_standings(records, baseline, finals))


def overview(
    records: Sequence[Record],
    finals: FinalMetrics,
    recommended: Record | None,
    by: Sequence[str],
    axes: Sequence[str],
) -> Overview | None:
    """The overview of a study's records; None if nothing was tested.

    `by` are the overheads to be cheap in, the first one first. Of the overheads `axes` the last two
    are drawn that are known of all.
    """
    tested = [record for record in records if record.is_tested]
    if not tested:
        return None
    baseline, best = _baseline(tested), _best(tested, finals)
    random = [record for record in tested if record.is_random]
    best_random = _best(random, finals) if random else None
    tested.sort(key=lambda one: ([one.final_cost(key) for key in by], one.number))
    known = [axis for axis in TITLES if _is_known(axis, tested)]
    return Overview(
        standings=_standings(tested, baseline, finals),
        baseline=baseline,
        recommended=recommended,
        best=best,
        best_beside=_beside(best, recommended, finals),
        random_beside=_beside(recommended, best_random, finals),
        axes=tuple(axis for axis in axes if axis in known)[-2:],
        fronts={axis: tuple(expected_front(tested, finals, (axis,))) for axis in known},
    )


def _standings(
    records: Sequence[Record], baseline: Record, finals: FinalMetrics
) -> tuple[Standing, ...]:
    return tuple(
        Standing(record, finals.expected(record), _beside(record, baseline, finals))
        for record in records
    )


def _is_known(axis: str, tested: Sequence[Record]) -> bool:
    return all(math.isfinite(record.final_cost(axis)) for record in tested)


def _baseline(tested: Sequence[Record]) -> Record:
    without = [record for record in tested if not record.has_attention]
    references = [record for record in tested if record.is_reference]
    return next(iter([*without, *references, *tested]))


def _best(tested: Sequence[Record], finals: FinalMetrics) -> Record:
    return min(tested, key=lambda one: (one.metric.minimised(finals.expected(one)), one.number))


def _beside(record: Record | None, other: Record | None, finals: FinalMetrics) -> ComparedTo | None:
    if record is None or other is None or record is other:
        return None
    return next(iter(finals.compare(record, [other])), None)
