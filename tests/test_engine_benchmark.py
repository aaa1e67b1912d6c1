"""The engine's benchmark measures what it says.

Both arms learn on the same images, and every rung of the ladder trains.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from bam_search.model.build import build, sites_of
from bam_search.score.device import choose
from bam_search.search.study import load_study
from bam_search.space.search_space import load_space
from bam_search.tasks.classification.synthetic import generate_images
from benchmarks import arms, engine, ladder, usual_loop


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> arms.Setting:
    path = tmp_path_factory.mktemp("data") / "cifar100.npz"
    x_train, y_train, x_test, y_test = generate_images(1000, 200)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return arms.Setting(str(path), "cpu", "small", 1000, 0)


@pytest.mark.parametrize("name", ladder.LADDER["cpu"])
def test_every_rung_changes_the_weights(setting: arms.Setting, name: str) -> None:
    space = load_space("small")
    net = build(space, sites_of(space), "none", 0)
    before = net.get_submodule("fc").weight.clone()  # type: ignore[operator]
    images = setting.split().fit.first(200)
    next(
        ladder.trained(
            net, ladder.LADDER["cpu"][name], images, setting.study().recipe, choose("cpu")
        )
    )
    assert not before.equal(net.get_submodule("fc").weight)  # type: ignore[arg-type]


def test_the_usual_loop_learns_and_measures(setting: arms.Setting) -> None:
    parts, recipe = setting.split(), setting.study().recipe
    net = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 100))
    error = usual_loop.train(net, parts.fit, parts.fit, recipe, "cpu", workers=0)
    assert 0 < error < 99.5


def test_a_training_image_moves_what_its_convolutions_read_and_write() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    assert list(ladder.numbers(net)) == [3 * 32 * 32 + 8 * 32 * 32, 8 + 5]


@pytest.mark.slow
def test_a_further_placement_and_the_goal_are_trained_by_the_engine(setting: arms.Setting) -> None:
    seconds = engine.further(setting)
    assert [len(times) for times in seconds.values()] == [3]
    found = engine.goal(setting, epochs=1, seeds=1)
    assert found["n"] == 1
    assert 50 < found["mean"] <= 100


def test_on_a_gpu_the_best_number_of_processes_is_taken() -> None:
    found = {name: {"median": 1.0} for name in (*ladder.LADDER["cuda"], *ladder.TOGETHER["cuda"])}
    assert ladder.best(found, "cuda") == ladder.Best(1.0, 1, mps=False)
    found["the engine, 4 processes on one GPU"] = {"median": 3.0}
    found["the engine, blocks compiled"] = {"median": 9.0}  # not what a study does by default
    assert ladder.best(found, "cuda") == ladder.Best(3.0, 4, mps=False)
    found["the engine, 8 processes on one GPU, under MPS"] = {"median": 5.0}
    assert ladder.best(found, "cuda") == ladder.Best(5.0, 8, mps=True)


def test_the_candidates_of_a_net_that_is_fastest_under_mps_are_measured_under_mps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def service() -> Iterator[None]:
        said.append("served")
        yield
        said.append("ended")

    monkeypatch.setattr(engine, "service", service)
    monkeypatch.setattr(
        engine,
        "candidates",
        lambda setting, _rounds: said.append(f"{setting.processes} processes") or {},
    )
    known = {"usual_loop_workers": 2, "processes": 8, "mps": True}
    engine.of_net("candidates", arms.Setting("auto", "cuda", "small", 1000, 0), 1, known)
    assert said == ["served", "8 processes", "ended"]
    said.clear()
    engine.of_net(
        "candidates", arms.Setting("auto", "cuda", "small", 1000, 0), 1, {**known, "mps": False}
    )
    assert said == ["8 processes"]


def test_the_goal_trains_by_the_studys_own_recipe_and_both_arms_by_the_usual_loops_batch(
    setting: arms.Setting,
) -> None:
    own = load_study("placement", choose("cpu"), {}, []).recipe.for_size((32, 32))
    assert setting.study(own_batch=True).recipe == own
    assert setting.study().recipe == replace(own, batch=usual_loop.BATCH)


@pytest.mark.slow
def test_what_is_around_training_is_measured_without_training() -> None:
    found = engine.around(records=30)
    assert found["ask_count_tell_write_ms"]["n"] == 19
    assert json.dumps(found)
