"""The time of a training step with each optimizer, and of the optimizer alone.

    python -m benchmarks.optimizers [--spaces small resnet50] [--device cpu] [--batch 64]
        [--rounds 10] [--out FILE.json]

All take turns in each round on the same net and batch; what is told is the median over the rounds
in milliseconds, and the ratio to SGD's. "muon, one by one" puts each weight through the iteration
by itself instead of all of a shape at once. On a CPU one thread makes a step, and its CPU time
counts; on a GPU the wall time of REPLAYS steps, each a CUDA graph, up to their end.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import EAGER, cuda_graph, replayed, stream
from bam_search.score.device import DEVICES, Device, choose
from bam_search.score.muon import Muon, matrices_of
from bam_search.score.optimizers import OPTIMIZERS
from bam_search.score.step import TrainingStep
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.recipe import Recipe
from benchmarks.results import deliver, say

ONE_BY_ONE = "muon, one by one"
REPLAYS = 20
Call = Callable[[], object]


def compare(space: str, device: Device, batch: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step and of the optimizer alone on the bare net, by optimizer."""
    steps = {name: _step(space, name, device, batch) for name in OPTIMIZERS}
    alone: dict[str, Call] = {name: step.optimizer.step for name, step in steps.items()}
    alone[ONE_BY_ONE] = _one_by_one(steps["muon"])
    with stream(device.type):
        whole = _in_turn({name: step.step for name, step in steps.items()}, device, rounds)
        parts = _in_turn(alone, device, rounds)
    say(f"{space}: a step {whole['ratio']}, the optimizer {parts['ratio']}")
    weights = len(matrices_of(steps["muon"].model))
    return {"weights_of_muon": weights, "step": whole, "optimizer": parts}


def _step(space: str, optimizer: str, device: Device, batch: int) -> TrainingStep:
    searched, task = load(space, CIFAR_INPUTS), sources.task()
    net = build(searched, sites_of(searched), "none", 0).train()
    net.to(device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = replace(Recipe(batch=batch, epochs=10_000), optimizer=optimizer)  # type: ignore[arg-type]
    context = TrainingContext.of(task, device, recipe, task.noise(batch))
    step = TrainingStep.first(net, context, recipe)
    step.batches.load(0, 0)
    step.step()  # the gradients that the optimizer alone is timed with
    return step


def _one_by_one(step: TrainingStep) -> Call:
    """What the optimizer of `step` does, with one Muon a weight."""
    bf16, rate = step.context.bf16, step.rate
    each = [
        Muon([one], rate, momentum=0.9, weight_decay=5e-4, bf16=bf16)
        for one in matrices_of(step.model).items()
    ]
    parts = [step.optimizer.parts["sgd"], *each]
    return lambda: [part.step() for part in parts]


def _in_turn(calls: Mapping[str, Call], device: Device, rounds: int) -> dict[str, dict[str, float]]:
    timers = {name: _timer(call, device) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            times[name].append(1000 * timer())
    ratios = {
        name: statistics.median(b / a for a, b in zip(times["sgd"], found, strict=True))
        for name, found in times.items()
    }
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {"ms": medians, "ratio": ratios}


def _timer(call: Call, device: Device) -> Callable[[], float]:
    """A function that makes the call and gives its seconds; it is warm."""

    def run() -> None:
        call()

    if device.type != "cuda":
        run()
        return lambda: _seconds(run, time.process_time)
    take = replayed(run, cuda_graph)
    for _ in range(EAGER + 1):
        take()

    def replays() -> None:
        for _ in range(REPLAYS):
            take()
        torch.cuda.synchronize()

    return lambda: _seconds(replays, time.perf_counter) / REPLAYS


def _seconds(run: Call, clock: Callable[[], float]) -> float:
    began = clock()
    run()
    return clock() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the optimizers on each space, and hand over what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spaces", nargs="+", default=["small", "resnet50"])
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    device = choose(asked.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    nets = {name: compare(name, device, asked.batch, asked.rounds) for name in asked.spaces}
    about = {"device": device.name, "bf16": device.bf16, "torch": torch.__version__}
    deliver({**about, "batch": asked.batch, "rounds": asked.rounds, "nets": nets}, asked.out)


if __name__ == "__main__":
    main()
