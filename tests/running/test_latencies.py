"""A study that searches by latency: what it measures, keeps, and uses again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bam_search import run_study
from bam_search.errors import RunError, UserError
from bam_search.model.attention import canonical
from bam_search.model.load import Inputs, load_once
from bam_search.model.start import SCRATCH
from bam_search.processes import context_of
from bam_search.running import runner
from bam_search.running.latency import Models, _apart
from bam_search.running.prepare import ResolvedRun
from bam_search.score.device import Device
from bam_search.score.latency import Latency
from bam_search.score.latency_table import LatencyTable
from bam_search.space.sites import Sites
from bam_search.space.user_file import code_of
from bam_search.study.record import LATENCIES, Record
from bam_search.tasks.load_task import load_task

TINY: Mapping[str, Any] = {
    "trials": 6,
    "startup": 1,
    "workers": 1,
    "search.modules": {"se": {"r": [4, 8]}},
    "objectives": ["metric", "deployed_latency_overhead"],
    "max_deployed_latency_overhead": 2.0,
    "recommend.by": ["latency_overhead"],
    "random_baseline": False,
    "data.images": 300,
    "data.validation": 0.34,
    "recipe": {"epochs": 1, "batch": 60},
    "finalists": {"seeds": 1, "most": 1, "leave_one_out": False},
}


def one_percent_each(ready: ResolvedRun) -> LatencyTable:
    """Each choice at each site of the space or a reference adds one percent."""
    space = ready.choice_space
    pairs = [(site, choice) for site in space.sites for choice in space.choices(site)]
    for reference in ready.references.values():
        pairs += reference.choices
    added: dict[str, dict[str, float]] = {}
    for name, choice in pairs:
        site = ready.sites.by_name[name]
        text = canonical(choice, site.channels, site.side, site.dims).text
        added.setdefault(name, {})[text] = 1.0
    return LatencyTable("a CPU", {"deployed_latency_overhead": added}, {}, 4.2)


def by_number(ready: ResolvedRun, records: list[Record]) -> list[dict[str, Latency]]:
    """The later a candidate, the faster it is."""
    del ready
    ratios = [2 - record.number / 10 for record in records]
    return [dict.fromkeys(LATENCIES, Latency(r, r - 0.1, r + 0.1, 30, 32)) for r in ratios]


def test_the_death_of_the_process_that_times_models_is_a_breakdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As for a GPU, but with a process that starts at once.
    monkeypatch.setattr("bam_search.running.latency.context_of", lambda _kind: context_of("cpu"))
    with pytest.raises(RunError, match="the latency cannot be measured"):
        _apart(Device("cuda", "a GPU", "a test", True), os._exit, 1)


NET = "from torch import nn\ndef net(classes):\n    return nn.Sequential(nn.Conv2d(3, {}, 3))\n"


def test_a_study_keeps_the_network_that_it_began_with(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(NET.format(4))
    task = load_task("classification").name
    code = code_of([str(path)])
    of = (task, f"{path}:net", Sites(()), Inputs((3, 32, 32), 10), {}, SCRATCH)
    before = Models(*of, code).make("none")
    path.write_text(NET.format(8))
    again = Models(*of, code).make("none")
    assert [p.shape for p in again.parameters()] == [p.shape for p in before.parameters()]
    load_once.cache_clear()  # a process that starts now
    with pytest.raises(UserError, match=r"net.py is not the file that the study began with"):
        Models(*of, code).make("none")
    changed = Models(*of, code_of([str(path)])).make("none")
    assert [len(p) for p in changed.parameters()] == [8, 8]


@pytest.mark.slow
def test_increments_are_measured_once_and_limit_what_is_trained(
    small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[ResolvedRun] = []

    def counted(ready: ResolvedRun) -> LatencyTable:
        measured.append(ready)
        return one_percent_each(ready)

    monkeypatch.setattr(runner, "increments", counted)
    monkeypatch.setattr(runner, "measured", by_number)

    def run(trials: int, folder: str) -> tuple[Record, ...]:
        wanted = {**TINY, "trials": trials}
        out = tmp_path / folder
        return run_study(
            "placement", data=small_npz, device="cpu", out=out, overrides=wanted
        ).records

    run(5, "cut")
    continued = run(7, "cut")
    assert len(measured) == 1
    at_once = run(7, "whole")
    assert [record.placement for record in continued] == [record.placement for record in at_once]
    searched = [record for record in continued if record.is_searched]
    assert len(searched) == 3
    for record in searched:
        sites = len(record.parsed_placement.choices)
        assert record.predicted_deployed_latency_overhead == sites <= 2
        assert record.predicted_latency_overhead is None
    # A reference may be above the limit.
    assert continued[2].predicted_deployed_latency_overhead == 3
    for record in continued:
        if record.is_tested:
            assert record.latency_overhead == pytest.approx(100 - 10 * record.number)
            assert len(record.deployed_latency_interval) == 2
