"""The torture table: no cell in silence."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.torture import (
    FAULTS,
    IN_EFFECT,
    OPERATIONS,
    SENTENCE,
    SILENT,
    SUBJECTS,
    Operation,
    tried,
)

TABLE = Path(__file__).parents[1] / "benchmarks" / "results" / "torture.csv"


def test_the_table_has_every_cell_and_no_fault() -> None:
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["model"], row["operation"]) for row in rows} == {
        (model, operation) for model in SUBJECTS for operation in OPERATIONS
    }
    assert not [row for row in rows if row["outcome"] in FAULTS]
    assert {row["outcome"] for row in rows} >= {IN_EFFECT, SENTENCE}


def test_a_cell_is_as_the_table_has_it() -> None:
    assert tried(SUBJECTS["odd idioms"], OPERATIONS["pickle"])[0] == IN_EFFECT
    assert tried(SUBJECTS["ResNet"], OPERATIONS["replaced by hand"])[0] == SENTENCE


def unhooked(model: nn.Module, _x: Tensor) -> nn.Module:
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return model


def twice(model: nn.Module, _x: Tensor) -> nn.Module:
    for module in list(model.modules()):
        for hook in list(module._forward_hooks.values()):
            module.register_forward_hook(hook)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("do", [unhooked, twice])
@pytest.mark.parametrize("exact", [True, False])
def test_what_is_lost_or_runs_twice_would_be_seen(do: object, exact: bool) -> None:
    torch.manual_seed(0)
    outcome, _ = tried(SUBJECTS["odd idioms"], Operation(do, exact=exact))  # type: ignore[arg-type]
    assert outcome == SILENT
