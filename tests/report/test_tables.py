"""What the tables and sentences say, from records of known values."""

import io
import json

import pandas as pd
import pytest
from conftest import make_record

from bam_search.report.page import answer_line, verdict_line
from bam_search.report.tables import answers, front_csv, records_csv, shown, verdict
from bam_search.search.record import REFERENCE, standard_error

BASE = make_record(0, 80.0, 0.0, origin=REFERENCE, name="no attention", placement="none", test_error=81.0, test_images=10_000)
GOOD = make_record(1, 70.0, 1.5, test_error=72.0, test_images=10_000)
DEAR = make_record(2, 69.0, 7.0)
BAD = make_record(3, 90.0, 0.2)
FAILED = make_record(4, None, 0.1, failure="Traceback\nValueError: no")
RECORDS = [BASE, GOOD, DEAR, BAD, FAILED]


def test_the_best_within_each_budget() -> None:
    found = [(a.budget, a.record.number) for a in answers(RECORDS) if a.axis == "params_overhead"]
    assert found == [(0.5, 0), (2.0, 1), (10.0, 2)]
    assert answer_line(answers(RECORDS)[1]) == (
        "at most +2 % parameters: 70.0 ± 2.3 % validation error, 72.00 % test error, with layer1=bam"
    )


def test_the_verdict_is_on_the_test_set_and_knows_a_tie() -> None:
    found = verdict(RECORDS)
    assert found is not None
    assert (found.searched, found.reference, found.word) == (GOOD, BASE, "better")
    assert found.difference == pytest.approx(-9)
    assert found.margin == pytest.approx(2 * (standard_error(72, 10_000) ** 2 + standard_error(81, 10_000) ** 2) ** 0.5)
    close = make_record(1, 70.0, 1.5, test_error=80.5, test_images=10_000)
    assert "a tie (-0.50 points" in verdict_line([BASE, close])
    assert "worse" in verdict_line([BASE, make_record(1, 70.0, 1.5, test_error=84.0, test_images=10_000)])
    assert verdict_line([BASE, DEAR]) == ""


def test_the_binomial_standard_error() -> None:
    assert standard_error(50, 100) == pytest.approx(5)
    assert standard_error(0, 100) == 0


def test_csv_files_hold_every_field_and_the_front_alone() -> None:
    table = pd.read_csv(io.StringIO(records_csv(RECORDS)))
    assert list(table["number"]) == [0, 1, 2, 3, 4]
    assert list(table["val_error"][:4]) == [80.0, 70.0, 69.0, 90.0]
    assert json.loads(table["by_operator"][1]) == {"conv": 2001}
    assert set(table["data"]) == {"CIFAR-100"}
    chosen = pd.read_csv(io.StringIO(front_csv(RECORDS, ("error", "params_overhead", "macs_conv_fc_overhead"))))
    assert list(chosen["number"]) == [0, 1, 2]


def test_a_failed_candidate_is_shown_as_such() -> None:
    assert shown([FAILED]).iloc[0]["validation error, %"] == "failed"
