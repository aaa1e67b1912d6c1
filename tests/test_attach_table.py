"""The table of what attaches, `benchmarks/results/attach.csv`.

It does not shrink, and still says what happens.
"""

import csv
from pathlib import Path

import pytest
import torchvision

from benchmarks.attach import family, tried

TABLE = Path(__file__).parents[1] / "benchmarks" / "results" / "attach.csv"
ROWS = list(csv.DictReader(TABLE.read_text().splitlines()))
QUICK = ("squeezenet1_1", "resnet10t")
BOTH = "bottleneck every-block"


def rows(library: str) -> list[dict[str, str]]:
    return [row for row in ROWS if row["library"] == library]


def test_every_model_is_searched_or_refused_with_a_reason() -> None:
    assert [row for row in ROWS if row["broken"]] == []
    assert [row for row in ROWS if row["attached"] != BOTH and not row["reason"]] == []


def test_every_convolutional_model_of_torchvision_attaches() -> None:
    models = torchvision.models
    assert {row["model"] for row in rows("torchvision")} == set(models.list_models(module=models))
    assert {row["model"] for row in rows("torchvision") if row["attached"] != BOTH} == {
        n for n in models.list_models() if n.startswith("vit_")
    }


def test_timm_families_are_all_there_and_most_attach() -> None:
    families = [row["family"] for row in rows("timm")]
    assert len(families) == len(set(families)) >= 280
    assert sum(row["attached"] == BOTH for row in rows("timm")) >= 260
    assert sum(bool(row["attached"]) for row in rows("timm")) >= 280


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["model"] in QUICK], ids=lambda row: row["model"]
)
def test_the_table_says_what_happens(row: dict[str, str]) -> None:
    if row["library"] == "timm":
        pytest.importorskip("timm")
    again = tried(f"{row['library']}:{row['model']}")
    assert again.broken == ""
    assert (again.attached, again.stages, again.blocks) == (
        row["attached"],
        int(row["stages"]),
        int(row["blocks"]),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['library']}-{row['model']}")
def test_each_row_says_what_happens(row: dict[str, str]) -> None:
    if row["library"] == "timm":
        pytest.importorskip("timm")
    again = tried(f"{row['library']}:{row['model']}")
    assert (again.attached, again.broken) == (row["attached"], "")


def test_families_are_what_stands_before_the_first_underscore() -> None:
    assert (family("convnext_atto"), family("resnet18d"), family("vit_base_patch16_224")) == (
        "convnext",
        "resnet18d",
        "vit",
    )
