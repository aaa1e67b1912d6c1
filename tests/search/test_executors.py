"""Workers that die, hang, or cannot start: the others go on, and a job is begun again."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bam_search.errors import RunError, UserError
from bam_search.model.build import sites_of
from bam_search.model.load import load
from bam_search.score.device import Device, choose
from bam_search.score.evaluate import Experiment, Job, evaluate
from bam_search.search import executors
from bam_search.search.executors import local
from bam_search.search.on_ray import on_ray
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Split

FRAIL = """
import os, pathlib, signal, time
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1))
        self.two = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        if self.training:
            fate = hasattr(self.one, "attention") + 2 * hasattr(self.two, "attention")
            once = pathlib.Path(__file__).with_name("died")
            if fate == 1 and not once.exists():  # attention at one: dies the first time
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if fate == 2:  # attention at two: always dies
                os._exit(7)
            if fate == 3:  # at both: hangs
                time.sleep(1000)
        return self.head(self.two(self.one(x)).mean((2, 3)))
"""


ONE_JOB_EACH = """
import os
from torch import nn
from bam_search.score.cuda_graphs import NotOneGraph

class Net(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(7200, num_classes))

    def forward(self, x):
        if self.training:
            raise NotOneGraph(f"in process {os.getpid()}")
        return super().forward(x)
"""


@pytest.fixture(scope="module")
def parts() -> Split:
    x, y, x_test, y_test = generate_images(400, 100)
    return sources.task().split(
        Dataset("generated", "", Images(x, y), Images(x_test, y_test)),
        SplitSizes.of(len(x), None, 0.25),
        seed=0,
    )


@pytest.fixture
def task(tmp_path: Path, parts: Split) -> Experiment:
    (tmp_path / "frail.py").write_text(FRAIL)
    name = f"{tmp_path / 'frail.py'}:Net"
    return Experiment(
        "classification",
        name,
        sites_of(load(name, CIFAR_INPUTS)),
        parts,
        Recipe(epochs=1, batch=100),
        choose("cpu"),
        1,
    )


@pytest.mark.slow
def test_a_process_that_should_train_no_more_is_replaced_and_its_result_kept(
    tmp_path: Path, parts: Split
) -> None:
    (tmp_path / "discard_process.py").write_text(ONE_JOB_EACH)
    name = f"{tmp_path / 'discard_process.py'}:Net"
    task = Experiment(
        "classification",
        name,
        sites_of(load(name, CIFAR_INPUTS)),
        parts,
        Recipe(epochs=1, batch=100),
        choose("cpu"),
        1,
    )
    with local(task, 2, "") as submit:
        failures = [
            future.result(100).failure
            for future in [submit(Job("none", seed, 1)) for seed in range(3)]
        ]
    said = [failure.splitlines()[-1] for failure in failures]
    assert all("NotOneGraph: in process" in line for line in said)
    assert len(set(said)) == 3  # more than there are workers


def test_a_worker_that_dies_or_hangs_takes_nobody_along(
    task: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "GRACE", 0.0)
    limited = replace(task, recipe=replace(task.recipe, seconds=5.0))
    jobs = [
        Job(text, 0, 1)
        for text in ("one=se(r=2)", "one=se(r=2) two=se(r=2)", "two=se(r=2)", "none")
    ]
    with local(limited, 2, "") as submit:
        once, hangs, always, plain = (submit(job).result for job in jobs)
        assert once(100).score is not None
        assert plain(100).score is not None
        assert (
            always(100).failure
            == "WorkerDied: 3 worker processes that trained this candidate ended: "
            "ended with exit code 7"
        )
        assert hangs(100).failure.startswith("TooSlow: the worker gave no answer")
        (Path(task.space.partition(":")[0]).parent / "died").touch()
        mine = evaluate(task, jobs[0]).score
        theirs = once(0).score
        assert mine is not None
        assert theirs is not None
        assert mine.per_epoch == theirs.per_epoch  # begun again, it is the same training


def test_signals_are_the_drivers_to_answer_and_leaving_ends_workers_that_train(
    task: Experiment,
) -> None:
    with local(task, 2, "") as submit:
        submit(Job("one=se(r=2) two=se(r=2)", 0, 1))
        assert submit(Job("none", 0, 1)).result(100).score is not None
        children = _children()
        assert len(children) == 2
        for child in children:
            os.kill(child, signal.SIGINT)
            os.kill(child, signal.SIGTERM)
        assert submit(Job("none", 1, 1)).result(100).score is not None
        assert _children() == children
    assert not set(children) & set(_children())


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux alone")
def test_workers_end_and_others_start_when_what_they_are_forks_of_dies(
    task: Experiment,
) -> None:
    with local(task, 2, "") as submit:
        assert submit(Job("none", 0, 1)).result(100).score is not None
        (child,) = _children()
        forked_by = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(forked_by, signal.SIGKILL)
        # By the other worker, which must start, and by this one as long as it lives.
        jobs = [submit(Job("none", seed, 1)) for seed in range(1, 9)]
        assert all(job.result(100).score is not None for job in jobs)
        while Path(f"/proc/{child}").exists():
            time.sleep(0.01)
        jobs = [submit(Job("none", seed, 1)) for seed in range(9, 17)]
        assert all(job.result(100).score is not None for job in jobs)
        assert len(_children()) == 2
        assert child not in _children()


def _children() -> list[int]:
    return sorted(process.pid or 0 for process in multiprocessing.active_children())


def test_a_worker_that_cannot_start_is_a_breakdown_and_no_result(
    task: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "ATTEMPTS", 1)
    lost = Device("cuda", "a GPU that fell off", "", True)
    with (
        local(replace(task, device=lost), 1, "") as submit,
        pytest.raises(RunError, match="a worker process cannot start: "),
    ):
        submit(Job("none", 0, 1)).result(100)


@pytest.fixture
def lost(task: Experiment, tmp_path: Path) -> Experiment:
    """Its images are in a file that workers do not find."""
    path = tmp_path / "x.npy"
    np.save(path, task.split.fit.x)
    images = Images(np.load(path, mmap_mode="r"), task.split.fit.y)
    path.unlink()
    return replace(task, split=replace(task.split, fit=images))


def test_a_worker_that_does_not_find_the_images_says_so(
    lost: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "ATTEMPTS", 1)
    with (
        local(lost, 2, "") as submit,
        pytest.raises(RunError, match=r"x\.npy is not there, .*BAM_SEARCH_CACHE"),
    ):
        submit(Job("none", 0, 1)).result(100)


@pytest.mark.slow
def test_a_node_that_does_not_find_the_images_says_so(lost: Experiment) -> None:
    pytest.importorskip("ray")
    with (
        on_ray(lost, 1, "local") as submit,
        pytest.raises(RunError, match=r"x\.npy is not there"),
    ):
        submit(Job("none", 0, 1)).result(100)


def test_a_cluster_that_is_not_there_is_one_sentence(task: Experiment) -> None:
    pytest.importorskip("ray")
    with (
        pytest.raises(UserError, match=r"--address '127\.0\.0\.1:1'"),
        on_ray(task, 2, "127.0.0.1:1"),
    ):
        raise AssertionError("there is no cluster")


@pytest.fixture(autouse=True)
def _no_children() -> Iterator[None]:
    yield
    assert not _children()
