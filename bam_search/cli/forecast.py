"""How long a prepared study will take: what it will train, at the speed that is measured here for a
moment.
"""

from dataclasses import dataclass
from statistics import mean

import torch

from bam_search.cli.prepare import ResolvedRun
from bam_search.errors import first_line
from bam_search.score.estimate import Probe, Speed, speeds
from bam_search.search.workload import Phase, Sizes, workload


@dataclass(frozen=True)
class Forecast:
    """The phases of a study with their seconds, and the speeds of its cheapest and its most
    expensive reference.
    """

    phases: tuple[tuple[Phase, float], ...]
    speeds: tuple[Speed, ...]

    @property
    def seconds(self) -> float:
        """Of the whole study, but for reading the data, starting processes, latency and the report."""
        return sum(seconds for _, seconds in self.phases)


def sizes(ready: ResolvedRun, fit: int, validation: int, test: int) -> Sizes:
    """What a study trains on and searches, with so many images."""
    return Sizes(
        fit,
        validation,
        test,
        len(ready.references),
        len(ready.choice_space.sites),
        ready.choice_space.size,
    )


def forecast(ready: ResolvedRun, of: Sizes, at_least: float) -> Forecast | str:
    """The forecast, from speeds that are measured for `at_least` seconds each; or why there is
    none, in a line.

    A study whose references cannot be trained runs all the same: its records say what went wrong.
    """
    try:
        found = _speeds(ready, at_least)
    except Exception as error:  # whatever the user's model raises, as in `evaluate`
        return f"{type(error).__name__}: {first_line(error)}"
    speed = Speed(mean(each.start for each in found), mean(each.per_image for each in found))
    together = _together(ready)
    phases = workload(ready.study, of)
    return Forecast(
        tuple((phase, speed.seconds(phase.trainings, phase.images) / together) for phase in phases),
        tuple(found),
    )


def told(found: Forecast | str) -> str:
    """The whole time in words."""
    if isinstance(found, str):
        return f"how long it takes cannot be told ({found})"
    return f"about {duration(found.seconds)} in all"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    for name, unit in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 1.5 * unit:
            return (
                f"{seconds / unit:.1f}".removesuffix(".0") + f" {name}"
                if seconds < 10 * unit
                else f"{seconds / unit:.0f} {name}"
            )
    return f"{max(1, round(seconds))} s"


def _speeds(ready: ResolvedRun, at_least: float) -> list[Speed]:
    ordered = sorted(
        ready.references.values(), key=lambda placement: ready.costs.cost(placement).macs_conv_fc
    )
    texts = list(dict.fromkeys(placement.text for placement in (ordered[:1] + ordered[-1:]))) or [
        "none"
    ]
    study = ready.study
    probes = [
        Probe(study.space, ready.sites, text, study.recipe, ready.device, at_least)
        for text in texts
    ]
    return speeds(probes, study.workers, ready.threads)


def _together(ready: ResolvedRun) -> int:
    """Trainings that go on at the same time at the full speed of one: workers that share a GPU
    share its speed.
    """
    workers = ready.study.workers
    if ready.device.type == "cuda" and ready.options.executor == "local":
        return min(workers, torch.cuda.device_count())
    return workers
