"""The study that fits into some minutes, and how long it will take.

The estimate is from what earlier stages have measured.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bam_search.search.study import FinalistPlan, Study
from bam_search.search.workload import Sizes, trainings, workload
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from benchmarks.gpu.parts import SMALL, Known
from benchmarks.gpu.suite import PART

SIZES = ((24, 3), (20, 3), (16, 3), (14, 3), (12, 2))
"""Candidates and final seeds, the best first."""
LEAST_EPOCHS, MOST_EPOCHS = 3, 15
REFERENCES = 4
TOGETHER = "the engine, 2 processes at once"
TWO_PROCESSES = "test_two_processes_on_one_gpu_give_what_one_gives"
BETWEEN = 0.3
"""Seconds from the end of a training to the next one's: a result is kept, a proposal made and sent.
"""
OVERLAP = 1.5
"""How much faster two processes get through what is around their trainings."""
FIXED = 55.0
"""Seconds of a study beside its trainings, where no study has been run."""
SLACK = 0.85
"""The share of the time that a plan fills."""
HELD_OUT, TEST = 0.2, 10_000
"""The share of training images that validates, and the images that test."""


@dataclass(frozen=True)
class Rates:
    """What a training costs here.

    `images_per_s` train in one process; `around` are the seconds until a training is at full speed
    and after it, `fixed` those of a study beside its trainings. With `workers` at a time all trains
    `gain` times as fast. `source` says where the figures come from.
    """

    images_per_s: float
    around: float
    fixed: float
    workers: int = 1
    gain: float = 1.0
    cuda_graph: bool = True
    source: str = "guesses"


@dataclass(frozen=True)
class Plan:
    """A placement study, and the seconds that it should take."""

    space: str
    trials: int
    seeds: int
    epochs: int
    workers: int
    cuda_graph: bool
    seconds: float
    rates: Rates


def rates(known: Known) -> Rates:
    """What earlier stages know of trainings of ResNet18.

    Where they know nothing, the rates are those of a slow start.
    """
    study = known.get("first-study", {}).get("study") or {}
    phases = [found for found in known.get("kernels", {}).values() if found.get("images_per_s")]
    candidates = [found for found in phases if found["net"] == "resnet18"]
    costs = _of_kernels(candidates, study) if candidates else _guessed(_engine(known), study)
    gain, workers = _together(known)
    graph = not study.get("not_one_graph", False)
    return replace(costs, workers=workers, gain=gain, cuda_graph=graph)


def _of_kernels(candidates: Sequence[Mapping[str, Any]], study: Mapping[str, Any]) -> Rates:
    """The rates of one process, from the stage `kernels` and the short study."""
    speed = statistics.harmonic_mean([found["images_per_s"] for found in candidates])
    # A median, as the first candidate of a process takes longer.
    begin = statistics.median(found["to_full_speed_s"] for found in candidates)
    build = statistics.mean(found["seconds"]["build"] for found in candidates)
    # The study's clock begins after building.
    beside_steps = study.get("training_s", 0.0) - study.get("images_each", 0) / speed
    around = max(begin, build + beside_steps) + BETWEEN
    beside_trainings = study.get("beside_trainings_s", FIXED)
    fixed = max(10.0, beside_trainings - study.get("trainings", 0) * (build + BETWEEN))
    return Rates(speed, around, fixed, source="kernels, first-study")


def _guessed(speeds: Sequence[float], study: Mapping[str, Any]) -> Rates:
    """The rates of one process, from the speeds that the engine has reached, if any."""
    fixed = study.get("beside_trainings_s", FIXED)
    if speeds:
        return Rates(0.8 * min(speeds), 3.0, fixed, source="the engine's speed, and guesses")
    return Rates(20_000.0, 3.0, fixed)


def _engine(known: Known) -> list[float]:
    """Images a second that rungs of the engine have reached on ResNet18."""
    rungs = known.get("resnet18", {}).items()
    return [
        found["images_per_s"] for name, found in rungs if name.startswith("the engine") and found
    ]


def _together(known: Known) -> tuple[float, int]:
    """How much faster two processes train than one, and how many to take."""
    outcomes = (known.get("tests", {}).get(PART) or {}).get("outcomes", {})
    if outcomes.get(TWO_PROCESSES) != "PASSED":
        return 1.0, 1
    rungs = known.get("resnet18", {})
    one = rungs.get("the engine, batch 256")
    two = [found for name, found in rungs.items() if name.startswith(TOGETHER) and found]
    if not one or not two:
        return 1.0, 2
    return max(1.0, two[0]["images_per_s"] / one["images_per_s"]), 2


def estimated(costs: Rates, images: int, trials: int, seeds: int, epochs: int) -> float:
    """The seconds of a study on so many training images, its references and searched ones."""
    split = SplitSizes.of(images, None, HELD_OUT)
    sizes = Sizes(
        split.fit, split.validation, split.train, TEST, REFERENCES, sites=0, placements=trials
    )
    phases = workload(_study(trials, seeds, epochs), sizes)
    training = sum(phase.samples for phase in phases) / costs.images_per_s / costs.gain
    around = trainings(phases) * costs.around / (OVERLAP if costs.workers > 1 else 1)
    return costs.fixed + training + around


def _study(trials: int, seeds: int, epochs: int) -> Study:
    """What `studies` runs: no random baseline, and finalists with these seeds alone."""
    return Study(
        question="",
        space="",
        references={str(n): "none" for n in range(REFERENCES)},
        trials=trials,
        random_baseline=False,
        recipe=Recipe(epochs=epochs),
        finalists=FinalistPlan(seeds, most=seeds, extra=0.0, leave_one_out=False),
    )


def plan(known: Known, seconds: float, images: int) -> Plan:
    """The study for so many seconds.

    It is of ResNet18 if at least the smallest one fits, else of the small net.
    """
    costs = rates(known)
    for trials, seeds in SIZES:
        if (epochs := fitting(costs, SLACK * seconds, images, trials, seeds)) >= LEAST_EPOCHS:
            return _plan("resnet18", costs, images, trials, seeds, min(epochs, MOST_EPOCHS))
    costs = replace(costs, images_per_s=3 * costs.images_per_s, around=costs.around / 2)
    trials, seeds = SIZES[0]
    epochs = fitting(costs, SLACK * seconds, images, trials, seeds)
    return _plan(SMALL, costs, images, trials, seeds, max(1, min(epochs, MOST_EPOCHS)))


def fitting(costs: Rates, seconds: float, images: int, trials: int, seeds: int) -> int:
    """The most whole epochs with which such a study takes no longer."""
    none, one = (estimated(costs, images, trials, seeds, epochs) for epochs in (0, 1))
    return int((seconds - none) / (one - none))


def _plan(space: str, costs: Rates, images: int, trials: int, seeds: int, epochs: int) -> Plan:
    seconds = estimated(costs, images, trials, seeds, epochs)
    return Plan(space, trials, seeds, epochs, costs.workers, costs.cuda_graph, seconds, costs)


def tiny() -> Plan:
    """A study that a CPU does in seconds."""
    costs = Rates(images_per_s=2000.0, around=0.2, fixed=10.0)
    return _plan(SMALL, costs, 200, 5, 1, 1)
