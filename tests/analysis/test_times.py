"""How well latencies were predicted: of numbers whose error and rank are known."""

from dataclasses import replace

import pytest
import studied
from conftest import make_record
from studied import found

from bam_search.analysis.latency import predictions
from bam_search.analysis.recommendation import TIMES
from bam_search.report.answer import first_screen
from bam_search.report.publication.figure import numbers
from bam_search.report.sentences import latency_lines, recommendation_lines, times_words
from bam_search.report.tables import finalist_table, time_text
from bam_search.study.record import Record


def timed(number: int, predicted: float, measured: float | None) -> Record:
    times = {"predicted_latency_overhead": predicted, "latency_overhead": measured}
    return make_record(number, 70.0, 1.0, **times)


def test_the_median_error_and_the_rank_agreement_are_told() -> None:
    records = [timed(i, 10.0 * i, 10.0 * i + i % 3) for i in range(1, 8)]
    (one,) = predictions([*records, timed(9, 50.0, None), make_record(10, 70.0, 1.0)])
    assert (one.key, one.n, one.error, one.typical) == ("latency_overhead", 7, 1.0, 41.0)
    assert one.agreement is not None
    assert one.agreement.mean == 1
    (line,) = latency_lines([one])
    assert line == (
        "Time as trained, predicted before training: for half of 7 placements within 1.0 points "
        "of what was then measured, +41 % in the middle, Kendall's tau 1.00 (1.00 to 1.00)"
    )


def test_without_predictions_nothing_is_said() -> None:
    assert predictions(studied.RECORDS) == ()


def with_times(record: Record, trained: float, deployed: float) -> Record:
    return replace(
        record,
        latency_overhead=trained,
        latency_interval=(trained - 1, trained + 1),
        deployed_latency_overhead=deployed,
        deployed_latency_interval=(deployed - 2, deployed + 2),
    )


TIMED = [
    with_times(record, 10.0 * i, 100.0 - 10 * i) if record.is_tested else record
    for i, record in enumerate(studied.RECORDS)
]


def test_measured_time_decides_what_is_cheapest() -> None:
    """By time as deployed the record that was tested last is the cheapest; by MACs no attention."""
    by_time = found(TIMED, recommend_by=("deployed_latency_overhead",)).overview
    by_macs = found(TIMED).overview
    assert by_time is not None
    assert by_macs is not None
    times = [one.record.final_cost("deployed_latency_overhead") for one in by_time.standings]
    assert times == sorted(times)
    assert by_time.standings[0].record.tag != by_macs.standings[0].record.tag == "0"


def test_a_time_that_nobody_measured_is_not_chosen() -> None:
    assert studied.BASE.final_cost("latency_overhead") == float("inf")
    some = [TIMED[0], studied.PAPER, *TIMED[2:]]
    overview = found(some, recommend_by=("latency_overhead",)).overview
    assert overview is not None
    assert overview.standings[-1].record.tag == studied.PAPER.tag
    assert "latency_overhead" not in overview.fronts


def test_figures_are_over_the_time_that_a_study_is_about() -> None:
    objectives = ("metric", "macs_conv_fc_overhead", "deployed_latency_overhead")
    predicted = [replace(record, predicted_deployed_latency_overhead=1.0) for record in TIMED]
    findings = found(predicted, objectives=objectives)
    titles = [panel.title for panel in numbers(findings).panels]
    assert titles == ["MACs (conv + fc), +%", "time as deployed, +%"]
    (asked,) = numbers(findings, ["latency_overhead"]).panels
    assert asked.title == "time as trained, +%"
    assert {answer.axis for answer in findings.answers} == {
        "params_overhead",
        "macs_conv_fc_overhead",
        "deployed_latency_overhead",
    }


def test_times_stand_wherever_costs_do() -> None:
    findings = found(TIMED)
    assert "+110 % time as trained, -10 % time as deployed" in recommendation_lines(findings)[0]
    assert set(finalist_table(findings)) >= {f"{title}, %" for title in TIMES.values()}
    assert time_text(TIMED[2], "latency_overhead") == "+20 (+19 to +21)"
    assert time_text(studied.BASE, "latency_overhead") == "–"
    assert times_words(studied.BASE) == []


@pytest.mark.parametrize("key", TIMES)
def test_a_record_keeps_its_times(key: str) -> None:
    assert getattr(Record.from_dict(TIMED[2].to_dict()), key) == getattr(TIMED[2], key)


def test_the_first_screen_has_one_column_of_times() -> None:
    screen = first_screen(found(TIMED), "image")
    assert screen.costs == ("params, %", "MACs, %", "time as trained · as deployed, %")
    assert {row.record.tag: row.costs[2] for row in screen.rows}["1"] == "+10 · +90"
    assert first_screen(found(studied.RECORDS), "image").costs == ("params, %", "MACs, %")
