"""The findings of a study: all that is known about it, computed once from its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bam_search.analysis.believability import Believability, believability
from bam_search.analysis.by_class import ByClass, recommended_by_class
from bam_search.analysis.effects import Effect, SiteEffects, SiteModel
from bam_search.analysis.expected import Added, Expected, expected_best
from bam_search.analysis.final_metrics import ComparedTo, FinalMetrics
from bam_search.analysis.latency import Prediction, predictions
from bam_search.analysis.overview import Overview, overview
from bam_search.analysis.pareto import nondominated, pareto_front
from bam_search.analysis.pruning import Stopping, stopping
from bam_search.analysis.recommendation import (
    AXES,
    TIMES,
    Answer,
    Recommendation,
    answers,
    recommend,
    to_ablate,
)
from bam_search.analysis.statistics import Mean, rank_correlation
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import Record, costs_of, main_records
from bam_search.tasks.metric import Metric


class StudyContext(Protocol):
    """What findings depend on beside the records.

    These are the metric, the objectives, what the search could choose among and what that adds
    (empty if it is not known), and the overheads that a recommended placement is cheap in.
    """

    @property
    def metric(self) -> Metric: ...
    @property
    def objectives(self) -> tuple[str, ...]: ...
    @property
    def choice_space(self) -> ChoiceSpace: ...
    @property
    def added(self) -> Added: ...
    @property
    def recommend_by(self) -> tuple[str, ...]: ...


Comparisons = Mapping[int, Sequence[ComparedTo]]
"""Each tested record beside the references and the random candidates, by its number."""


@dataclass(frozen=True)
class Finalist:
    """A finalist, and how surely it is on the front.

    test: the mean of its final trainings.
    p_on_front: the probability that it is on the front of hierarchical means and costs.
    is_cheapest: whether it costs less than any other finalist, and so is on the front for sure.
    """

    record: Record
    test: Mean
    p_on_front: float
    is_cheapest: bool


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
class SiteCheck:
    """A site of the ablated placement: what leaving it out did, and the effect of its module there.

    `effect` is None where the model says nothing of it.
    """

    site: str
    ablation: ComparedTo
    effect: Effect | None

    @property
    def agreement(self) -> str:
        """'agree', 'disagree', or 'unclear' where one of them cannot be told from noise."""
        if self.effect is None or not self.effect.is_told or self.ablation.verdict == "unclear":
            return "unclear"
        helps = self.ablation.record.metric.minimised(self.effect.mean) < 0
        return "agree" if helps == (self.ablation.verdict == "worse") else "disagree"


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
        comparisons: each tested record beside the references and the random candidates.
        believability: what speaks against the trainings; None without a tried "none".
        recommendation: of all that was tested; None if nothing was, or if nothing was learnt.
        ablations: the ablated candidate without each of its sites, beside itself: worse where the
            site helps.
        by_class: the recommended placement beside no attention, class by class; None where the
            task does not measure classes.
        answers: the recommendation within each overhead budget.
        effects: where attention helps; None if there are too few records.
        expected: what the model of effects expects to be better than what was tested, at no more
            MACs; empty where it predicts nothing.
        checks: the sites of the ablated placement, by ablation and by effect.
        overview: all that was tested, on one scale; None if nothing was.
        stopping: what the rungs did; None if there are none.
        latencies: how well latencies were predicted; empty where the study predicts none.
        foresight: Kendall's tau of what the search saw of the finalists and what they were tested
            with; None of too few.
    """

    metric: Metric
    records: tuple[Record, ...]
    outcomes: Outcomes
    front: tuple[Record, ...]
    finals: FinalMetrics
    finalists: tuple[Finalist, ...]
    comparisons: Comparisons
    believability: Believability | None
    recommendation: Recommendation | None
    ablations: tuple[ComparedTo, ...]
    by_class: ByClass | None
    answers: tuple[Answer, ...]
    effects: SiteEffects | None
    expected: tuple[Expected, ...]
    checks: tuple[SiteCheck, ...]
    overview: Overview | None
    stopping: Stopping | None
    latencies: tuple[Prediction, ...]
    foresight: Mean | None

    @classmethod
    def of(cls, records: Sequence[Record], context: StudyContext) -> "Findings":
        """The findings of a study's records."""
        main = main_records(records)
        front = pareto_front(main, context.objectives)
        believable = believability(records, context.metric)
        near_chance = believable is not None and believable.near_chance
        finals = FinalMetrics.of(records, verdicts=not near_chance)
        by = context.recommend_by
        axes = _axes(context)
        recommended = None if near_chance else recommend(records, finals, by)
        ablations = _ablations(records, context, finals)
        model = SiteModel.of(records, context.choice_space)
        effects = None if model is None else model.effects
        return cls(
            metric=context.metric,
            records=tuple(records),
            outcomes=Outcomes.of(records),
            front=tuple(front),
            finals=finals,
            finalists=_finalists(records, costs_of(context.objectives), finals),
            comparisons=_comparisons(records, finals),
            believability=believable,
            recommendation=recommended,
            ablations=ablations,
            by_class=recommended_by_class(recommended, records, finals.verdicts),
            answers=() if near_chance else answers(records, finals, by, axes),
            effects=effects,
            expected=() if near_chance else _expected(model, finals, context, records, recommended),
            checks=_checks(ablations, effects),
            overview=overview(
                records, finals, None if recommended is None else recommended.record, by, axes
            ),
            stopping=stopping(main, front),
            latencies=predictions(records),
            foresight=None if near_chance else _foresight(records, finals),
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


def _axes(context: StudyContext) -> tuple[str, ...]:
    """The overheads that answers and figures are about: AXES, and times that the study is about."""
    asked = (*context.objectives, *context.recommend_by)
    return (*AXES, *(key for key in TIMES if key in asked))


def _comparisons(records: Sequence[Record], finals: FinalMetrics) -> Comparisons:
    rivals = [record for record in records if record.is_reference or record.is_random]
    comparisons = {}
    for record in records:
        if record.is_tested:
            others = [rival for rival in rivals if rival is not record]
            comparisons[record.number] = finals.compare(record, others)
    return comparisons


def _ablations(
    records: Sequence[Record], context: StudyContext, finals: FinalMetrics
) -> tuple[ComparedTo, ...]:
    """The ablations of what is ablated, and not of a former one, before the study was extended."""
    without = [record for record in records if record.is_ablation]
    if not without:
        return ()  # what they would be of takes a model of all final trainings
    ablated = to_ablate(records, context.metric, context.recommend_by)
    compared: list[ComparedTo] = []
    for record in without:
        if ablated is not None and record.ablation_of == ablated.number:
            compared += finals.compare(record, [ablated])
    return tuple(compared)


def _checks(ablations: Sequence[ComparedTo], effects: SiteEffects | None) -> tuple[SiteCheck, ...]:
    of_modules = (
        [effect for effect in effects.effects if not effect.is_of_option] if effects else []
    )
    by_place = {effect.place: effect for effect in of_modules}
    checks = []
    for ablation in ablations:
        whole = dict(ablation.other.parsed_placement.choices)
        left = dict(ablation.record.parsed_placement.choices)
        for site in whole.keys() - left.keys():
            effect = by_place.get((site, whole[site].module))
            checks.append(SiteCheck(site, ablation, effect))
    return tuple(checks)


def _expected(
    model: SiteModel | None,
    finals: FinalMetrics,
    context: StudyContext,
    records: Sequence[Record],
    recommended: Recommendation | None,
) -> tuple[Expected, ...]:
    """What is expected to be better than a tested reference or the recommended placement."""
    if model is None or not model.effects.predicts or not context.added or not finals.noise:
        return ()
    beside = [record for record in records if record.is_reference and record.is_tested]
    if recommended is not None and recommended.record not in beside:
        beside.append(recommended.record)
    return expected_best(model, finals.noise.sd, context.added, beside, records)


def _foresight(records: Sequence[Record], finals: FinalMetrics) -> Mean | None:
    """How the search's scores rank the finalists that it has trained, beside their tests."""
    both = [record for record in records if record.is_finalist]
    tests = [record.metric.minimised(finals.means[record.number].mean) for record in both]
    return rank_correlation([record.score for record in both], tests)


def _finalists(
    records: Sequence[Record], costs: Sequence[str], finals: FinalMetrics
) -> tuple[Finalist, ...]:
    """The finalists, the cheapest first."""
    tested = [record for record in records if record.is_finalist]
    if not tested:
        return ()
    cheapest = _cheapest(tested, costs)
    probabilities = finals.on_front(tested, costs)
    found = [
        Finalist(record, finals.means[record.number], p, record is cheapest)
        for record, p in zip(tested, probabilities, strict=True)
    ]
    return tuple(sorted(found, key=lambda finalist: _order(finalist, costs, finals)))


def _cheapest(records: Sequence[Record], costs: Sequence[str]) -> Record | None:
    """The record that costs less than each other in at least one way, and more in none."""
    known = np.array([[record.final_cost(key) for key in costs] for record in records])
    on_front = np.flatnonzero(nondominated(known))
    return records[on_front[0]] if len(on_front) == 1 else None


def _order(
    finalist: Finalist, costs: Sequence[str], finals: FinalMetrics
) -> tuple[list[float], float]:
    """The costs, then the mean to minimise."""
    record = finalist.record
    return [record.final_cost(key) for key in costs], finals.objective(record)
