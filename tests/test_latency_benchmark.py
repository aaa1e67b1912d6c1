"""The committed figures on predicted latency follow from their own placements."""

import json
from pathlib import Path
from typing import Any

import pytest

from bam_search.score.device import choose
from bam_search.space.search_space import load_space
from bam_search.study.record import LATENCIES
from benchmarks.latency import settings_on, summary

DEVICES = {"cpu": 20, "gpu": 10}
"""How many placements were measured on each."""


def found_on(device: str) -> dict[str, Any]:
    path = Path(f"benchmarks/results/latency-{device}.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("key", LATENCIES)
@pytest.mark.parametrize("device", DEVICES)
def test_the_summary_follows_from_the_placements(device: str, key: str) -> None:
    found = found_on(device)
    assert found[key] == pytest.approx(summary(found["placements"], key))
    assert found[key]["n"] == len(found["placements"]) == DEVICES[device]


@pytest.mark.parametrize("key", LATENCIES)
@pytest.mark.parametrize("device", DEVICES)
def test_increments_rank_better_than_any_count(device: str, key: str) -> None:
    of_key = found_on(device)[key]
    counts = [of_key[name] for name in of_key if name.startswith("tau_of_") and "rep" not in name]
    assert len(counts) == 4
    assert of_key["tau"] > max(counts) + 0.2


def test_what_is_measured_is_what_a_study_measures() -> None:
    settings = settings_on(choose("cpu"), load_space("small"))
    assert set(settings) == set(LATENCIES)
    assert [setting.batch for setting in settings.values()] == [32, 1]
