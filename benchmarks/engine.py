"""The trial engine against the usual loop (`benchmarks/usual_loop.py`).

It measures candidates an hour, images a second, and what each step adds.

    python -m benchmarks.engine --data cifar100.npz [--device cpu] [--images 10000] [--rounds 3]
        [--nets small] [--parts ladder bound ...] [--out FILE.json]

Candidates: both arms train the references of the placement study with its recipe on the same images
and the same seeds, as many trainings as that study has candidates, each arm a fresh process whose
whole time counts, the arms in turn, other seeds each round; the usual loop has as many DataLoader
workers as make it fastest here, and the engine as many processes on one GPU. Ladder: from the usual
loop to the engine, one change at a time, images a second of training alone, in turn; on a GPU with
and without a CUDA graph, with compiled blocks, and with several processes. Further placement: the
seconds until another placement of a known backbone trains. Bound: the multiply-adds and the least
bytes of a training image over the rates that a matrix product and a copy reach in the same run.
Around: what a candidate costs beside its training, when 1,000 records are told. Goal, on a GPU: the
test error of ResNet18 after 30 epochs.

FILE is written after each part, and what other calls have put there stays: a machine that is lent
for minutes can measure part by part.
"""

import argparse
import contextlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from operator import sub, truediv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.processes import cores
from bam_search.score.cuda_graphs import EAGER
from bam_search.score.device import choose, claim, threads_each
from bam_search.score.evaluate import Experiment, Job, Result, Score, evaluate
from bam_search.search.loop import search
from bam_search.search.store import open_store
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from benchmarks.arms import ARMS, Setting
from benchmarks.invented import at_once, invented
from benchmarks.ladder import IMAGES, Rung, alone, best, bound, environment, ladder, service, speed
from benchmarks.results import keep, say, spread

NETS = {"cpu": ("small",), "cuda": ("small", "resnet18", "resnet50")}


def with_best_workers(setting: Setting) -> Setting:
    """The setting with the number of DataLoader workers that makes the usual loop fastest here.

    On two cores that is none, as workers take the trainer's time.
    """
    images = setting.some(IMAGES[setting.device])
    tried = [replace(setting, workers=n) for n in sorted({0, 1, cores() // 2, cores()})]
    speeds = {s.workers: alone(speed, s, Rung(), images, cores()) for s in tried}
    rounded = {n: round(images_per_s) for n, images_per_s in speeds.items()}
    say(f"the usual loop, images/s by DataLoader workers: {rounded}")
    return replace(setting, workers=max(speeds, key=lambda n: speeds[n]))


def candidates(setting: Setting, rounds: int) -> dict[str, Any]:
    """Both arms in turn, each a process of its own."""
    taken: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(rounds):
        for arm in ARMS:
            run = _run_arm(arm, replace(setting, seed=seed))
            taken[arm].append(run)
            an_hour = run["candidates_per_hour"]
            say(f"{arm:6} seed {seed}: {an_hour:8.1f} candidates/hour, errors {run['errors']}")
    speeds = {arm: [run["candidates_per_hour"] for run in runs] for arm, runs in taken.items()}
    errors = {arm: _errors(runs) for arm, runs in taken.items()}
    memory = {arm: max(run["largest_process_mib"] for run in runs) for arm, runs in taken.items()}
    return {
        "candidates_per_hour_ratio": spread(list(map(truediv, speeds["ours"], speeds["usual"]))),
        "candidates_per_hour": {arm: spread(speeds[arm]) for arm in ARMS},
        "error_ours": spread(errors["ours"]),
        "error_usual": spread(errors["usual"]),
        "error_difference_paired": spread(list(map(sub, errors["ours"], errors["usual"]))),
        "largest_process_mib": memory,
        "runs": taken,
    }


def _run_arm(arm: str, setting: Setting) -> dict[str, Any]:
    """What an arm printed, run in a fresh process, with its seconds and candidates an hour."""
    settings = json.dumps(asdict(setting))
    command = [sys.executable, "-m", "benchmarks.arms", arm, settings]
    started = time.perf_counter()
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    printed = json.loads(process.stdout)
    an_hour = 3600 * len(printed["errors"]) / seconds
    return {**printed, "seconds": seconds, "candidates_per_hour": an_hour}


def _errors(runs: list[dict[str, Any]]) -> list[float]:
    """The errors of all trainings of some runs, in order."""
    return [error for run in runs for error in run["errors"]]


STEPPING: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "cpu": {"as it is": {}},
    "cuda": {"eager": {"cuda_graph": False}, "as it is": {}, "blocks compiled": {"compile": True}},
}
"""The ways in which a step runs there."""


def further(setting: Setting) -> dict[str, list[float]]:
    """By way of stepping, the seconds of trainings of seven steps.

    One training is of the first placement in a process, two are of further ones.

    By then the blocks are compiled, from nothing, and a CUDA graph is captured, so training at full
    speed has begun.
    """
    with tempfile.TemporaryDirectory() as folder, environment({"TORCHINDUCTOR_CACHE_DIR": folder}):
        return {
            name: alone(_firsts, setting, how) for name, how in STEPPING[setting.device].items()
        }


def _firsts(setting: Setting, how: dict[str, Any]) -> list[float]:
    study, parts = setting.study(), setting.split()
    images = parts.fit.take(np.arange(len(parts.fit))[: (EAGER + 4) * study.recipe.batch])
    few = replace(parts, fit=images, validation=images.take(np.arange(100)))
    recipe = replace(study.recipe, **how)
    task = Experiment(
        "classification",
        study.space,
        sites_of(load(study.space, CIFAR_INPUTS)),
        few,
        recipe,
        choose(setting.device),
        threads_each(study.workers),
    )
    claim(task.device, 0)
    seconds = []
    for text in ("bottleneck=bam", "layer2=bam", "layer1=bam"):
        started = time.perf_counter()
        _score(evaluate(task, Job(text, 0, 1)))
        seconds.append(time.perf_counter() - started)
    return seconds


def _score(result: Result) -> Score:
    if not result.score:
        raise RuntimeError(result.failure)
    return result.score


def goal(setting: Setting, epochs: int = 30, seeds: int = 3) -> dict[str, float]:
    """The test error of the net without attention, trained on all training images.

    The recipe is the study's own, with its batch and its rate.
    """
    study = setting.study(own_batch=True)
    whole = replace(setting, images=None).split()
    task = Experiment(
        "classification",
        study.space,
        sites_of(load(study.space, CIFAR_INPUTS)),
        whole,
        study.recipe,
        choose(setting.device),
        threads_each(study.workers),
    )
    return spread(
        [
            _score(evaluate(task, Job("none", seed, epochs, final=True))).value
            for seed in range(seeds)
        ]
    )


def around(records: int = 1000) -> dict[str, Any]:
    """The milliseconds that a candidate takes beside its training, with `records` kept.

    It is measured on the loop of a study whose trainings take no time.
    """
    study, plan = invented(records + 20, startup=records)
    space = load(study.space, CIFAR_INPUTS)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "study", {}, study.objectives)
        search(study, plan, store, at_once, lambda _record: ends.append(time.perf_counter()))
    gaps = [1000 * (b - a) for a, b in zip(ends[-20:], ends[-19:], strict=False)]
    started = time.perf_counter()
    for _ in range(5):
        build(space, plan.sites, "bottleneck=bam", 0)
    return {
        "records": records,
        "ask_count_tell_write_ms": spread(gaps),
        "build_ms": 1000 * (time.perf_counter() - started) / 5,
    }


def climb(setting: Setting, rounds: int) -> dict[str, Any]:
    """The ladder, from the usual loop as fast as it is here, and the engine's best."""
    setting = with_best_workers(setting)
    rungs = ladder(setting, rounds)
    fastest = best(rungs, setting.device)
    return {
        "usual_loop_workers": setting.workers,
        **asdict(fastest),
        "images_per_s_ratio": fastest.images_per_s / rungs["usual loop"]["median"],
        "ladder_images_per_s": rungs,
    }


OF_NET = ("ladder", "candidates", "further", "bound")
"""The parts of each net, in this order: candidates and bound need what the ladder has found."""
PARTS = (*OF_NET, "around", "goal")


def of_net(part: str, setting: Setting, rounds: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """What one part tells of one net; `known` is what is already told of it."""
    if part == "ladder":
        return climb(setting, rounds)
    if part == "candidates":
        with service() if known["mps"] else contextlib.nullcontext():
            return candidates(
                replace(setting, workers=known["usual_loop_workers"], processes=known["processes"]),
                rounds,
            )
    if part == "further":
        return {"further_placement_s": further(setting)}
    return {"bound": bound(setting, known["images_per_s"])}


def main() -> None:
    """Measure, and write down what was asked for."""
    parser = _parser()
    asked = parser.parse_args()
    nets = asked.nets or NETS[asked.device]
    found = _found_before(asked.out) | _about(asked)
    unknown = [net for net in nets if "processes" not in found["nets"].get(net, {})]
    needing = sorted({"candidates", "bound"} & set(asked.parts))
    if needing and unknown and "ladder" not in asked.parts:
        parser.error(
            f"--parts {' '.join(needing)} needs the ladder of each net, in this call or in --out"
        )
    for net in nets:
        _measure_net(net, asked, found)
    if "around" in asked.parts:
        found["around_training"] = around()  # on the CPU, whatever the device
        keep(found, asked.out)
    if "goal" in asked.parts and asked.device == "cuda":
        setting = Setting(asked.data, "cuda", "resnet18", asked.images, 0)
        found["resnet18_30_epochs_test_error"] = goal(setting)
        keep(found, asked.out)
    print(json.dumps(found, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--nets",
        nargs="+",
        help="search spaces; by default small, on a GPU resnet18 and resnet50 too",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path)
    return parser


def _found_before(path: Path | None) -> dict[str, Any]:
    """What other calls have written to the file."""
    if path is None or not path.exists():
        return {"nets": {}}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _about(asked: argparse.Namespace) -> dict[str, Any]:
    device = choose(asked.device)
    return {
        "device": device.name,
        "bf16": device.bf16,
        "cores": cores(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "images": asked.images,
    }


def _measure_net(net: str, asked: argparse.Namespace, found: dict[str, Any]) -> None:
    """Measure the parts of one net that were asked for, in order, into `found` and its file."""
    known = found["nets"].setdefault(net, {})
    setting = Setting(asked.data, asked.device, net, asked.images, 0)
    for part in OF_NET:
        if part in asked.parts:
            known |= of_net(part, setting, asked.rounds, known)
            keep(found, asked.out)


if __name__ == "__main__":
    main()
