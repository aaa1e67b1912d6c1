"""How fast this device trains, measured for a moment before a study runs.

Also the most expensive placement of a choice space, which is what is measured.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import mean

import numpy as np
import torch

from bam_search.model.attention import use_module_files
from bam_search.model.build import build
from bam_search.model.load import load
from bam_search.score.batches import EpochPlan
from bam_search.score.context import TrainingContext
from bam_search.score.cost_table import CostTable
from bam_search.score.cuda_graphs import EAGER, settle, stream
from bam_search.score.data import CIFAR_INPUTS, CLASSES, Images
from bam_search.score.device import Device, cores
from bam_search.score.recipe import Recipe
from bam_search.score.step import TrainingStep
from bam_search.space.modules import ModuleFile
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.space.sites import Sites

WARM = {"cpu": 1, "cuda": 2 * EAGER}
"""Steps before the clock runs: on a GPU the eager ones, the capture, and some replays."""
MOST_IMAGES = {"cpu": 64, "cuda": 65_536}
"""The largest batch while a speed is measured.

On a CPU a whole batch of a large net takes minutes, and the time of an image is the same.
"""


@dataclass(frozen=True)
class Speed:
    """How long trainings take.

    `start` is the seconds before a training is at full speed, `per_image` the seconds for each
    image from then on.
    """

    start: float
    per_image: float

    def seconds(self, trainings: float, images: float) -> float:
        """Seconds of so many trainings of `images` images together."""
        return trainings * self.start + images * self.per_image


@dataclass(frozen=True)
class Probe:
    """What is measured: the placement `text` of the space of this name.

    It holds all that a separate process needs to know, the files of the user's attention `modules`
    included. `at_least` is the seconds to measure for.
    """

    space: str
    sites: Sites
    text: str
    recipe: Recipe
    device: Device
    at_least: float
    modules: Mapping[str, ModuleFile] = field(default_factory=dict)


def most_expensive(choice_space: ChoiceSpace, costs: CostTable) -> Placement:
    """Every site of the choice space with its choice of most parameters; not canonical."""
    largest = {}
    for site in choice_space.sites:
        by_params = {
            choice: costs.added(site, choice).params for choice in choice_space.choices(site)
        }
        largest[site] = max(by_params, key=by_params.__getitem__)
    return Placement.of(largest)


def speeds(probes: Sequence[Probe], workers: int, threads: int) -> list[Speed]:
    """The speed of each probe on random images, with `workers` trainings at a time.

    Each training has `threads` CPU threads. A GPU is used from a process of its own, which gives
    all of its memory back. On a CPU as many trainings run at the same time as workers would, for
    they share the memory's bandwidth. Raises what the training raises.
    """
    if probes[0].device.type == "cuda":
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_one_after_another, probes).result()
    beside = min(workers, cores())
    with _threads(threads), ThreadPoolExecutor(beside) as pool:
        return [_mean(list(pool.map(measure, [probe] * beside))) for probe in probes]


def _one_after_another(probes: Sequence[Probe]) -> list[Speed]:
    settle()
    measure(probes[0])  # loads libraries, which a worker does once
    return [measure(probe) for probe in probes]


def measure(probe: Probe) -> Speed:
    """The speed of a probe, here and now, over `at_least` seconds after a warm-up."""
    device = probe.device
    use_module_files(probe.modules)
    began = time.perf_counter()
    model = build(load(probe.space, CIFAR_INPUTS), probe.sites, probe.text, seed=0)
    model.to(device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = _noise(min(probe.recipe.batch, MOST_IMAGES[device.type]))
    context = TrainingContext.of(device, probe.recipe, images)
    step = TrainingStep.first(model.train(), context, probe.recipe)
    taken = 0
    step.batches.load(EpochPlan.of(len(images), 0, 0, probe.recipe))
    with stream(device.type):
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
    return Speed(max(0.0, warm - began - WARM[device.type] * each), each / len(images))


def _mean(measured: Sequence[Speed]) -> Speed:
    start = mean(speed.start for speed in measured)
    per_image = mean(speed.per_image for speed in measured)
    return Speed(start, per_image)


@contextlib.contextmanager
def _threads(each: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(each)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _noise(n: int) -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, CLASSES, n))
