"""The answers of a study: the best placement within each overhead budget."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bam_search.analysis.final_metrics import ComparedTo, FinalMetrics
from bam_search.analysis.statistics import Mean
from bam_search.study.record import Record

BUDGETS = (0.5, 1.0, 2.0, 5.0, 10.0, float("inf"))
"""Overheads in percent for which the best placement is named."""

AXES = {"params_overhead": "parameters", "macs_conv_fc_overhead": "MACs (conv + fc)"}
"""The overheads that the figures and the answers are about."""

Comparisons = Mapping[int, Sequence[ComparedTo]]
"""Each finalist beside the references and the random candidates, by the finalist's number."""


@dataclass(frozen=True)
class Answer:
    """The record of best metric among those whose overhead on `axis` is at most `budget` percent.

    `test` is its mean over final trainings; None if it was not tested. `comparison` sets it beside
    the best other reference within the budget; None where one of the two was not tested.
    """

    axis: str
    budget: float
    record: Record
    test: Mean | None
    comparison: ComparedTo | None

    @property
    def question(self) -> str:
        """'at most +2 % parameters'."""
        if self.budget == float("inf"):
            return f"at any {AXES[self.axis]}"
        return f"at most +{self.budget:g} % {AXES[self.axis]}"


def answers(
    records: Sequence[Record], finals: FinalMetrics, comparisons: Comparisons
) -> tuple[Answer, ...]:
    """For each axis the best record within each budget, a budget that changes nothing left out.

    Best is the best mean of final trainings where there are finalists, else the best validation.
    """
    complete = [record for record in records if record.complete]
    contestants = [record for record in complete if record.is_finalist] or complete
    found: list[Answer] = []
    for axis in AXES:
        for budget, best in _best_by_budget(contestants, finals, axis):
            rival = _rival(comparisons.get(best.number, ()), finals, axis, budget)
            found.append(Answer(axis, budget, best, finals.mean(best), rival))
    return tuple(found)


def _best_by_budget(
    records: Sequence[Record], finals: FinalMetrics, axis: str
) -> Iterable[tuple[float, Record]]:
    """Each budget that has another best record than the one before, with this record."""
    last = None
    for budget in BUDGETS:
        best = _best_within(records, finals, axis, budget)
        if best is not None and best is not last:
            yield budget, best
        last = best


def _best_within(
    records: Sequence[Record], finals: FinalMetrics, axis: str, budget: float
) -> Record | None:
    """The best record with at most this overhead; of equal ones the cheapest."""

    def value_cost_number(record: Record) -> tuple[float, float, int]:
        return finals.objective(record), record.objective(axis), record.number

    within = [record for record in records if record.objective(axis) <= budget]
    return min(within, key=value_cost_number, default=None)


def _rival(
    compared: Sequence[ComparedTo], finals: FinalMetrics, axis: str, budget: float
) -> ComparedTo | None:
    """The comparison with the best other reference within the budget; None without a tested one."""

    def value_number(one: ComparedTo) -> tuple[float, int]:
        return finals.objective(one.other), one.other.number

    references = [one for one in compared if one.other.is_reference]
    within = [one for one in references if one.other.objective(axis) <= budget]
    return min(within, key=value_number, default=None)
