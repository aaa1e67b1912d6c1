"""How long a study takes: what it trains, at a speed that is measured here or known of a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch

from bam_search.errors import UserError, first_line
from bam_search.processes import cores
from bam_search.running.latency import as_trained
from bam_search.running.prepare import ResolvedRun
from bam_search.score.cuda_graphs import EAGER
from bam_search.score.estimate import Probe, Speed, speeds
from bam_search.score.latency import DEPLOYED_PAIRS, PAIRS
from bam_search.search.study import Study
from bam_search.search.workload import MEASURED, Phase, Sizes, finalists, workload
from bam_search.space.placement import Placement
from bam_search.words import duration

LATENCY_PASSES, DEPLOYED_PASSES = 2 * (PAIRS + EAGER), 2 * (DEPLOYED_PAIRS + EAGER)
"""Forward passes for the latencies of a finalist: of two models, of a batch and of one image."""
ALONE = 4
"""An image that passes alone takes as long as some of a batch."""
MEASURED_HERE = "measured just now"
MEASURING = "measuring how fast this device trains"
"""What is said while it is."""


@dataclass(frozen=True)
class Calibration:
    """How fast trainings of a study run.

    `speeds` are those of the cheapest and of the most expensive reference; `process` is the seconds
    that the processes take to start, `at_once` how many trainings run at the same time, each at
    these speeds. `source` says where that comes from.
    """

    speeds: tuple[Speed, ...]
    process: float
    at_once: int
    source: str = MEASURED_HERE

    @property
    def typical(self) -> Speed:
        """The mean speed."""
        start = mean(speed.start for speed in self.speeds)
        return Speed(start, mean(speed.per_sample for speed in self.speeds))

    def seconds(self, trainings: int, samples: float) -> float:
        """Seconds of so many trainings, of `samples` samples together; of passes alone for 0.

        No more trainings run at the same time than there are.
        """
        beside = min(self.at_once, trainings) or self.at_once
        return self.typical.seconds(trainings, samples) / beside


@dataclass(frozen=True)
class Forecast:
    """The phases of a study, each with its seconds; `latency` is that of measuring latencies."""

    phases: tuple[tuple[Phase, float], ...]
    latency: float
    calibration: Calibration

    @property
    def seconds(self) -> float:
        """Seconds of all phases together, and of starting the processes that train.

        Reading the data and the report come on top.
        """
        trained = sum(seconds for _, seconds in self.phases)
        return self.calibration.process + trained + self.latency


def sizes(ready: ResolvedRun, study: Study, total: int, test: int) -> Sizes:
    """The sizes of a study with `total` training samples and `test` test samples."""
    of_split = study.data.sizes(total)
    return Sizes(
        of_split.fit,
        of_split.validation,
        of_split.train,
        test,
        len(ready.references),
        len(ready.choice_space.sites),
        ready.choice_space.size,
        LATENCY_PASSES * as_trained(ready).batch + DEPLOYED_PASSES * ALONE,
    )


def forecast(study: Study, of: Sizes, calibration: Calibration) -> Forecast:
    """The forecast of a study of these sizes."""
    phases = tuple(
        (phase, calibration.seconds(phase.trainings, phase.samples))
        for phase in workload(study, of)
    )
    passes = MEASURED * of.timed * finalists(study, of)
    return Forecast(phases, calibration.seconds(0, passes), calibration)


def calibrate(ready: ResolvedRun, at_least: float) -> Calibration | str:
    """Measure the speed of the references, each for `at_least` seconds.

    Returns a line instead that says why it cannot be: a study whose references cannot be trained
    runs all the same, and its records say what went wrong.
    """
    try:
        return _measured(ready, at_least)
    except Exception as error:  # whatever the user's model raises, as in `evaluate`
        return f"{type(error).__name__}: {first_line(error)}"


def calibrated(ready: ResolvedRun, at_least: float) -> Calibration:
    """The same. Raises UserError where it cannot be measured."""
    found = calibrate(ready, at_least)
    if isinstance(found, str):
        raise UserError(f"no time can be planned, as the speed cannot be measured: {found}")
    return found


def told(expected: Forecast | str) -> str:
    """The time of the whole study in words; of why it is not known, if it is not."""
    if isinstance(expected, str):
        return f"how long it takes cannot be told ({expected})"
    return f"about {duration(expected.seconds)} in all"


def extreme_references(ready: ResolvedRun) -> Sequence[str]:
    """The placements of the cheapest and the most expensive reference.

    They are one if those are the same, and the backbone alone if there are no references.
    """

    def macs(placement: Placement) -> int:
        return ready.costs.cost(placement).macs_conv_fc

    by_cost = sorted(ready.references.values(), key=macs)
    extremes = by_cost[:1] + by_cost[-1:]
    return list(dict.fromkeys(placement.text for placement in extremes)) or ["none"]


def _measured(ready: ResolvedRun, at_least: float) -> Calibration:
    study = ready.study
    probes = [
        Probe(
            study.task,
            study.space,
            ready.sites,
            text,
            study.recipe,
            ready.device,
            at_least,
            ready.module_files,
            ready.source.inputs,
            ready.start,
        )
        for text in extreme_references(ready)
    ]
    found = speeds(probes, study.workers, ready.threads)
    return Calibration(found.of_probes, found.process, at_once(ready))


def at_once(ready: ResolvedRun) -> int:
    """How many trainings run at the same time, each at the full speed of one.

    Workers that share a GPU, or a core, share its speed, and count as one.
    """
    workers = ready.study.workers
    if ready.options.executor != "local":
        return workers
    here = torch.cuda.device_count() if ready.device.type == "cuda" else cores()
    return max(1, min(workers, here))
