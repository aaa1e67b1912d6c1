"""The recommendation of a study, and that within each overhead budget.

It is chosen among all that was tested: references, searched and random candidates, ablations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bam_search.analysis.believability import believability
from bam_search.analysis.final_metrics import ComparedTo, FinalMetrics
from bam_search.analysis.statistics import VERDICT_LEVEL
from bam_search.study.record import Record
from bam_search.tasks.metric import Metric

BUDGETS = (0.5, 1.0, 2.0, 5.0, 10.0, float("inf"))
"""Overheads in percent for which a placement is recommended."""
BUDGETS_OF_TIME = (5.0, 10.0, 20.0, 50.0, 100.0, float("inf"))
"""Those in time: attention has few operations, and takes long for them."""

RIVALS = 3
"""How many rivals of a recommended placement get further seeds with it."""
SURE = 0.99
"""The probability of the intervals by which a rival gets no further seeds.

It is higher than that of verdicts: to look after each seed, and to stop at the first verdict, would
make false ones likely.
"""

AXES = {"params_overhead": "parameters", "macs_conv_fc_overhead": "MACs (conv + fc)"}
"""The overheads that the figures and the answers are about."""
TIMES = {
    "latency_overhead": "time as trained",
    "deployed_latency_overhead": "time as deployed",
}
"""The overheads in time, which are measured of what is tested."""
TITLES = {**AXES, **TIMES}


@dataclass(frozen=True)
class Recommendation:
    """The cheapest tested placement that no other tested one is measurably better than.

    Placements that a cheaper one is expected to equal or beat are left out.

    Attributes:
        record: the placement; it may be "none".
        expected: its hierarchical mean.
        baseline: beside no attention; None if that was not tested, or is the recommended one.
        promising: where no attention is recommended, the placement of best expected value beside
            it: it is worth more seeds. Else None.
    """

    record: Record
    expected: float
    baseline: ComparedTo | None
    promising: ComparedTo | None


@dataclass(frozen=True)
class Answer:
    """The recommendation among the placements whose overhead on `axis` is at most `budget` %."""

    axis: str
    budget: float
    recommendation: Recommendation

    @property
    def record(self) -> Record:
        """The recommended record."""
        return self.recommendation.record

    @property
    def question(self) -> str:
        """'at most +2 % parameters'."""
        if self.budget == float("inf"):
            return f"at any {TITLES[self.axis]}"
        return f"at most +{self.budget:g} % {TITLES[self.axis]}"


def recommend(
    records: Sequence[Record], finals: FinalMetrics, by: Sequence[str]
) -> Recommendation | None:
    """The recommendation among the tested of these records; None if none was tested.

    `by` are the overheads to be cheap in, the first one first.
    """
    tested = [record for record in records if record.is_tested]
    if not tested:
        return None
    # The last one of the front is expected to be the best of all.
    *cheaper, best = expected_front(tested, finals, by)
    chosen = next((one for one in cheaper if not _is_beaten(one, tested, finals)), best)
    none = next((record for record in tested if not record.has_attention), None)
    if none is None:
        return Recommendation(chosen, finals.expected(chosen), None, None)
    if chosen is none:
        return Recommendation(none, finals.expected(none), None, _promising(none, tested, finals))
    (baseline,) = finals.compare(chosen, [none]) or (None,)
    return Recommendation(chosen, finals.expected(chosen), baseline, None)


def expected_front(
    tested: Sequence[Record], finals: FinalMetrics, by: Sequence[str]
) -> list[Record]:
    """The cheapest record first, each expected to be better than all before it."""

    def costs(record: Record) -> list[float]:
        return [record.final_cost(key) for key in by]

    def objective(record: Record) -> float:
        return record.metric.minimised(finals.expected(record))

    front: list[Record] = []
    for record in sorted(tested, key=lambda one: (costs(one), objective(one), one.number)):
        if not front or objective(record) < objective(front[-1]):
            front.append(record)
    return front


def _is_beaten(
    record: Record, others: Sequence[Record], finals: FinalMetrics, level: float = VERDICT_LEVEL
) -> bool:
    """Whether any of the others is measurably better, by intervals of probability `level`."""
    rest = [other for other in others if other is not record]
    return any(one.verdict == "worse" for one in finals.compare(record, rest, level))


def _promising(none: Record, tested: Sequence[Record], finals: FinalMetrics) -> ComparedTo | None:
    """The record of best expected value beside `none`; None if none is expected to be better."""
    others = [record for record in tested if record is not none]
    compared = [one for record in others for one in finals.compare(record, [none])]
    best = max(compared, key=lambda one: one.improvement.mean, default=None)
    return best if best and best.improvement.mean > 0 else None


def contenders(tested: Sequence[Record], finals: FinalMetrics, by: Sequence[str]) -> list[Record]:
    """The records on which the recommendation hangs: which more seeds should tell apart.

    These are, of the records that none is SURE to be better than, the one that would be recommended
    and the RIVALS of best expected value. Empty if that leaves one record.
    """
    left = [record for record in tested if not _is_beaten(record, tested, finals, SURE)]
    if len(left) < 2:
        return []
    first = expected_front(left, finals, by)[0]
    rivals = [record for record in left if record is not first]
    rivals.sort(key=lambda one: (one.metric.minimised(finals.expected(one)), one.number))
    return [first, *rivals[:RIVALS]]


def to_ablate(records: Sequence[Record], metric: Metric, by: Sequence[str]) -> Record | None:
    """The placement to train without each of its sites: the recommended one before any ablation.

    None if nothing was tested, or near chance, where nothing is recommended.
    """
    others = [record for record in records if not record.is_ablation]
    believable = believability(others, metric)
    if believable is not None and believable.near_chance:
        return None
    found = recommend(others, FinalMetrics.of(others), by)
    return None if found is None else found.record


def answers(
    records: Sequence[Record], finals: FinalMetrics, by: Sequence[str], axes: Sequence[str]
) -> tuple[Answer, ...]:
    """For each axis the recommendation within each budget, without budgets that change nothing."""
    return tuple(
        Answer(axis, budget, recommendation)
        for axis in axes
        for budget, recommendation in _by_budget(records, finals, axis, by)
    )


def _by_budget(
    records: Sequence[Record], finals: FinalMetrics, axis: str, by: Sequence[str]
) -> Iterator[tuple[float, Recommendation]]:
    """Each budget whose recommended record is another than that of the budget before."""
    last = None
    for budget in BUDGETS_OF_TIME if axis in TIMES else BUDGETS:
        within = [record for record in records if record.final_cost(axis) <= budget]
        found = recommend(within, finals, by)
        if found is not None and found.record is not last:
            yield budget, found
            last = found.record
