"""A whole study whose candidates start from a trained backbone."""

from pathlib import Path
from typing import Any

import pytest

from bam_search import run_study
from bam_search.search.warm_start import BACKBONE
from bam_search.study.record import main_records


def run(data: Path, out: Path, trials: int) -> list[tuple[object, ...]]:
    """What each candidate is, and what its training in the search came to."""
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
    main = main_records(result.records)
    assert {(r.scoring, r.epochs, r.final_epochs) for r in main} == {("warm_start", 1, 2)}
    assert all(record.val_loss is not None for record in main)
    assert any(record.is_tested for record in main)
    return [(r.number, r.placement, r.val_metric, r.val_loss, r.train_losses) for r in main]


@pytest.mark.slow
def test_a_study_goes_on_from_the_backbone_that_it_has(small_npz: Path, tmp_path: Path) -> None:
    run(small_npz, tmp_path / "in parts", 5)
    kept = (tmp_path / "in parts" / BACKBONE).read_bytes()
    in_parts = run(small_npz, tmp_path / "in parts", 6)
    assert (tmp_path / "in parts" / BACKBONE).read_bytes() == kept
    assert in_parts == run(small_npz, tmp_path / "at once", 6)
