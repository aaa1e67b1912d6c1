"""The cheap scores of placements, and how they are judged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import rung_agreement, rungs

PLACEMENTS = ["none", "layer3=se", "layer1=se layer3=se"]


@pytest.mark.slow
def test_every_rung_scores_every_placement(
    tmp_path: Path, small_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HELD_OUT": 100, "BACKBONE_EPOCHS": 1, "SUPERNET_EPOCHS": 1}.items():
        monkeypatch.setattr(rungs, name, value)
    monkeypatch.setattr(rungs, "PROBE_BATCHES", 1)
    out = tmp_path / "rungs.csv"
    words = ["rungs", "--data", str(small_npz), "--images", "128", "--out", str(out), "--seeds"]
    for seeds in (["0"], ["0", "1"], ["0", "1"]):
        monkeypatch.setattr("sys.argv", [*words, *seeds, "--placements", *PLACEMENTS])
        rungs.main()
    rows = pd.read_csv(out, keep_default_na=False)
    assert not rows.duplicated([*rungs.CONDITIONS, "predictor"]).any()
    scored = rows[rows.placement != rungs.ALL].groupby(["rung", "predictor", "seed"]).size()
    assert set(scored) == {len(PLACEMENTS)}
    assert {rung for rung, _, _ in scored.index} == set(rungs.RUNGS)
    bare = rows[(rows.rung == "gates") & (rows.placement == "none")]
    assert set(bare.value.astype(float)) == {0.0}


def test_tau_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 20, 8)).astype(float)
    expected = [stats.kendalltau(one, other).statistic for one, other in zip(x, y, strict=True)]
    assert np.allclose(rung_agreement.tau(x, y), expected)
    assert np.allclose(rung_agreement.pearson(x, y)[0], stats.pearsonr(x[0], y[0]).statistic)


def test_a_score_that_counts_parameters_tells_nothing_beside_them() -> None:
    rng = np.random.default_rng(0)
    parameters, truth = rng.normal(size=(2, 1, 200))
    seen = parameters + 0.1 * rng.normal(size=(1, 200))
    both = parameters + truth
    assert abs(rung_agreement.partial_tau(seen, both, parameters)[0]) < 0.1
    assert rung_agreement.partial_tau(truth, both, parameters)[0] > 0.5


def test_the_best_three_are_those_of_the_lowest_scores() -> None:
    short = np.array([[3.0, 1.0, 2.0, 4.0, 5.0]])
    long = np.array([[10.0, 20.0, 30.0, 90.0, 100.0]])
    assert rung_agreement.best_of(short, long).tolist() == [20.0 - 50.0]


def test_seconds_are_a_candidates_own_and_its_share() -> None:
    columns = ["rung", "placement", "seed", "cpu_seconds"]
    table = [("start", rungs.ALL, 0, 24.0), ("warm", "none", 0, 7.0), ("warm", "layer1=se", 0, 9.0)]
    rows = pd.DataFrame(table, columns=columns)
    assert rung_agreement.cpu_seconds(rows, "warm") == 8.0 + 24.0 / rung_agreement.CANDIDATES
