"""`plan`: what a study does with a budget of time, here or on another machine; trains nothing."""

from dataclasses import replace

import click

from bam_search.errors import UserError
from bam_search.running.devices import DeviceSpeed
from bam_search.running.forecast import Calibration, Forecast, at_once, calibrated
from bam_search.running.plan import AT_LEAST, for_each, make_plan, plan_lines, with_plan
from bam_search.running.prepare import Request, ResolvedRun, one_per_space, resolve_run
from bam_search.words import duration

BUDGETS = (600.0, 3600.0, 8 * 3600.0)
"""Ten minutes, an hour and a night: what is planned for if no budget is given."""


def print_plan(request: Request, speed_text: str | None) -> None:
    """Print the plan for the request's budget, or one for each of BUDGETS.

    `speed_text` is what --device-speed says; without it the speed is measured here. Raises
    UserError.
    """
    speed = DeviceSpeed.of(speed_text) if speed_text else None
    if speed:
        request = replace(request, device=speed.device(request.device))
    requests = one_per_space(request)
    share = for_each(request, len(requests)).options.budget
    budgets = (share,) if share else BUDGETS
    for request_of_space in requests:
        ready = resolve_run(request_of_space)
        calibration = _calibration(ready, speed)
        click.echo(f"{ready.first_line}; data: {ready.source.text}", err=True)
        for budget in budgets:
            try:
                _print(ready, request_of_space, budget, calibration)
            except UserError as error:
                if share:
                    raise
                click.echo(f"\n{error.message}")


def _calibration(ready: ResolvedRun, speed: DeviceSpeed | None) -> Calibration:
    if speed is None:
        return calibrated(ready, AT_LEAST)
    return speed.calibration(ready, at_once(ready))


def _print(ready: ResolvedRun, request: Request, budget: float, speed: Calibration) -> None:
    total, test = ready.source.train, ready.source.test
    plan = make_plan(ready, request, budget, total, test, speed)
    ready, plan = with_plan(ready, plan, request)
    click.echo("")
    for line in plan_lines(ready, plan, total, test):
        click.echo(line)
    print_phases(plan.forecast(ready, total, test))


def print_phases(expected: Forecast) -> None:
    """Print each phase of a study with its trainings and its time."""
    for phase, seconds in expected.phases:
        click.echo(f"{phase.name:30} {phase.trainings:5,} trainings {duration(seconds):>12}")
    click.echo(f"{'latency of the finalists':30} {'':15} {duration(expected.latency):>12}")
