"""The short form of the fault campaign (`benchmarks/faults.py`).

Whatever dies, nothing finished is lost, and nothing runs twice.
"""

import json
from pathlib import Path

import pytest

from bam_search.search.store import read_records
from benchmarks import faults

TRIALS = 4
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


def test_whatever_dies_the_study_ends_as_if_nothing_had(small_npz: Path, postgresql: str) -> None:
    data = str(small_npz)
    expected = faults.undisturbed(data, TRIALS, *BRIEFLY)
    for seed, storage in ((2, None), (1, postgresql)):
        found = faults.campaign(
            data, expected, 1, TRIALS, *BRIEFLY, seed=seed, storage=storage, longest=14
        )
        assert found["kills"] == 1
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
