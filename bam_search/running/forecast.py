"""How long a prepared study will take.

The time follows from what the study will train, at a speed that is measured here for a moment.
"""

from dataclasses import dataclass
from statistics import mean

import torch

from bam_search.errors import first_line
from bam_search.running.prepare import ResolvedRun
from bam_search.score.estimate import Probe, Speed, Speeds, speeds
from bam_search.search.workload import Phase, Sizes, workload
from bam_search.space.placement import Placement
from bam_search.tasks.split import SplitSizes


@dataclass(frozen=True)
class Forecast:
    """The phases of a study, each with its seconds.

    `speeds` are those of the cheapest and the most expensive reference.
    """

    phases: tuple[tuple[Phase, float], ...]
    speeds: Speeds

    @property
    def seconds(self) -> float:
        """Seconds of all phases together, and of starting the processes that train.

        Reading the data, latency and the report come on top.
        """
        return self.speeds.process + sum(seconds for _, seconds in self.phases)


def sizes(ready: ResolvedRun, of_split: SplitSizes, test: int) -> Sizes:
    """Return the sizes of a study with so many test samples."""
    return Sizes(
        of_split.fit,
        of_split.validation,
        of_split.train,
        test,
        len(ready.references),
        len(ready.choice_space.sites),
        ready.choice_space.size,
    )


def forecast(ready: ResolvedRun, of: Sizes, at_least: float) -> Forecast | str:
    """Return the forecast, or a line that says why there is none.

    Each speed is measured for `at_least` seconds.

    A study whose references cannot be trained runs all the same: its records say what went wrong.
    """
    try:
        measured = _speeds(ready, at_least)
    except Exception as error:  # whatever the user's model raises, as in `evaluate`
        return f"{type(error).__name__}: {first_line(error)}"
    start = mean(speed.start for speed in measured.of_probes)
    per_sample = mean(speed.per_sample for speed in measured.of_probes)
    typical = Speed(start, per_sample)
    at_once = _trainings_at_once(ready)
    phases = tuple(
        (phase, typical.seconds(phase.trainings, phase.samples) / at_once)
        for phase in workload(ready.study, of)
    )
    return Forecast(phases, measured)


def told(expected: Forecast | str) -> str:
    """Return the time of the whole study in words."""
    if isinstance(expected, str):
        return f"how long it takes cannot be told ({expected})"
    return f"about {duration(expected.seconds)} in all"


def duration(seconds: float) -> str:
    """Return a time in the unit that a person would use: '2.5 hours', '40 min', '12 s'."""
    for name, unit in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 10 * unit:
            return f"{seconds / unit:.0f} {name}"
        if seconds >= 1.5 * unit:
            number = f"{seconds / unit:.1f}".removesuffix(".0")
            return f"{number} {name}"
    return f"{max(1, round(seconds))} s"


def _speeds(ready: ResolvedRun, at_least: float) -> Speeds:
    """Return the speeds of the cheapest and the most expensive reference.

    They are one speed if those are the same, and the backbone's if there are no references.
    """

    def macs(placement: Placement) -> int:
        return ready.costs.cost(placement).macs_conv_fc

    by_cost = sorted(ready.references.values(), key=macs)
    extremes = by_cost[:1] + by_cost[-1:]
    texts = list(dict.fromkeys(placement.text for placement in extremes)) or ["none"]
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
        for text in texts
    ]
    return speeds(probes, study.workers, ready.threads)


def _trainings_at_once(ready: ResolvedRun) -> int:
    """Return how many trainings run at the same time, each at the full speed of one.

    Workers that share a GPU share its speed, and count as one.
    """
    workers = ready.study.workers
    if ready.device.type == "cuda" and ready.options.executor == "local":
        return min(workers, torch.cuda.device_count())
    return workers
