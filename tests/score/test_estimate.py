"""How fast a device trains, measured for a moment."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from bam_search.model.build import sites_of
from bam_search.score.device import choose
from bam_search.score.estimate import Probe, Speed, _most_samples, speeds
from bam_search.score.muon import Muon
from bam_search.score.step import TrainingStep
from bam_search.space.search_space import load_space
from bam_search.tasks.recipe import Recipe

SITES = sites_of(load_space("small"))


def probe(text: str, recipe: Recipe, at_least: float) -> Probe:
    return Probe("classification", "small", SITES, text, recipe, choose("cpu"), at_least)


def test_a_speed_adds_what_each_training_takes_to_begin_and_what_each_image_takes() -> None:
    assert Speed(start=2.0, per_sample=0.001).seconds(10, 50_000) == pytest.approx(70)


def test_one_worker_is_this_process_whose_threads_are_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    take = TrainingStep.step

    def counted(step: TrainingStep) -> None:
        taken.append(torch.get_num_threads())
        take(step)

    monkeypatch.setattr(TrainingStep, "step", counted)
    before = torch.get_num_threads()
    probes = [probe(text, Recipe(batch=16), 0.1) for text in ("none", "bottleneck=bam")]
    found = speeds(probes, workers=1, threads=1)
    assert len(found.of_probes) == 2
    assert all(speed.per_sample > 0 and speed.start >= 0 for speed in found.of_probes)
    assert found.process == 0
    assert set(taken) == {1}
    assert torch.get_num_threads() == before


def test_workers_train_beside_one_another_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bam_search.score.estimate.cores", lambda: 2)
    probes = [probe(text, Recipe(batch=16), 0.1) for text in ("none", "bottleneck=bam")]
    found = speeds(probes, workers=3, threads=1)
    assert len(found.of_probes) == 2
    assert all(speed.per_sample > 0 and speed.start >= 0 for speed in found.of_probes)
    assert found.process > 0


def test_a_batch_of_a_large_recipe_is_small_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    first = TrainingStep.first
    monkeypatch.setattr(
        TrainingStep,
        "first",
        lambda model, context, recipe, start: (
            sizes.append(len(context.data)) or first(model, context, recipe, start=start)
        ),
    )
    speeds(
        [probe("none", Recipe(batch=4096), 0.0)],
        workers=1,
        threads=1,
    )
    assert sizes == [64]


def test_it_trains_with_the_recipes_optimizer_whose_time_is_shared_by_a_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def slow_step(_muon: Muon) -> None:
        clock[0] += 10.0

    def pass_over(step: TrainingStep) -> None:
        clock[0] += step.batch
        step.optimizer.step()

    monkeypatch.setattr(Muon, "step", slow_step)
    monkeypatch.setattr(TrainingStep, "step", pass_over)
    recipe = Recipe(batch=100, optimizer="muon")
    (speed,) = speeds([probe("none", recipe, 0.0)], workers=1, threads=1).of_probes
    assert speed.per_sample * recipe.batch == pytest.approx(100 + 10)


@pytest.mark.usefixtures("own_forks")
def test_an_interruption_while_it_measures_is_the_drivers_to_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bam_search.score.estimate.cores", lambda: 2)
    ended, interrupted = threading.Event(), set[int]()

    def interrupt() -> None:
        while len(interrupted) < 2 and not ended.wait(0.01):
            pids = {process.pid or 0 for process in multiprocessing.active_children()}
            for pid in pids - interrupted:
                os.kill(pid, signal.SIGINT)
            interrupted.update(pids)

    thread = threading.Thread(target=interrupt)
    thread.start()
    found = speeds([probe("none", Recipe(batch=16), 0.1)], workers=2, threads=1)
    ended.set()
    thread.join()
    assert len(found.of_probes) == 1
    assert len(interrupted) == 2


def test_on_a_gpu_it_tells_how_long_a_process_takes_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    def measure(_probe: Probe) -> Speed:
        clock[0] += 3.0
        return Speed(0.5, 0.001)

    def thread(workers: int, *_how: object) -> ThreadPoolExecutor:
        clock[0] += 20.0
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("bam_search.score.estimate.measure", measure)
    monkeypatch.setattr("bam_search.score.estimate.settle", lambda: None)
    monkeypatch.setattr("bam_search.score.estimate.ProcessPoolExecutor", thread)
    gpu = replace(choose("cpu"), type="cuda")
    probes = [replace(probe(text, Recipe(), 0.1), device=gpu) for text in ("none", "layer1=bam")]
    found = speeds(probes, workers=2, threads=1)
    assert found.of_probes == (Speed(0.5, 0.001),) * 2
    # The first measurement, of a process that has yet to load its libraries, counts as its start.
    assert found.process == 23.0


def test_a_placement_that_cannot_be_built_is_its_own_error() -> None:
    with pytest.raises(Exception, match="no site is named 'layer9'"):
        speeds(
            [
                Probe(
                    "classification",
                    "small",
                    SITES,
                    "layer9=bam",
                    Recipe(batch=16),
                    choose("cpu"),
                    0.1,
                )
            ],
            workers=1,
            threads=1,
        )


def test_fewer_large_samples_are_measured_on_a_cpu() -> None:
    assert _most_samples("cpu", (3, 32, 32)) == _most_samples("cpu", (1, 400)) == 64
    assert _most_samples("cpu", (3, 128, 128)) == 16
    assert _most_samples("cpu", (3, 224, 224)) == 5
    assert _most_samples("cpu", (3, 512, 512)) == 4
    assert _most_samples("cuda", (3, 224, 224)) == 65_536
