"""What a record knows of itself: its kind, its placement, and what ablation it is."""

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from conftest import make_record
from studied import BASE, DRAWN, LUCKY, RECORDS, RISKY, STOPPED, WINNER, WITHOUT, measured

from bam_search.errors import UserError
from bam_search.space.placement import Placement
from bam_search.study.record import ABLATION, Record, ablation_number, best_of, main_records
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import Metric


def kinds(record: Record) -> list[bool]:
    """Whether it is of each kind."""
    return [record.is_reference, record.is_searched, record.is_random, record.is_ablation]


def test_each_record_is_of_one_kind() -> None:
    assert [sum(kinds(record)) for record in RECORDS] == [1] * len(RECORDS)
    by_kind = [sum(column) for column in zip(*map(kinds, RECORDS), strict=True)]
    assert by_kind == [2, 6, 2, 2]


def test_the_main_records_are_the_references_and_the_searched_ones() -> None:
    assert main_records(RECORDS) == RECORDS[:8]
    assert not any(record.is_main for record in (DRAWN, LUCKY, *WITHOUT))


def test_finalists_are_tested_and_no_ablations() -> None:
    finalists = [record.tag for record in RECORDS if record.is_finalist]
    assert finalists == ["0", "1", "2", "R1"]
    tested = [record.tag for record in RECORDS if record.is_tested]
    assert tested == [*finalists, "A2000", "A2001"]
    complete_ablation = replace(WITHOUT[0], val_metric=70.0, val_samples=400)
    assert not complete_ablation.is_finalist
    assert not replace(STOPPED, **measured(70.0)).is_finalist  # type: ignore[arg-type]
    assert not RISKY.is_finalist


def test_an_ablation_knows_what_it_is_an_ablation_of() -> None:
    record = make_record(ablation_number(17, 3), None, 0.0, origin=ABLATION)
    assert (record.ablation_of, record.tag) == (17, "A17003")
    assert [record.ablation_of for record in (BASE, WINNER, LUCKY, *WITHOUT)] == [
        None,
        None,
        None,
        2,
        2,
    ]


def test_a_placement_is_parsed_once_and_is_not_stored() -> None:
    record = make_record(0, 70.0, 1.0, placement="layer1=bam layer2=bam(r=8)")
    stored = json.dumps(record.to_dict())
    assert record.parsed_placement == Placement.parse(record.placement)
    assert record.parsed_placement is record.parsed_placement
    assert json.dumps(record.to_dict()) == stored
    for copy in (Record.from_dict(record.to_dict()), pickle.loads(pickle.dumps(record))):
        assert (copy, hash(copy.placement)) == (record, hash(record.placement))
    other = replace(record, placement="none")
    assert other.parsed_placement == Placement()


def test_a_text_that_is_no_placement_is_an_error_only_when_it_is_asked_for() -> None:
    record = make_record(0, None, 0.0, placement="<b>", failure="no")
    with pytest.raises(UserError, match="cannot read"):
        _ = record.parsed_placement


def test_what_is_minimised_has_the_sign_of_the_metric_and_costs_keep_theirs() -> None:
    values: dict[str, Any] = {
        "rung_epochs": (1, 3),
        "rung_metrics": (90.0, 80.0),
        "test_metrics": (71.0,),
        "test_seeds": (5,),
    }
    error = make_record(0, 70.0, 1.5, **values)
    assert error.metric == replace(TOP1_ERROR, sample_sd=None)  # of the task, not of a record
    assert error.rung_objectives == {1: 90.0, 3: 80.0}
    assert error.test_objectives == (71.0,)
    assert (error.objective("metric"), error.objective("params_overhead")) == (70.0, 1.5)
    score = replace(error, metric_name="F1", unit="", larger_is_better=True, decimals=4)
    assert score.metric == Metric("F1", larger_is_better=True, decimals=4)
    assert score.rung_objectives == {1: -90.0, 3: -80.0}
    assert score.test_objectives == (-71.0,)
    assert (score.objective("metric"), score.objective("params_overhead")) == (-70.0, 1.5)
    assert score.value("metric") == 70.0


def test_the_best_is_by_the_direction_of_the_metric() -> None:
    low, high = make_record(0, 70.0, 0.0), make_record(1, 80.0, 0.0)
    assert best_of([low, high]) is low
    turned = [replace(record, larger_is_better=True) for record in (low, high)]
    assert best_of(turned) is turned[1]
