"""The engine's time to the usual loop's error: the ratio, from a table."""

import csv
from pathlib import Path

import pytest

from benchmarks import race


def table(path: Path, rows: list[tuple[str, int, int, float, float]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([race.COLUMNS, *rows])
    return path


def test_the_time_is_interpolated_between_trainings(tmp_path: Path) -> None:
    usual = [(race.USUAL, 1000, seed, 80.0, 100.0) for seed in (0, 1)]
    fast = [("engine", 500, seed, 85.0, 10.0) for seed in (0, 1)]
    fast += [("engine", 1000, seed, 75.0, 40.0) for seed in (0, 1)]
    never = [("engine, Muon", 1000, seed, 81.0, 40.0) for seed in (0, 1)]
    found = race.figures(table(tmp_path / "race.csv", [*usual, *fast, *never]))
    # Half way in error, so half way in the logarithm of 10 and 40 s.
    assert found["engine"]["ratio"] == pytest.approx(0.2)
    assert found["engine"]["low"] == found["engine"]["high"] == pytest.approx(0.2)
    assert found["engine, Muon"]["ratio"] == float("inf")
    assert found[race.USUAL] == {"error": 80.0, "cpu_seconds": 100.0}
