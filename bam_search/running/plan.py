"""A plan for a budget: made once from the speed of this device, kept in study.json, and continued.

The plan sets how long trainings are, how many candidates there are and how many seeds at first; the
clock then ends the search in time for the finals, and gives what is left to further seeds.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bam_search.analysis.statistics import Noise
from bam_search.errors import UserError
from bam_search.running.forecast import (
    MEASURING,
    Calibration,
    Forecast,
    calibrated,
    forecast,
    sizes,
)
from bam_search.running.prepare import Request, ResolvedRun
from bam_search.running.timing import Clock
from bam_search.score.estimate import Speed
from bam_search.search.budget import Settings, Space, scored, settings_for
from bam_search.search.store import PLAN_KEY, read_described
from bam_search.search.study import Study, check_amounts
from bam_search.tasks.metric import Metric
from bam_search.words import counted, duration

AT_LEAST = 3.0
"""Seconds for which each speed is measured, once for a plan."""
MARGIN = 0.05
"""The share of a budget that is kept for what no forecast knows: starting, reading, pages."""
DEGREES = 30
"""Of freedom of the noise that a plan assumes: that of some ten finalists with three seeds."""


@dataclass(frozen=True)
class Plan:
    """What a study does with `budget` seconds, of which its runs so far have had `spent`."""

    budget: float
    settings: Settings
    calibration: Calibration
    spent: float = 0.0

    def clock(self, began: float) -> Clock:
        """The clock of a run that began at this `time.monotonic`."""
        return Clock(began + self.budget - self.spent, fills=True)

    def after(self, seconds: float) -> "Plan":
        """The same after so many seconds more."""
        return replace(self, spent=self.spent + seconds)

    def forecast(self, ready: ResolvedRun, total: int, test: int) -> Forecast:
        """How long the phases of a run take, with `total` training and `test` test samples."""
        study = self.settings.expected(ready.study)
        return forecast(study, sizes(ready, study, total, test), self.calibration)

    def smallest_difference(self, metric: Metric, test: int) -> float | None:
        """The difference between two finalists that the study can tell; None if that is not known.

        A training's noise is taken to be that of a measurement on `test` samples, as it was on
        CIFAR-100 (0.24 to 0.50 points, where the latter is 0.40 to 0.50; LOG.md).
        """
        if metric.sample_sd is None:
            return None
        noise = Noise(metric.sample_sd / test**0.5, DEGREES)
        return noise.smallest_difference(self.settings.most)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Plan":
        """The inverse of `to_dict`, after JSON."""
        speeds = tuple(Speed(**speed) for speed in table["calibration"]["speeds"])
        calibration = Calibration(**{**table["calibration"], "speeds": speeds})
        settings = Settings(**table["settings"])
        return cls(**{**table, "settings": settings, "calibration": calibration})


def stored_plan(folder: Path) -> Plan | None:
    """The plan of the study in `folder`; None if it has none. Raises UserError if it is broken."""
    table = read_described(folder).get(PLAN_KEY)
    if table is None:
        return None
    try:
        return Plan.from_dict(table)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"the plan in {folder} cannot be read: {error}", "use --force-new"
        ) from None


def planned(
    ready: ResolvedRun,
    request: Request,
    total: int,
    test: int,
    folder: Path | None = None,
    busy: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> tuple[ResolvedRun, Plan | None]:
    """The run with the settings of its plan, and the plan; without a budget, as it was.

    The plan is that of the study in `folder`, if it has one, else a new one, made in the context
    that `busy` gives. Raises UserError if the budget is too short, or no speed can be measured.
    """
    options = request.options
    if options.budget is None:
        return ready, None
    plan = stored_plan(folder) if folder and not options.force_new else None
    if plan is None:
        with busy(MEASURING):
            speed = calibrated(ready, AT_LEAST)
        plan = make_plan(ready, request, options.budget, total, test, speed)
    return with_plan(ready, replace(plan, budget=options.budget), request)


def for_each(request: Request, spaces: int) -> Request:
    """The request for one of several spaces: each has its share of the budget."""
    budget = request.options.budget
    if budget is None:
        return request
    return replace(request, options=replace(request.options, budget=budget / spaces))


def make_plan(
    ready: ResolvedRun, request: Request, budget: float, total: int, test: int, of: Calibration
) -> Plan:
    """The plan of a study with `total` training and `test` test samples, at the calibrated speed.

    Raises UserError if the budget is too short.
    """
    study, choice_space = ready.study, ready.choice_space
    if not request.is_set("scoring"):
        study = scored(study, len(ready.references))
    space = Space(total, len(ready.references), len(choice_space.sites), choice_space.size)

    def seconds(sized: Study) -> float:
        return forecast(sized, sizes(ready, sized, total, test), of).seconds

    return Plan(budget, settings_for(study, space, budget, seconds, request.is_asked, MARGIN), of)


def with_plan(ready: ResolvedRun, plan: Plan, request: Request) -> tuple[ResolvedRun, Plan]:
    """The run with the settings of a plan, and the plan; what the user has set stays.

    Raises UserError if what the user has set does not go with the plan.
    """
    study = ready.study
    keys = {
        "images": ("data.images", study.data.images),
        "epochs": ("recipe.epochs", study.recipe.epochs),
        "trials": ("trials", study.trials),
        "scoring": ("scoring", study.scoring),
        "seeds": ("finalists.seeds", study.finalists.seeds),
        "most": ("finalists.most", study.finalists.most),
    }
    asked: dict[str, Any] = {
        field: value for field, (key, value) in keys.items() if request.is_asked(key)
    }
    plan = replace(plan, settings=replace(plan.settings, **asked))
    applied = plan.settings.applied(study)
    limits = {key: getattr(study.finalists, key) for key in ("most", "extra")}
    asked = {key: value for key, value in limits.items() if request.is_asked(f"finalists.{key}")}
    applied = replace(applied, finalists=replace(applied.finalists, **asked))
    if request.is_asked("rungs.epochs"):
        applied = replace(applied, rungs=study.rungs)
    check_amounts(applied)
    return ready.with_study(applied), plan


def plan_lines(ready: ResolvedRun, plan: Plan, total: int, test: int) -> tuple[str, ...]:
    """What is said of a plan before it runs: what it trains, and what it will be able to tell."""
    study, settings, sample = ready.study, plan.settings, ready.task.sample
    images = study.data.sizes(total).train
    return (
        f"the plan for {duration(plan.budget)}, at the speed {plan.calibration.source}:",
        f"  trainings: {counted(images, sample)} for {counted(settings.epochs, 'epoch')} each",
        f"  candidates: {settings.trials:,}, with {counted(len(ready.references), 'reference')}"
        f"{_scoring_words(study)}",
        f"  finalists: {counted(settings.seeds, 'seed')} each{_further_words(settings)}",
        f"  it can tell: {_difference_words(ready, plan, test)}",
        f"  it ends: {_end(plan)}",
    )


def _further_words(settings: Settings) -> str:
    if settings.most == settings.seeds:
        return ""
    return f", about {settings.most} for those that the answer hangs on"


def _scoring_words(study: Study) -> str:
    """', each trained for 3 epochs from a backbone that is trained once for 12'."""
    if not study.backbone_epochs:
        return ""
    candidate, backbone = counted(study.search_epochs, "epoch"), study.backbone_epochs
    return f", each trained for {candidate} from a backbone that is trained once for {backbone}"


def _end(plan: Plan) -> str:
    """'by 17:40, if it begins now'; after a part of the budget, what is left of it."""
    left = max(0.0, plan.budget - plan.spent)
    ends = time.strftime("%H:%M", time.localtime(time.time() + left))
    if plan.spent:
        return f"by {ends}, as {duration(plan.spent)} are spent"
    return f"by {ends}, if it begins now"


def _difference_words(ready: ResolvedRun, plan: Plan, test: int) -> str:
    metric, sample = ready.task.metric, ready.task.sample
    smallest = plan.smallest_difference(metric, test)
    if smallest is None or metric.sample_sd is None:
        return "what differences, shows after the first finals"
    sd = metric.with_difference_unit(metric.text(metric.sample_sd / test**0.5))
    return (
        f"differences of {metric.with_difference_unit(metric.text(smallest))} between those, "
        f"four times in five (if seeds differ by {sd}, "
        f"as tests on {counted(test, sample)} do by chance)"
    )
