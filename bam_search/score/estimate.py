"""What a study will cost before it runs: the dearest placement of a menu, and the seconds of a training, measured on this device."""

import time
from collections.abc import Callable

import numpy as np
import torch

from bam_search.model.build import build
from bam_search.score.batches import Order
from bam_search.score.bench import Bench
from bam_search.score.cost_table import CostTable
from bam_search.score.data import CLASSES, Images
from bam_search.score.device import Device
from bam_search.score.graph import EAGER, stream
from bam_search.score.recipe import Recipe
from bam_search.score.step import Step
from bam_search.space.placement import Placement
from bam_search.space.search_space import Menu, SearchSpace
from bam_search.space.sites import Sites


def dearest(menu: Menu, costs: CostTable) -> Placement:
    """Every site of the menu with its choice of most parameters; not canonical."""
    return Placement.of({site: max(menu.choices(site), key=lambda choice: costs.added(site, choice).params) for site in menu.sites})


def seconds_per_image(
    space: SearchSpace, sites: Sites, placement: str, recipe: Recipe, device: Device, threads: int, at_least: float = 1.0
) -> float:
    """Seconds of training for one image, measured on random images for `at_least` seconds after a warm-up.

    `threads` are the CPU threads of one worker.
    """
    torch.set_num_threads(threads)
    model = build(space, sites, placement, seed=0).to(device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = _noise(recipe.batch)
    bench = Bench.of(device, recipe, images)
    step, taken = Step.first(model.train(), bench, recipe), 0
    step.batches.deal(Order.of(len(images), 0, 0, recipe))
    with stream(device.type):
        take = step.taker()
        for _ in range(2 * EAGER):
            _once(step, take)
        started = time.perf_counter()
        while time.perf_counter() - started < at_least:
            _once(step, take)
            taken += 1
        return (time.perf_counter() - started) / (taken * len(images))


def _once(step: Step, take: Callable[[], None]) -> None:
    step.number.zero_()
    take()
    float(step.loss)  # waits for the device


def _noise(n: int) -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, CLASSES, n))
