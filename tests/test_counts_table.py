"""The table of counts against torch's own, `benchmarks/results/counts.csv`, still says what is."""

import csv
from dataclasses import asdict
from pathlib import Path

import pytest
import torchvision

from benchmarks.counts import compared

TABLE = Path(__file__).parents[1] / "benchmarks" / "results" / "counts.csv"
ROWS = list(csv.DictReader(TABLE.read_text().splitlines()))
QUICK = ("squeezenet1_1", "mnasnet0_5", "ghostnetv3_050")


def test_every_count_is_torchs_or_says_why_not() -> None:
    assert [row for row in ROWS if (row["equal"] == "yes") == bool(row["why"])] == []
    equal = [row for row in ROWS if row["equal"] == "yes"]
    assert [row for row in equal if row["conv_linear"] != row["torch_conv_linear"]] == []
    assert [row for row in ROWS if row["products"] != row["torch_products"]] == []


def test_every_classification_model_of_torchvision_is_equal() -> None:
    models = torchvision.models.list_models(module=torchvision.models)
    found = {row["model"] for row in ROWS if row["library"] == "torchvision"}
    assert found == set(models)
    assert {row["equal"] for row in ROWS if row["library"] == "torchvision"} == {"yes"}


@pytest.mark.parametrize("name", QUICK)
def test_a_row_is_what_is_counted_today(name: str) -> None:
    (row,) = (row for row in ROWS if row["model"] == name)
    today = asdict(compared(row["library"], name))
    assert {key: str(value) for key, value in today.items()} == row
