"""A whole study whose candidates start from a trained backbone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bam_search import run_study
from bam_search.search.warm_start import BACKBONE
from bam_search.study.record import Record


def run(data: Path, out: Path, trials: int) -> dict[int, Record]:
    """The records by number, without their seconds and tests."""
    overrides: dict[str, Any] = {
        "scoring": "warm_start",
        "space": "small_grid",
        "trials": trials,
        "startup": 1,
        "workers": 1,
        "data": {"images": 192, "validation": 100},
        "recipe": {"epochs": 2, "batch": 64},
        "finalists": {"seeds": 1, "most": 1, "leave_one_out": False},
    }
    result = run_study("placement", data=data, device="cpu", out=out, overrides=overrides)
    assert BACKBONE in {path.name for path in out.iterdir()}
    page = (out / "index.html").read_text()
    assert "warm_start: the backbone trains once for 4 epochs in " in page
    tested = [record for record in result.records if record.is_tested]
    assert tested
    return {
        record.number: replace(
            record,
            seconds=None,
            test_metrics=(),
            test_standard_errors=(),
            test_seeds=(),
            test_samples=None,
            test_seconds=None,
            test_micro_batches=None,
            test_further={},
            test_by_class=(),
            test_class_samples=(),
            latency_overhead=None,
            latency_interval=(),
        )
        for record in result.records
    }


@pytest.mark.slow
def test_a_study_goes_on_from_the_backbone_that_it_has(small_npz: Path, tmp_path: Path) -> None:
    run(small_npz, tmp_path / "in parts", 5)
    kept = (tmp_path / "in parts" / BACKBONE).read_bytes()
    in_parts = run(small_npz, tmp_path / "in parts", 6)
    assert (tmp_path / "in parts" / BACKBONE).read_bytes() == kept
    assert in_parts == run(small_npz, tmp_path / "at once", 6)
    for record in in_parts.values():
        assert (record.scoring, record.epochs, record.final_epochs) == ("warm_start", 1, 2)
        assert record.val_loss is not None
