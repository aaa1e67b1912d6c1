"""Whatever dies, nothing finished is lost, and nothing runs twice.

`benchmarks/faults.py` tries the same at random instants.
"""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import run_command
from held import held_space

from bam_search.search.storage import StudyStorage
from bam_search.search.store import read_records
from benchmarks import faults

TRIALS = 6
BRIEFLY = (
    "--set",
    "random_baseline=false",
    "--set",
    "finalists={seeds=1, most=1, leave_one_out=false}",
    "--set",
    "rungs.epochs=[]",
    "--epochs",
    "1",
)


@pytest.mark.parametrize(
    ("kind", "workers"), [("embedded", 2), pytest.param("postgresql", 1, marks=pytest.mark.slow)]
)
def test_a_study_whose_driver_is_killed_goes_on_and_ends_as_if_nothing_had_been(
    kind: str,
    workers: int,
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    storage = request.getfixturevalue("postgresql") if kind == "postgresql" else None
    more = (*BRIEFLY, "--space", held_space(tmp_path))
    there = ("--storage", storage, "--name", "killed") if storage else ()
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    monkeypatch.setattr(signal, "signal", lambda *_args: None)

    def here(out: Path, *options: str) -> None:
        words = faults.command(str(small_npz), out, TRIALS, *more, *options, "--workers", "1")
        assert run_command(monkeypatch, *words[3:]) == 0

    here(whole)
    (tmp_path / "hold").touch()
    options = (*more, *there, "--workers", str(workers))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # one thread a training, as everywhere here
    life = faults.Life(faults.command(str(small_npz), folder, TRIALS, *options))
    os.sched_setaffinity(0, cores)
    while len(life.told) < 2 * workers and life.process.poll() is None:
        time.sleep(0.05)
    trained_by = life.workers()
    life.process.kill()
    assert life.wait() == -signal.SIGKILL, "".join(life.other)
    (tmp_path / "hold").unlink()
    place = StudyStorage.of(folder, storage, "killed")
    before = faults.seen(folder, place)
    assert sum(key.startswith("#") for key in before) == 2 * workers

    here(folder, *there)
    after = faults.seen(folder, place)
    assert before.items() <= after.items()  # the same seconds, too: none was trained again
    assert after["twice"] == (0,)
    assert list(map(faults.timeless, read_records(folder))) == [
        faults.timeless(record) for record in read_records(whole)
    ]
    assert len(trained_by) == (workers if workers > 1 else 0)
    assert not any(Path(f"/proc/{pid}").exists() for pid in trained_by)


@pytest.mark.slow
def test_whatever_dies_at_random_instants_the_study_ends_as_if_nothing_had(
    small_npz: Path, postgresql: str
) -> None:
    data = str(small_npz)
    expected = faults.undisturbed(data, TRIALS, *BRIEFLY)
    for seed, storage in ((2, None), (1, postgresql)):
        found = faults.campaign(data, expected, 2, TRIALS, *BRIEFLY, seed=seed, storage=storage)
        assert found["kills"] == 2
        assert [found[key] for key in ("lost", "repeated", "orphans", "unequal")] == [0, 0, 0, 0], (
            found
        )


@pytest.mark.slow
def test_a_ray_cluster_that_loses_a_node_ends_the_study_as_one_that_does_not(
    small_npz: Path,
) -> None:
    pytest.importorskip("ray")
    expected = faults.undisturbed(str(small_npz), TRIALS, *BRIEFLY)
    assert faults.ray_loses_a_node(str(small_npz), expected, TRIALS, *BRIEFLY) == {
        "ray_node_lost_records_identical": True
    }


def test_broken_input_is_read_or_refused() -> None:
    found = faults.mutations(500, seed=1)
    assert found["accepted"] > 20
    assert found["refused"] > 20
    assert (found["tracebacks"], found["hangs"]) == (0, 0), found["examples"][:3]


@pytest.mark.slow
def test_the_figures_of_a_large_study_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faults.results_per_s(30)["results_per_s"] > 1
    faults.filled(tmp_path, 60)
    faults.reopened(str(tmp_path), 60)
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["s"] < 100
    assert found["mib"] > 100
    assert len(read_records(tmp_path)) == 61  # the next candidate was asked for
