"""What the tables and sentences say, from records of known values."""

import io
import json
import re
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
    found,
    measured,
)

from bam_search.analysis.statistics import mean
from bam_search.report import tables
from bam_search.report.sentences import (
    answer_line,
    believability_lines,
    recommendation_lines,
    verdict_lines,
)
from bam_search.report.tables import (
    ablation_table,
    called,
    difference_table,
    finalist_table,
    read_records,
    record_table,
    records_csv,
)
from bam_search.study.record import ABLATION, FIRST, Record
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import binomial


def recommended_by_params(records: Sequence[Record]) -> list[tuple[float, int]]:
    """Each budget of parameters that has a recommendation of its own, and the record's number."""
    found_answers = found(records).answers
    best = [answer for answer in found_answers if answer.axis == "params_overhead"]
    return [(answer.budget, answer.record.number) for answer in best]


STUDY = [BASE, PAPER, WINNER, LUCKY]
"""Finalists without ablations."""
DIFFERENCE = r"[+-]\d+\.\d\d points \(95 % credible interval [+-]\S+ to [+-]\S+, n = 3\)"


def test_the_recommendation_within_each_budget() -> None:
    assert recommended_by_params(STUDY) == [(0.5, 0), (1.0, 1), (2.0, 2)]
    none, paper, best = (answer_line(answer) for answer in found(STUDY).answers[:3])
    costs = "+0.00 % parameters, +0.00 % MACs (conv + fc)"
    assert re.fullmatch(
        r"at most \+0.5 % parameters: none \(no attention\), test top-1 error 81\.\d\d %, "
        + re.escape(costs),
        none,
    )
    assert re.fullmatch(
        r"at most \+2 % parameters: layer1=bam layer2=bam\(r=8\) \(#2\), test top-1 error "
        r"72\.\d\d %, \+1\.50 % parameters, \+3\.00 % MACs \(conv \+ fc\), "
        "better than no attention: " + DIFFERENCE,
        best,
    )
    assert "layer1=bam (BAM in front)" in paper
    untested = [replace(r, test_metrics=(), test_seeds=()) for r in STUDY]
    assert recommended_by_params(untested) == []


def test_the_recommendation_is_the_cheapest_that_nothing_is_better_than() -> None:
    line, *others = recommendation_lines(found(STUDY))
    start = (
        "Recommended, as the cheapest that nothing tested is measurably better than: "
        "layer1=bam layer2=bam(r=8) (#2), test top-1 error 72."
    )
    assert line.startswith(start)
    assert others == []
    # As good to within the noise, and cheaper.
    rival = replace(RISKY, **measured(72.1, 72.0, 72.6))
    (line,) = recommendation_lines(found([*STUDY, rival]))
    assert "layer3=bam (#3)" in line
    # It costs more MACs than the winner, and fewer parameters.
    odd = replace(rival, macs_conv_fc_overhead=4.0)
    assert "(#2)" in recommendation_lines(found([*STUDY, odd]))[0]
    by_params = found([*STUDY, odd], recommend_by=("params_overhead",))
    assert "(#3)" in recommendation_lines(by_params)[0]


def test_where_nothing_is_shown_to_help_no_placement_is_recommended() -> None:
    close = replace(WINNER, **measured(81.1, 81.3, 81.4))
    findings = found([BASE, replace(PAPER, **measured(81.3, 81.2, 81.6)), close])
    first, second = recommendation_lines(findings)
    assert re.fullmatch(
        r"No placement is shown to help: below 0\.\d\d points nothing can be told here \(3 seeds\)",
        first,
    )
    assert re.fullmatch(
        r"Most promising, worth more seeds, not recommended: layer1=bam layer2=bam\(r=8\) \(#2\), "
        + DIFFERENCE
        + r" beside no attention; about \d+ seeds each could tell",
        second,
    )
    assert "cannot be told from no attention within 0." in verdict_lines(findings)[-1]
    worse = replace(WINNER, **measured(84.0, 84.5, 84.4))
    bad = replace(PAPER, **measured(83.0, 83.5, 83.6))
    lines = recommendation_lines(found([BASE, bad, worse]))
    assert len(lines) == 1
    assert lines[0].startswith("No placement is shown to help")


def test_the_recommended_one_is_beside_the_references_and_the_random_search() -> None:
    first, *rest = verdict_lines(found(STUDY))
    assert first == "layer1=bam layer2=bam(r=8) (#2) is"
    assert re.fullmatch(f"better than no attention: {DIFFERENCE}", rest[0])
    assert rest[1].startswith("better than BAM in front: -")
    assert rest[2].startswith("better than the best random placement, layer9=bam: -")


def test_one_seed_tells_nothing() -> None:
    once = [
        replace(r, test_metrics=r.test_metrics[:1], test_seeds=r.test_seeds[:1])
        for r in (BASE, WINNER)
    ]
    assert recommendation_lines(found(once)) == [
        "No placement is shown to help: with one seed nothing can be told",
        "Most promising, worth more seeds, not recommended: layer1=bam layer2=bam(r=8) (#2), "
        "-9.00 points (no interval, n = 1) beside no attention",
    ]


def test_near_chance_nothing_is_compared() -> None:
    chance = replace(TOP1_ERROR, chance=99.0)
    guessing = [replace(r, val_metric=90.0) for r in STUDY]
    findings = found(guessing, metric=chance)
    assert believability_lines(chance, findings.believability) == [
        "Near chance: without attention validation top-1 error is 90.0 %, and 99.0 % by guessing, "
        "so nothing is compared: train for longer or on more samples"
    ]
    assert findings.recommendation is None
    assert findings.answers == ()
    assert {one.verdict for row in findings.comparisons.values() for one in row} == {"unclear"}
    better = found([replace(r, val_metric=89.0) for r in STUDY], metric=chance)
    assert better.recommendation is not None


def test_trainings_that_end_while_they_gain_are_called_a_trial_run() -> None:
    still = [replace(BASE, epoch_metrics=(82.0, 80.0)), *STUDY[1:]]
    (line,) = believability_lines(TOP1_ERROR, found(still).believability)
    assert re.fullmatch(
        r"A trial run: the last epoch still gained 2\.00 points, over 2 standard deviations "
        r"between seeds \(0\.2\d points\), so verdicts are for trainings of this length",
        line,
    )
    ended = [replace(BASE, epoch_metrics=(80.2, 80.0)), *STUDY[1:]]
    assert believability_lines(TOP1_ERROR, found(ended).believability) == []
    assert believability_lines(TOP1_ERROR, found(STUDY[1:]).believability) == []


def test_without_a_search_the_references_are_beside_the_first() -> None:
    worse = replace(PAPER, **measured(82.3, 82.0, 82.3))
    first, line = verdict_lines(found([BASE, worse]))
    assert first == "The references beside the first one:"
    assert re.match(r"BAM in front: \S.* no attention", line)
    assert verdict_lines(found([BASE])) == []
    untested = [replace(r, test_metrics=(), test_seeds=()) for r in RECORDS]
    assert verdict_lines(found(untested)) == []


def test_references_without_a_common_seed_are_not_compared() -> None:
    third = make_record(
        9, 77.0, 1.0, origin="reference", name="third", test_metrics=(77.0,), test_seeds=(102,)
    )
    apart = (
        replace(PAPER, test_metrics=(86.0, 86.5), test_seeds=(102, 103)),
        replace(BASE, test_metrics=(81.0,), test_seeds=(100,)),
    )
    assert verdict_lines(found([apart[1], apart[0]])) == []
    assert verdict_lines(found([apart[1], apart[0], replace(third, **{"placement": "none"})])) == []


def test_the_finalists_table() -> None:
    table = finalist_table(found(RECORDS))
    assert list(table["#"]) == ["0", "1", "2", "R1"]
    assert table.iloc[2].to_dict() == {
        "#": "2",
        "name": "search",
        "placement": "layer1=bam layer2=bam(r=8)",
        "mean test top-1 error, %": "72.20",
        "s.d.": "0.26",
        "90 % interval": "71.75 to 72.65",  # 2.92 * 0.2646 / 3 ** 0.5 = 0.446
        "n": "3",
        "to expect": f"{found(RECORDS).finals.expected(WINNER):.2f}",
        "on the front": "> 99 %",
        "parameters, %": "+1.50",
        "MACs (conv + fc), %": "+3.00",
    }
    assert table.iloc[0]["name"] == "no attention"
    assert table.iloc[0]["on the front"] == "cheapest: on it by cost"
    assert table.iloc[3]["on the front"] == "< 1 %"
    once = finalist_table(found([replace(BASE, test_metrics=(81.0,), test_seeds=(100,))])).iloc[0]
    assert (once["s.d."], once["90 % interval"], once["n"]) == ("", "", "1")
    assert len(finalist_table(found([FAILED]))) == 0


def test_the_table_of_differences() -> None:
    table = difference_table(found(RECORDS))
    assert list(table.columns) == ["#", "placement", "minus no attention", "minus BAM in front"]
    number = r"[+-]\d+\.\d\d"
    cell = rf"{number} \({number} to {number}\), n = 3: "
    assert re.fullmatch(cell + "better", table.iloc[2]["minus no attention"])
    assert re.fullmatch(cell + "worse", table.iloc[0]["minus BAM in front"])
    assert table.iloc[0]["minus no attention"] == ""


def test_the_table_of_ablations() -> None:
    table = ablation_table(found(RECORDS))
    assert list(table["placement"]) == ["#2 without layer1", "#2 without layer2"]
    first, second = table.iloc[:, 1]
    assert first.endswith("n = 3: worse")
    assert re.search(r"n = 3: cannot tell within 0\.\d\d$", second)


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


def test_the_errors_of_a_thousand_classes_survive_too(tmp_path: Path) -> None:
    by_class = tuple(tuple((seed + i) % 100 + 0.25 for i in range(1000)) for seed in range(30))
    record = make_record(0, 80.0, 0.0, test_by_class=by_class, val_further={"top-5 error, %": 12.5})
    (tmp_path / "records.csv").write_text(records_csv([record]))
    assert read_records(tmp_path) == [record]


def test_a_failed_and_a_stopped_candidate_are_shown_as_such() -> None:
    records = [FAILED, STOPPED, WITHOUT[0], LUCKY]
    table = record_table(found(records), records)
    assert list(table["validation top-1 error, %"]) == ["failed", "stopped", "–", "73.0 (SE 2.2)"]
    assert list(table["#"]) == ["6", "4", "A2000", "R1"]


def test_a_front_without_candidates_has_its_columns() -> None:
    nothing = records_csv(found([FAILED]).front)
    assert list(pd.read_csv(io.StringIO(nothing))) == list(BASE.to_dict())


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "'quoted'", "''", "plain", ""])
def test_no_cell_of_records_is_a_formula_and_all_are_read_back(tmp_path: Path, text: str) -> None:
    record = replace(FAILED, name=text, failure=text, data=text or "CIFAR-100")
    (tmp_path / "records.csv").write_text(records_csv([record]))
    row = pd.read_csv(tmp_path / "records.csv", dtype=str, keep_default_na=False).iloc[0]
    assert not any(row[name].startswith(("=", "+", "-", "@")) for name in ("name", "failure"))
    assert read_records(tmp_path) == [record]


@pytest.mark.parametrize("name", ["A7", "#A7", "#19 without layer1"])
def test_a_candidate_is_called_as_tables_call_it(name: str) -> None:
    ablation = make_record(
        FIRST[ABLATION] + 7, 80.0, 1.0, origin=ABLATION, name="#19 without layer1"
    )
    assert called([make_record(7, 81.0, 1.0), ablation], name, Path("report")) is ablation
