"""What the tables and sentences say, from records of known values."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_record
from studied import (
    BASE,
    FAILED,
    LUCKY,
    PAPER,
    RECORDS,
    RISKY,
    STOPPED,
    WINNER,
    WITHOUT,
    WORSE,
    found,
    half_width,
    measured,
)

from bam_search.analysis.effects import Effect
from bam_search.analysis.statistics import mean
from bam_search.report import tables
from bam_search.report.sentences import answer_line, verdict_lines
from bam_search.report.tables import (
    ablation_table,
    difference_table,
    effect_table,
    finalist_table,
    read_records,
    record_table,
    records_csv,
)
from bam_search.study.record import Record
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import binomial


def best_by_params(records: Sequence[Record]) -> list[tuple[float, int]]:
    """Each budget of parameters that has an answer of its own, and the record's number."""
    best = [answer for answer in found(records).answers if answer.axis == "params_overhead"]
    return [(answer.budget, answer.record.number) for answer in best]


def test_the_best_within_each_budget_by_test_error_where_there_are_finalists() -> None:
    assert best_by_params(RECORDS) == [(0.5, 0), (1.0, 1), (2.0, 2)]
    assert answer_line(found(RECORDS).answers[2]) == (
        "at most +2 % parameters: layer1=bam layer2=bam(r=8) (#2), 72.20 ± 0.26 (3) % "
        "test top-1 error, better than BAM in front: -4.00 points "
        f"(90 % interval {-4 - half_width():+.2f} to {-4 + half_width():+.2f}, n = 3)"
    )
    assert (
        answer_line(found(RECORDS).answers[0])
        == "at most +0.5 % parameters: none (no attention), 81.30 ± 0.26 (3) % test top-1 error"
    )
    assert "better than no attention: -5.10" in answer_line(found(RECORDS).answers[1])


def test_without_finalists_the_best_is_by_validation_error() -> None:
    records = [replace(r, test_metrics=(), test_seeds=()) for r in (BASE, RISKY, WORSE, FAILED)]
    assert best_by_params(records) == [(0.5, 0), (2.0, 3)]
    assert (
        answer_line(found(records).answers[1])
        == "at most +2 % parameters: layer3=bam (#3), 74.0 ± 2.2 % validation top-1 error"
    )


def test_the_verdict_is_on_the_test_set_and_knows_a_tie() -> None:
    first, *rest = verdict_lines(found(RECORDS))
    assert first == "The search's winner, layer1=bam layer2=bam(r=8) (#2), is"
    interval = f"90 % interval {-9.1 - half_width():+.2f} to {-9.1 + half_width():+.2f}"
    assert rest[0] == (
        f"better than no attention: -9.10 points of test top-1 error, {interval}, n = 3; "
        "+1.50 % parameters against +0.00 %"
    )
    assert rest[1].startswith("better than BAM in front: -4.00 points")
    assert rest[2].startswith("better than the best random placement, layer9=bam: -2.03 points")
    close = replace(WINNER, **measured(81.1, 81.3, 81.4))
    assert verdict_lines(found([BASE, PAPER, close]))[1].startswith(
        "a tie with no attention: -0.03 points"
    )
    worse = replace(WINNER, **measured(84.0, 84.5, 84.4))
    assert verdict_lines(found([BASE, PAPER, worse]))[1].startswith(
        "worse than no attention: +3.00 points"
    )


def test_one_seed_has_no_interval_and_is_a_tie() -> None:
    once = [
        replace(r, test_metrics=r.test_metrics[:1], test_seeds=r.test_seeds[:1])
        for r in (BASE, WINNER)
    ]
    assert verdict_lines(found(once))[1] == (
        "a tie with no attention: -9.00 points of test top-1 error, no interval with one seed, "
        "n = 1; +1.50 % parameters against +0.00 %"
    )


def test_without_a_search_the_references_are_beside_the_first() -> None:
    first, line = verdict_lines(found([BASE, PAPER]))
    assert first == "The references beside the first one:"
    assert line.startswith("BAM in front: better than no attention: -5.10 points")
    assert verdict_lines(found([BASE])) == []
    untested = [replace(r, test_metrics=(), test_seeds=()) for r in RECORDS]
    assert verdict_lines(found(untested)) == []


def test_references_without_a_common_seed_have_no_verdict() -> None:
    third = make_record(
        9, 77.0, 1.0, origin="reference", name="third", test_metrics=(77.0,), test_seeds=(102,)
    )
    apart = (
        replace(PAPER, test_metrics=(76.0, 76.5), test_seeds=(102, 103)),
        replace(BASE, test_metrics=(81.0,), test_seeds=(100,)),
    )
    assert verdict_lines(found([apart[1], apart[0]])) == []
    assert verdict_lines(found([apart[1], apart[0], third])) == []


def test_the_finalists_table() -> None:
    table = finalist_table(found(RECORDS))
    assert list(table["#"]) == ["0", "1", "2", "R1"]
    assert table.iloc[2].to_dict() == {
        "#": "2",
        "name": "search",
        "placement": "layer1=bam layer2=bam(r=8)",
        "test top-1 error, %": "72.20",
        "s.d.": "0.26",
        "90 % interval": "71.75 to 72.65",  # 2.92 * 0.2646 / 3 ** 0.5 = 0.446
        "n": "3",
        "on the front": "100%",
        "validation gain": "+10.00",
        "test gain": "+9.10",
        "parameters, +%": "+1.50",
        "MACs (conv + fc), +%": "+3.00",
    }
    assert table.iloc[0]["name"] == "no attention"
    assert table.iloc[0]["validation gain"] == ""
    assert table.iloc[3]["on the front"] == "0%"
    once = finalist_table(found([replace(BASE, test_metrics=(81.0,), test_seeds=(100,))])).iloc[0]
    assert (once["s.d."], once["90 % interval"], once["n"]) == ("", "", "1")
    assert len(finalist_table(found([FAILED]))) == 0


def test_the_table_of_differences() -> None:
    table = difference_table(found(RECORDS))
    assert list(table.columns) == ["#", "placement", "minus no attention", "minus BAM in front"]
    half = half_width()
    assert (
        table.iloc[2]["minus no attention"]
        == f"-9.10 ({-9.1 - half:+.2f} to {-9.1 + half:+.2f}), n = 3: better"
    )
    assert (
        table.iloc[0]["minus BAM in front"]
        == f"+5.10 ({5.1 - half:+.2f} to {5.1 + half:+.2f}), n = 3: worse"
    )
    assert table.iloc[0]["minus no attention"] == ""


def test_the_tables_of_ablations_and_effects() -> None:
    table, half = ablation_table(found(RECORDS)), half_width()
    assert list(table["placement"]) == ["#2 without layer1", "#2 without layer2"]
    assert list(table.iloc[:, 1]) == [
        f"+3.00 ({3 - half:+.2f} to {3 + half:+.2f}), n = 3: worse",
        f"+0.00 ({-half:+.2f} to {half:+.2f}), n = 3: tie",
    ]
    assert effect_table(TOP1_ERROR, [Effect("layer1=bam", -1.234, -2.0, 0.456, 7)]).iloc[
        0
    ].tolist() == [
        "layer1=bam",
        "-1.23",
        "-2.00 to +0.46",
        "7",
    ]


def test_the_text_of_a_test_error() -> None:
    assert tables.test_text(TOP1_ERROR, mean(WINNER.test_metrics)) == "72.20 ± 0.26 (3)"
    assert tables.test_text(TOP1_ERROR, mean([72.0])) == "72.00 (1)"
    assert tables.test_text(TOP1_ERROR, None) == ""


def test_the_binomial_standard_error() -> None:
    assert binomial(50, 100) == pytest.approx(5)
    assert binomial(0, 100) == 0


def test_csv_files_hold_every_field_and_the_front_alone() -> None:
    table = pd.read_csv(io.StringIO(records_csv(RECORDS)))
    assert list(table["number"]) == [record.number for record in RECORDS]
    assert list(table["val_metric"][:4]) == [80.0, 75.0, 70.0, 74.0]
    assert json.loads(table["by_operator"][1]) == {"conv": 2001, "add": 1000}
    assert json.loads(table["test_metrics"][2]) == [72.0, 72.1, 72.5]
    assert set(table["data"]) == {"CIFAR-100"}
    front = pd.read_csv(io.StringIO(records_csv(found(RECORDS).front)))
    assert list(front["number"]) == [0, 1, 3, 2]


def test_records_survive_their_csv_file(tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text(records_csv(RECORDS), encoding="utf-8")
    again = read_records(tmp_path)
    assert again == RECORDS
    # Also in columns with gaps, whole numbers stay whole.
    assert {type(record.val_samples) for record in again} == {int, type(None)}


def test_a_failed_and_a_stopped_candidate_are_shown_as_such() -> None:
    records = [FAILED, STOPPED, WITHOUT[0], LUCKY]
    table = record_table(found(records), records)
    assert list(table["validation top-1 error, %"]) == ["failed", "stopped", "–", "73.0 ± 2.2"]
    assert list(table["#"]) == ["6", "4", "A2000", "R1"]


def test_a_front_without_candidates_has_its_columns() -> None:
    nothing = records_csv(found([FAILED]).front)
    assert list(pd.read_csv(io.StringIO(nothing))) == list(BASE.to_dict())
