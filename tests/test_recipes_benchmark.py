"""The tables of short trainings: the images that score, and how the tables are compared."""

from pathlib import Path

import numpy as np
import pytest

from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.task import Dataset
from benchmarks import agreement, recipes
from benchmarks.placement_table import held_apart


def test_the_images_that_score_are_the_same_for_any_number_that_train() -> None:
    x, y, _, _ = generate_images(700, 0)
    data = Dataset("generated", "", Images(x, y), Images(x[:0], y[:0]))
    few, many = held_apart(data, 200, 150), held_apart(data, 400, 150)
    assert np.array_equal(few.validation.x, many.validation.x)
    assert np.array_equal(few.fit.x, many.fit.x[:200])
    apart = {image.tobytes() for image in few.validation.x}
    assert len(apart) == 150
    assert not apart & {image.tobytes() for image in many.fit.x}


def test_a_table_is_gone_on_with(
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recipes, "HELD_OUT", 100)
    out = tmp_path / "table.csv"
    words = ["recipes", "--data", str(small_npz), "--images", "128", "--epochs", "1"]
    words += ["--out", str(out), "--set", "recipe.lr=0.05", "--placements", "none", "layer3=se"]
    for seeds in (["0"], ["0", "1"], ["0", "1"]):
        monkeypatch.setattr("sys.argv", [*words, "--seeds", *seeds])
        recipes.main()
    rows = agreement.rows_of(out)
    assert [(row["placement"], row["seed"]) for row in rows] == [
        ("none", "0"),
        ("layer3=se", "0"),
        ("none", "1"),
        ("layer3=se", "1"),
    ]
    assert {row["set"] for row in rows} == {"recipe.lr=0.05"}
    assert all(0 < float(row["error"]) <= 100 for row in rows)


def test_agreement_is_of_the_means_over_common_seeds() -> None:
    values = {"a": {"0": 1.0, "1": 3.0}, "b": {"0": 2.0, "1": 4.0, "2": 90.0}}
    short = agreement.short_draws(values, ["a", "b"], np.random.default_rng(0))
    assert short[0].tolist() == [2.0, 3.0]  # seed 2 is of one placement only
    assert np.allclose(short[:, 1] - short[:, 0], 1)  # drawn for both together
    long = np.tile([5.0, 6.0], (len(short), 1))
    assert agreement.agreement(short, long).startswith("tau 1.00 (1.00 to 1.00), r 1.00")
    assert agreement.agreement(short, -long).startswith("tau -1.00")
