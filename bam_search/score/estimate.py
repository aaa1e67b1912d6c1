"""How fast this device trains, measured for a moment before a study runs.

Also the most expensive placement of a choice space, which is what is measured.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from statistics import mean

import torch

from bam_search.model.attention import use_module_files
from bam_search.model.build import build
from bam_search.model.load import Inputs, load
from bam_search.model.start import SCRATCH, Start
from bam_search.processes import (
    belong_to_driver,
    context_of,
    cores,
    leaving_signals_to_driver,
)
from bam_search.score.context import TrainingContext
from bam_search.score.cost_table import CostTable
from bam_search.score.cuda_graphs import EAGER, settle, stream
from bam_search.score.device import Device, on_device, samples_for, using_threads
from bam_search.score.step import TrainingStep
from bam_search.space.modules import ModuleFile
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.space.sites import Sites
from bam_search.tasks.load_task import load_task
from bam_search.tasks.recipe import Recipe

WARM = {"cpu": 1, "cuda": 2 * EAGER}
"""Steps before the clock runs: on a GPU the eager ones, the capture, and some replays."""
MOST_SAMPLES = {"cpu": 64, "cuda": 65_536}
"""The largest batch while a speed is measured.

On a CPU a whole batch of a large net takes minutes, and a sample's forward and backward pass takes
as long.
"""
MOST_NUMBERS = 64 * 3 * 64 * 64
"""On a CPU a batch of larger samples has at most so many numbers, and LEAST_SAMPLES."""
LEAST_SAMPLES = 4
OPTIMIZER_STEPS = 3
"""Over how many the time of the optimizer alone is measured, where batches were made smaller."""


@dataclass(frozen=True)
class Speed:
    """How long trainings take.

    `start` is the seconds before a training is at full speed, `per_sample` the seconds for each
    sample from then on.
    """

    start: float
    per_sample: float

    def seconds(self, trainings: float, samples: float) -> float:
        """Seconds of so many trainings of `samples` samples together."""
        return trainings * self.start + samples * self.per_sample


@dataclass(frozen=True)
class Speeds:
    """The speed of each probe, and the seconds that a process takes to start; 0 without one."""

    of_probes: tuple[Speed, ...]
    process: float = 0.0


@dataclass(frozen=True)
class Probe:
    """What is measured: the placement `text` of the space of this name, on the task of this name.

    It holds all that a separate process needs to know, the files of the user's attention `modules`
    included, and what trainings `start` from. `at_least` is the seconds to measure for; `inputs`
    are those that the data need, None for the task's own.
    """

    task: str
    space: str
    sites: Sites
    text: str
    recipe: Recipe
    device: Device
    at_least: float
    modules: Mapping[str, ModuleFile] = field(default_factory=dict)
    inputs: Inputs | None = None
    start: Start = SCRATCH


def most_expensive(choice_space: ChoiceSpace, costs: CostTable) -> Placement:
    """Every site of the choice space with its choice of most parameters; not canonical."""
    largest = {}
    for site in choice_space.sites:
        by_params = {
            choice: costs.added(site, choice).params for choice in choice_space.choices(site)
        }
        largest[site] = max(by_params, key=by_params.__getitem__)
    return Placement.of(largest)


def speeds(probes: Sequence[Probe], workers: int, threads: int) -> Speeds:
    """The speed of each probe on random samples, with `workers` trainings at a time.

    Each training has `threads` CPU threads. A GPU is used from a process of its own, which gives
    all of its memory back. On a CPU as many processes train at the same time as workers would, for
    they share the memory's bandwidth; threads would also wait for one another in Python, which is
    most of the time where maps are small. One worker is this process. Raises what the training
    raises.
    """
    is_gpu = probes[0].device.type == "cuda"
    beside = 1 if is_gpu else min(workers, cores())
    if is_gpu or beside > 1:
        return _in_processes(probes, beside, threads)
    with using_threads(threads):
        return Speeds(tuple(measure(probe) for probe in probes))


def _in_processes(probes: Sequence[Probe], beside: int, threads: int) -> Speeds:
    context = context_of(probes[0].device.type, threads)  # as workers have it
    began = time.perf_counter()
    with ProcessPoolExecutor(beside, context, belong_to_driver) as pool:
        with leaving_signals_to_driver():
            jobs = [pool.submit(_one_after_another, probes, threads) for _ in range(beside)]
        found = [job.result() for job in jobs]
        whole = time.perf_counter() - began
    of_probes = tuple(map(_mean, zip(*(speeds for speeds, _ in found), strict=True)))
    return Speeds(of_probes, max(0.0, whole - max(seconds for _, seconds in found)))


def _one_after_another(probes: Sequence[Probe], threads: int) -> tuple[list[Speed], float]:
    """The speeds, and the seconds that they took once the libraries were loaded."""
    if probes[0].device.type == "cuda":
        settle()
    else:
        torch.set_num_threads(threads)
    measure(probes[0])  # loads libraries, which a worker does once
    began = time.perf_counter()
    return [measure(probe) for probe in probes], time.perf_counter() - began


def measure(probe: Probe) -> Speed:
    """The speed of a probe, here and now, over `at_least` seconds after a warm-up."""
    device = probe.device
    use_module_files(probe.modules)
    began = time.perf_counter()
    task = load_task(probe.task, probe.inputs)
    model = build(load(probe.space, task.inputs), probe.sites, probe.text, 0, probe.start)
    on_device(model, device.type)
    most = _most_samples(device.type, task.inputs.shape)
    samples = task.noise(min(probe.recipe.batch, most))
    context = TrainingContext.of(task, device, probe.recipe, samples)
    probe.start.train_mode(model)
    step = TrainingStep.first(model, context, probe.recipe, start=probe.start)
    taken = 0
    with stream(device.type):
        step.batches.load(0, 0)
        step.batches.ready(0)
        take = step.make_step()

        def once() -> None:
            step.number.zero_()
            take()

        for _ in range(WARM[device.type]):
            once()
        float(step.loss)  # waits for the device
        warm = time.perf_counter()
        while time.perf_counter() - warm < probe.at_least or not taken:
            once()
            taken += 1
            float(step.loss)
        each = (time.perf_counter() - warm) / taken
    start = max(0.0, warm - began - WARM[device.type] * each)
    return Speed(start, _per_sample(step, each, probe.recipe.batch))


def _most_samples(device: str, shape: Sequence[int]) -> int:
    """The largest batch of samples of this shape."""
    return samples_for(device, shape, MOST_SAMPLES[device], MOST_NUMBERS, LEAST_SAMPLES)


def _per_sample(step: TrainingStep, seconds: float, batch: int) -> float:
    """Seconds for each sample of batches of `batch`; a step on fewer took `seconds`.

    The optimizer takes as long for any batch, and a large part of a small one's step.
    """
    if step.batch == batch:
        return seconds / batch
    began = time.perf_counter()
    for _ in range(OPTIMIZER_STEPS):
        step.optimizer.step()
    of_optimizer = min(seconds, (time.perf_counter() - began) / OPTIMIZER_STEPS)
    return (seconds - of_optimizer) / step.batch + of_optimizer / batch


def _mean(measured: Sequence[Speed]) -> Speed:
    start = mean(speed.start for speed in measured)
    per_sample = mean(speed.per_sample for speed in measured)
    return Speed(start, per_sample)
