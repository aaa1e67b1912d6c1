"""Whatever is decided is the same for a metric and for its mirror image.

A study of a metric that is better when larger is set beside the study of the same values with the
opposite sign, or taken from 100, and better when smaller. The one decides as the other; only what
is shown differs, by the sign.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from typing import Any

import pytest
import studied
from conftest import make_record, metric_fields
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from invented import PLAN, Shuffled, invent, memory_store, train, with_everything

from bam_search.analysis.effects import Effect, SiteEffects
from bam_search.analysis.findings import Findings
from bam_search.analysis.pareto import front_line
from bam_search.analysis.statistics import Difference, Mean
from bam_search.report.figures import candidates
from bam_search.report.front_figure import front_figure
from bam_search.report.sentences import verdict_lines
from bam_search.report.tables import difference_table, finalist_table
from bam_search.report.where import heat
from bam_search.score.evaluate import Job, Result
from bam_search.search.finalists import choose_finalists, expected_front
from bam_search.search.generator import SAMPLERS
from bam_search.search.pruner import forecast, should_stop
from bam_search.study.record import METRIC, Record
from bam_search.tasks.metric import Metric

SMALLER = Metric("loss of a kind", "%")
LARGER = Metric("gain of a kind", "%", larger_is_better=True)
VALUES = ("val_metric", "rung_metrics", "epoch_metrics", "test_metrics")
"""The fields of a record that are values of its metric."""
MEASURED = {field.name for field in fields(Metric)} | {"metric_name", *VALUES}
"""The fields of a record in which mirror images differ."""
COSTS = ("params_overhead", "macs_conv_fc_overhead")
Turn = Callable[[float], float]


def opposite(value: float) -> float:
    return -value


def from_100(value: float) -> float:
    return 100 - value


TURNS: dict[str, Turn] = {"opposite sign": opposite, "from 100": from_100}


def of_metric(record: Record, metric: Metric) -> Record:
    return replace(record, **metric_fields(metric))


def mirrored(record: Record, turn: Turn) -> Record:
    """The record with all values turned, of a metric that is better when larger."""
    turned: dict[str, Any] = {}
    for name in VALUES:
        value = getattr(record, name)
        if value is not None:
            turned[name] = tuple(map(turn, value)) if isinstance(value, tuple) else turn(value)
    return of_metric(replace(record, **turned), LARGER)


def pair(records: Sequence[Record], turn: Turn) -> tuple[list[Record], list[Record]]:
    """The records of a metric that is better when smaller, and their mirror images."""
    return [of_metric(one, SMALLER) for one in records], [mirrored(one, turn) for one in records]


def found(records: Sequence[Record]) -> Findings:
    return studied.found(records, metric=records[0].metric)


# ---- what is decided, without a value of the metric in it


def decisions(findings: Findings) -> dict[str, Any]:
    """All that the findings decide, and every number of them that has no direction."""
    effects, stops = findings.effects, findings.stopping
    recommended, believable = findings.recommendation, findings.believability
    return {
        "outcomes": findings.outcomes,
        "foresight": findings.foresight,
        "front": [record.tag for record in findings.front],
        "panels": [[r.tag for r in front_line(findings.records, axis)] for axis in COSTS],
        "recommended": recommended and recommended.record.tag,
        "promising": recommended and recommended.promising and recommended.promising.record.tag,
        "believable": believable and (believable.near_chance, believable.short),
        "finalists": [(one.record.tag, one.test.n) for one in findings.finalists],
        "comparisons": {
            number: [(one.other.tag, one.verdict, one.difference.n) for one in compared]
            for number, compared in findings.comparisons.items()
        },
        "ablations": [(one.record.tag, one.verdict) for one in findings.ablations],
        "answers": [
            (
                one.question,
                one.record.tag,
                one.recommendation.baseline and one.recommendation.baseline.verdict,
            )
            for one in findings.answers
        ],
        "rungs": stops and [rung.epochs for rung in stops.rungs],
        "stopping": stops and (stops.stopped, stops.control, stops.wrong),
        "epochs": stops and (stops.spent, stops.without),
        "effects": effects and [(one.name, one.records) for one in effects.effects],
    }


def numbers(findings: Findings) -> list[float | None]:
    """The numbers of the findings that have no direction, and those that are better when larger."""
    stops, believable = findings.stopping, findings.believability
    flat: list[float | None] = []
    for one in findings.finalists:
        flat += [one.p_on_front, one.test.sd]
    for compared in findings.comparisons.values():
        for each in compared:
            flat += [each.improvement.mean, each.improvement.low, each.improvement.high]
    flat += [believable.last_gain, believable.seed_sd] if believable else []
    for rung in stops.rungs if stops else ():
        tau = rung.agreement
        flat += [tau.mean, tau.low, tau.high] if tau else []
    return flat


def assert_mirrored(findings: Findings, other: Findings, turn: Turn) -> None:
    """What is shown of `findings` is that of `other` turned, with the ends of intervals swapped."""
    for one, two in zip(findings.finalists, other.finalists, strict=True):
        assert_turned(one.test, two.test, turn)
    for one, two in zip(findings.comparisons.values(), other.comparisons.values(), strict=True):
        for a, b in zip(one, two, strict=True):
            assert_turned(a.difference, b.difference, opposite)
    for a, b in zip(findings.ablations, other.ablations, strict=True):
        assert_turned(a.difference, b.difference, opposite)
    if findings.effects and other.effects:
        for a, b in zip(findings.effects.effects, other.effects.effects, strict=True):
            assert_turned(a, b, opposite)
    if findings.recommendation and other.recommendation:
        expected = turn(other.recommendation.expected)
        assert findings.recommendation.expected == pytest.approx(expected)


def assert_turned(
    one: Mean | Difference | Effect, two: Mean | Difference | Effect, turn: Turn
) -> None:
    assert one.mean == pytest.approx(turn(two.mean), abs=1e-9)
    assert (one.low is None) == (two.low is None)
    if one.low is not None and two.low is not None:
        assert one.low == pytest.approx(turn(two.high), abs=1e-6)
        assert one.high == pytest.approx(turn(two.low), abs=1e-6)


# ---- records, drawn at random

COUNT = 14
QUARTERS = st.integers(0, 160).map(lambda n: n / 4)
"""Values with ties among them; their mirror images are exact."""


@st.composite
def studies(draw: st.DrawFn) -> list[Record]:
    """Records of every kind and of any outcome."""
    records = []
    for number in range(COUNT):
        origin = "reference" if number < 2 else "search" if number < 11 else "random"
        outcome = draw(st.sampled_from(["complete", "complete", "complete", "stopped", "failed"]))
        if origin != "search" and outcome == "stopped":
            outcome = "complete"
        values: dict[str, Any] = {"origin": origin, "epochs": 4, "id": f"id{number}"}
        values["name"] = f"reference {number}" if origin == "reference" else ""
        sites = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
        values["placement"] = " ".join(f"layer{i}=bam(r=8)" for i in sorted(sites))
        if origin != "random" and outcome != "failed":
            values["rung_epochs"] = (1, 2)
            values["rung_metrics"] = (draw(QUARTERS), draw(QUARTERS))
        if outcome == "stopped":
            values["stopped"] = "after 2 epochs"
        if outcome == "failed":
            values["failure"] = "Traceback\nValueError: no"
        if outcome == "complete" and draw(st.booleans()):
            tests = draw(st.lists(QUARTERS, min_size=1, max_size=3))
            values |= studied.measured(*tests)
        value = draw(QUARTERS) if outcome == "complete" else None
        cost = draw(st.integers(0, 8)) / 2
        tag = number if origin != "random" else 1_000_000 + number
        records.append(make_record(tag, value, cost, **values))
    return records


@pytest.mark.parametrize("turn", TURNS.values(), ids=list(TURNS))
@settings(max_examples=8, deadline=None, derandomize=True)
@given(records=studies())
def test_findings_are_those_of_the_mirror_image(turn: Turn, records: list[Record]) -> None:
    smaller, larger = pair(records, turn)
    one, two = found(smaller), found(larger)
    if turn is from_100:
        # It rounds, which decides between equal means where there is no other noise.
        assume(one.finals.noise is None or one.finals.noise.sd > 1e-9)
    assert decisions(one) == decisions(two)
    assert numbers(two) == pytest.approx(numbers(one), abs=1e-6)
    assert_mirrored(one, two, turn)


@pytest.mark.parametrize("turn", TURNS.values(), ids=list(TURNS))
@settings(max_examples=60, deadline=None, derandomize=True)
@given(records=studies(), margin=st.sampled_from([0.0, 0.5, 2.0]))
def test_the_pruner_and_the_choice_of_finalists_are_those_of_the_mirror_image(
    turn: Turn, records: list[Record], margin: float
) -> None:
    if turn is from_100:
        # It rounds, which decides where most values are equal.
        values = [record.val_metric for record in records if record.complete]
        assume(len(set(values)) > len(values) / 2)
    smaller, larger = pair(records, turn)
    for one, two in zip(smaller, larger, strict=True):
        if one.rung_epochs:
            reasons = [
                should_stop(record, others, COSTS, margin)
                for record, others in ((one, smaller), (two, larger))
            ]
            assert bool(reasons[0]) == bool(reasons[1])
            rivals = [re.findall(r"#\d+", reason) for reason in reasons]
            assert rivals[0] == rivals[1]
    forecasts = [forecast(some, 2) for some in (smaller, larger)]
    assert (forecasts[0] is None) == (forecasts[1] is None)
    if forecasts[0] and forecasts[1]:
        assert forecasts[0].explained == pytest.approx(forecasts[1].explained, abs=1e-9)
    study = with_everything(12)
    for choose in (choose_finalists, expected_front):
        chosen = [
            [record.tag for record in choose(study, studied.CHOICE_SPACE, some)]
            for some in (smaller, larger)
        ]
        assert chosen[0] == chosen[1]


# ---- whole studies


def turned_trainings(job: Job) -> Result:
    """The mirror image of an invented training."""
    result = invent(job)
    if result.score is None:
        return result
    epochs = tuple(
        replace(epoch, value=None if epoch.value is None else -epoch.value)
        for epoch in result.score.per_epoch
    )
    return replace(result, score=replace(result.score, value=-result.score.value, per_epoch=epochs))


class Mirrored(Shuffled):
    """A pool whose trainings give the mirror image of the invented values."""

    def finish_one(self) -> None:
        future: Future[Result]
        future, job = self._waiting.pop(self._rng.randrange(len(self._waiting)))
        future.set_result(turned_trainings(job))
        self.finished.append(job)


@pytest.mark.parametrize(
    ("sampler", "workers"),
    [
        ("additive", 1),
        *((sampler, 3) for sampler in sorted(set(SAMPLERS) - {"gp"})),
        pytest.param("gp", 3, marks=pytest.mark.slow),
    ],
)
def test_a_whole_study_is_that_of_the_mirror_image(sampler: str, workers: int) -> None:
    """Its proposals, who is stopped, its finalists, their further seeds and the ablations."""
    context = replace(with_everything(14, workers), sampler=sampler)
    runs = []
    for metric, pool in ((SMALLER, Shuffled()), (LARGER, Mirrored())):
        plan = replace(PLAN, metric=metric)
        runs.append((train(context, memory_store(context), pool, plan), pool))
    (one, first), (two, second) = runs
    assert first.ran == second.ran
    assert list(one) == list(two)
    for record, other in zip(one.values(), two.values(), strict=True):
        assert neutral(record) == neutral(other)
        assert mirrored(record, opposite) == replace(other, stopped=record.stopped)
    if sampler == "additive":
        assert any(record.stopped for record in one.values())
    assert any(record.is_ablation for record in one.values())


def neutral(record: Record) -> dict[str, Any]:
    """What a record says beside values of the metric; of the reason to stop it, who was better."""
    values = {key: value for key, value in record.to_dict().items() if key not in MEASURED}
    return {**values, "stopped": re.sub(r"-?\d+\.\d+ %", "", record.stopped)}


# ---- what is shown


def test_the_first_figure_is_turned_upside_down() -> None:
    smaller, larger = pair(studied.RECORDS, opposite)
    one, two = (front_figure(found(some)) for some in (smaller, larger))
    assert one is not None
    assert two is not None
    for a, b in zip(one.wide, two.wide, strict=True):
        middle = a.frame.top + a.frame.bottom
        assert [mark.tag for mark in a.marks] == [mark.tag for mark in b.marks]
        for left, right in zip(a.marks, b.marks, strict=True):
            assert left.x == right.x
            assert left.y == pytest.approx(middle - right.y)
        assert a.front.count("V") == b.front.count("V") > 1


def test_failed_candidates_are_drawn_beyond_the_worst() -> None:
    for some in pair(studied.RECORDS, from_100):
        records, beyond = found(some).records, candidates(found(some)).beyond
        assert beyond is not None
        metric = records[0].metric
        values = [record.val_metric for record in records if record.val_metric is not None]
        assert metric.minimised(beyond) > max(map(metric.minimised, values))


def test_the_front_of_a_metric_that_is_better_when_larger_rises_with_the_cost() -> None:
    _, larger = pair(studied.RECORDS, from_100)
    findings = found(larger)
    by_tag = {record.tag: record for record in findings.records}
    front = [by_tag[tag] for tag in candidates(findings).fronts["params_overhead"]]
    values = [record.value(METRIC) for record in front]
    assert values == sorted(values)
    assert len(values) > 2


def test_a_difference_that_is_better_is_positive_where_larger_is_better() -> None:
    smaller, larger = (found(some) for some in pair(studied.RECORDS, from_100))
    one, two = difference_table(smaller), difference_table(larger)
    assert one.iloc[2]["minus no attention"].startswith("-9.")
    assert two.iloc[2]["minus no attention"].startswith("+9.")
    assert one.iloc[2]["minus no attention"].endswith(": better")
    assert two.iloc[2]["minus no attention"].endswith(": better")
    assert list(one["#"]) == list(two["#"])
    kept = [list(finalist_table(findings)["on the front"]) for findings in (smaller, larger)]
    assert kept[0] == kept[1]
    assert "better than no attention: +9." in str(verdict_lines(larger))


def test_where_attention_helps_has_the_colour_of_help_in_both_directions() -> None:
    helps = [Effect("layer1=bam", -2.0, -3.0, -1.0, 5), Effect("layer2=bam", 1.0, 0.5, 1.5, 5)]
    helps.append(Effect("layer3=bam", -0.4, -1.0, 0.2, 5))
    turned = [replace(one, mean=-one.mean, low=-one.high, high=-one.low) for one in helps]
    known = [SiteEffects(tuple(some), 5, 5, 1.0, 2.0) for some in (helps, turned)]
    colours = heat(SMALLER, known[0])["modules"]["bam"]
    assert {site: look for site, (look, _) in colours.items()} == {
        "layer1": "helps3",
        "layer2": "hurts2",
        "layer3": "untold",
    }
    mirrored = heat(LARGER, known[1])["modules"]["bam"]
    assert [look for look, _ in mirrored.values()] == [look for look, _ in colours.values()]
    unknown = replace(known[0], error=2.5)  # it predicts no better than the mean
    assert heat(SMALLER, unknown) == {}
