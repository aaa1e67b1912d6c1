"""The table of our engine beside torchvision's loop, on a folder of a few pictures."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import own_images


def test_both_train_on_a_folder_and_a_table_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for part, name, number in np.ndindex(2, 2, 4):
        path = tmp_path / ("train", "val")[part] / "ab"[name] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (150, 170, 3), dtype=np.uint8)).save(path)
    monkeypatch.setenv("BAM_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_images, "RECIPE", replace(own_images.RECIPE, epochs=1, batch=4))
    out = tmp_path / "table.csv"
    for seeds in (["0"], ["0", "1"]):
        monkeypatch.setattr(
            "sys.argv", ["own_images", str(tmp_path), "--out", str(out), "--seeds", *seeds]
        )
        own_images.main()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    asked = [(who, seed) for seed in "01" for who in ("engine", "loop")]
    assert [(row["who"], row["seed"]) for row in rows] == asked
    assert all(0 <= float(row["error"]) <= 100 for row in rows)
    assert "standard error" in capsys.readouterr().out.splitlines()[-1]
