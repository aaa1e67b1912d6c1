"""The findings of a study: all that is known about it, computed once from its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bam_search.analysis.answers import Answer, Comparisons, answers
from bam_search.analysis.baseline import (
    HypervolumeCurve,
    SearchVsRandom,
    progress,
    search_vs_random,
)
from bam_search.analysis.effects import SiteEffects, site_effects
from bam_search.analysis.final_metrics import ComparedTo, FinalMetrics
from bam_search.analysis.pareto import pareto_front
from bam_search.analysis.pruning import Stopping, stopping
from bam_search.analysis.statistics import Mean, membership
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import METRIC, Record, best_of, costs_of, main_records
from bam_search.tasks.metric import Metric


class StudyContext(Protocol):
    """What findings depend on beside the records.

    These are the metric, the objectives, what the search could choose among, and how many searched
    candidates were drawn at random.
    """

    @property
    def metric(self) -> Metric: ...
    @property
    def objectives(self) -> tuple[str, ...]: ...
    @property
    def choice_space(self) -> ChoiceSpace: ...
    @property
    def startup(self) -> int: ...


@dataclass(frozen=True)
class Finalist:
    """A finalist, and how surely it is on the front.

    test: the mean of its final trainings.
    p_on_front: the probability that it is on the front of this mean and costs.
    validation_gain, test_gain: how much better than the first reference it is, in the search and in
        the final trainings. The search chooses its front partly for good luck, and luck does
        not last. None where it cannot be compared.
    """

    record: Record
    test: Mean
    p_on_front: float
    validation_gain: float | None
    test_gain: float | None


@dataclass(frozen=True)
class Outcomes:
    """How many candidates there are, and how many of all were complete, stopped or failed.

    `main` are the references and searched ones, `others` the random baseline and the ablations.
    """

    main: int
    others: int
    complete: int
    stopped: int
    failed: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Outcomes":
        """The counts of these records."""
        main = sum(record.is_main for record in records)
        return cls(
            main=main,
            others=len(records) - main,
            complete=sum(record.complete for record in records),
            stopped=sum(bool(record.stopped) for record in records),
            failed=sum(bool(record.failure) for record in records),
        )


@dataclass(frozen=True)
class Findings:
    """All that is known about a study.

    Attributes:
        metric: what the values measure.
        records: the study's records, of every kind.
        outcomes: how many there are of which kind, and what came of them.
        front: the Pareto front of the references and searched records, cheapest first.
        finals: the noise of final trainings and their means.
        finalists: the cheapest first.
        comparisons: each finalist beside the references and the random candidates.
        recommended: the searched finalist of best validation, chosen before any test.
        ablations: the recommended candidate without each of its sites, beside itself: worse
            where the site helps.
        answers: the best record within each overhead budget.
        effects: where attention helps; None if there are too few records.
        stopping: what the rungs did; None if there are none.
        progress: the hypervolume by epochs spent, of the search and of the random baseline.
        search_vs_random: None if there was no random baseline.
    """

    metric: Metric
    records: tuple[Record, ...]
    outcomes: Outcomes
    front: tuple[Record, ...]
    finals: FinalMetrics
    finalists: tuple[Finalist, ...]
    comparisons: Comparisons
    recommended: Record | None
    ablations: tuple[ComparedTo, ...]
    answers: tuple[Answer, ...]
    effects: SiteEffects | None
    stopping: Stopping | None
    progress: Mapping[str, HypervolumeCurve]
    search_vs_random: SearchVsRandom | None

    @classmethod
    def of(cls, records: Sequence[Record], context: StudyContext) -> "Findings":
        """The findings of a study's records."""
        main = main_records(records)
        front = pareto_front(main, context.objectives)
        finals = FinalMetrics.of(records)
        comparisons = _comparisons(records, finals)
        best = _recommended(records)
        lines = progress(records, context.objectives, context.startup)
        return cls(
            metric=context.metric,
            records=tuple(records),
            outcomes=Outcomes.of(records),
            front=tuple(front),
            finals=finals,
            finalists=_finalists(records, costs_of(context.objectives), finals, comparisons),
            comparisons=comparisons,
            recommended=best,
            ablations=_ablations(records, best, finals),
            answers=answers(records, finals, comparisons),
            effects=site_effects(records, context.choice_space),
            stopping=stopping(main, front),
            progress=lines,
            search_vs_random=search_vs_random(records, context.startup, lines),
        )

    @property
    def tested_references(self) -> list[Record]:
        """The references among the finalists, in the study's order."""
        return [record for record in self.records if record.is_reference and record.is_finalist]

    def compared_to_references(self, record: Record) -> list[ComparedTo]:
        """The record beside each other tested reference; empty if it is no finalist."""
        compared = self.comparisons.get(record.number, ())
        return [one for one in compared if one.other.is_reference]

    def comparison(self, record: Record, other: Record) -> ComparedTo | None:
        """The record beside this reference or random candidate; None where it cannot be."""
        compared = self.comparisons.get(record.number, ())
        return next((one for one in compared if one.other is other), None)


def _recommended(records: Sequence[Record]) -> Record | None:
    """The searched finalist of best validation: chosen before any test."""
    return best_of(record for record in records if record.is_searched and record.is_finalist)


def _comparisons(records: Sequence[Record], finals: FinalMetrics) -> Comparisons:
    rivals = [record for record in records if record.is_reference or record.is_random]
    comparisons = {}
    for record in records:
        if record.is_finalist:
            others = [rival for rival in rivals if rival is not record]
            comparisons[record.number] = finals.compare(record, others)
    return comparisons


def _ablations(
    records: Sequence[Record], best: Record | None, finals: FinalMetrics
) -> tuple[ComparedTo, ...]:
    """The ablations of `best`, and not of a former one, before an extension of the study."""
    compared: list[ComparedTo] = []
    for record in records:
        if best is not None and record.ablation_of == best.number:
            compared += finals.compare(record, [best])
    return tuple(compared)


def _finalists(
    records: Sequence[Record], costs: Sequence[str], finals: FinalMetrics, comparisons: Comparisons
) -> tuple[Finalist, ...]:
    """The finalists, the cheapest first."""
    tested = [record for record in records if record.is_finalist]
    if not tested:
        return ()
    first = next((record for record in tested if record.is_reference), None)
    probabilities = membership(tested, costs, finals.noise)
    found = [
        _finalist(record, p, first, finals, comparisons[record.number])
        for record, p in zip(tested, probabilities, strict=True)
    ]
    return tuple(sorted(found, key=lambda finalist: _order(finalist, costs, finals)))


def _order(
    finalist: Finalist, costs: Sequence[str], finals: FinalMetrics
) -> tuple[list[float], float]:
    """The costs, then the mean to minimise."""
    record = finalist.record
    return [record.objective(key) for key in costs], finals.objective(record)


def _finalist(
    record: Record,
    p_on_front: float,
    first: Record | None,
    finals: FinalMetrics,
    compared: Sequence[ComparedTo],
) -> Finalist:
    """The finalist, with its gains over the `first` tested reference."""
    test = finals.means[record.number]
    if first is None or record is first:
        return Finalist(record, test, p_on_front, None, None)
    validation_gain = first.objective(METRIC) - record.objective(METRIC)
    gains = [one.improvement.mean for one in compared if one.other is first]
    test_gain = gains[0] if gains else None
    return Finalist(record, test, p_on_front, validation_gain, test_gain)
