"""The committed figures on predicted latency follow from their own placements."""

import json
from pathlib import Path

import pytest

from bam_search.score.device import choose
from bam_search.space.search_space import load_space
from bam_search.study.record import LATENCIES
from benchmarks.latency import settings_on, summary

FOUND = json.loads(Path("benchmarks/results/latency-cpu.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", LATENCIES)
def test_the_summary_follows_from_the_placements(key: str) -> None:
    assert FOUND[key] == pytest.approx(summary(FOUND["placements"], key))
    assert FOUND[key]["n"] == len(FOUND["placements"]) == 20


@pytest.mark.parametrize("key", LATENCIES)
def test_increments_rank_better_than_any_count(key: str) -> None:
    counts = [
        FOUND[key][name] for name in FOUND[key] if name.startswith("tau_of_") and "rep" not in name
    ]
    assert len(counts) == 4
    assert FOUND[key]["tau"] > max(counts) + 0.2


def test_what_is_measured_is_what_a_study_measures() -> None:
    settings = settings_on(choose("cpu"), load_space("small"))
    assert set(settings) == set(LATENCIES)
    assert (settings["latency_overhead"].batch, settings["deployed_latency_overhead"].batch) == (
        32,
        1,
    )
