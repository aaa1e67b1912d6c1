"""`run --dry-run`: what a study would do, cost and take.

It reads the data that are at hand, and packs pictures for the run, but downloads nothing and writes
nothing of the study.
"""

import click

from bam_search.cli.plan import print_phases
from bam_search.config import flat
from bam_search.running.forecast import Forecast, calibrate, forecast, sizes, told
from bam_search.running.plan import for_each, plan_lines, planned
from bam_search.running.prepare import Request, ResolvedRun, one_per_space, resolve_run
from bam_search.score.cost import UNITS, Cost, overhead
from bam_search.score.estimate import most_expensive
from bam_search.search.workload import trainings
from bam_search.study.record import UNCOUNTED
from bam_search.words import counted, duration, listed

AT_LEAST = 1.0
"""Seconds for which each speed is measured."""
MOST_SITES = 24
"""More sites than these are not named."""


def print_dry_run(request: Request) -> int:
    """Print the resolved study, the size of its space, the range of costs and a time estimate."""
    requests = one_per_space(request)
    for request_of_space in requests:
        _show(for_each(request_of_space, len(requests)))
    return 0


def _show(request: Request) -> None:
    ready = resolve_run(request)
    data = ready.source.load() if ready.source.at_hand else None
    train, test = (data.train, data.test) if data else ((), ())
    total, tested = len(train) or ready.source.train, len(test) or ready.source.test
    ready, plan = planned(ready, request, total, tested)
    ready.study.data.sizes(total)  # a mistake comes before what is printed
    click.echo(f"{ready.first_line}; data: {ready.source.text}", err=True)
    for line in ready.opening_lines(data):
        click.echo(line, err=True)
    table = {**ready.study.to_dict(), "paper": f"{len(ready.study.paper)} figures"}
    for key, value in flat(table).items():
        click.echo(f"{key} = {value}")
    choice_space = ready.choice_space
    click.echo(
        f"\nspace {ready.space.name}: {len(choice_space.sites)} sites, "
        f"{choice_space.size:,} placements"
    )
    if ready.study.searches:
        click.echo(f"searched sites: {listed(list(choice_space.sites), MOST_SITES)}")
    _echo_costs(ready)
    click.echo("")
    if plan is None:
        _echo_time(ready, total, tested)
        return
    for line in plan_lines(ready, plan, total, tested):
        click.echo(line)
    _echo_phases(ready, plan.forecast(ready, total, tested), total)


def _echo_costs(ready: ResolvedRun) -> None:
    backbone = ready.costs.base
    rows = dict(ready.references)
    rows["every site at its most expensive"] = most_expensive(ready.choice_space, ready.costs)
    width = max(map(len, rows))
    click.echo(
        f"\n{'':{width}} {'params':>12} {'overhead':>9} "
        f"{'MACs conv+fc':>15} {'overhead':>9} {'MACs all':>15} {'overhead':>9}"
    )
    for name, placement in rows.items():
        click.echo(f"{name:{width}} {_counts(ready.costs.cost(placement), backbone)}")
    if backbone.uncounted:
        click.echo(f"{UNCOUNTED}: {', '.join(backbone.uncounted)}")


def _counts(cost: Cost, backbone: Cost) -> str:
    cells = []
    for key, width in (("params", 12), ("macs_conv_fc", 15), ("macs", 15)):
        count, without = getattr(cost, key), getattr(backbone, key)
        cells.append(f"{count:{width},} {overhead(count, without, UNITS[key]):+z7.2f} %")
    return " ".join(cells)


def _echo_time(ready: ResolvedRun, total: int, test: int) -> None:
    speed = calibrate(ready, AT_LEAST)
    if isinstance(speed, str):
        click.echo(told(speed))
        return
    expected = forecast(ready.study, sizes(ready, ready.study, total, test), speed)
    _echo_phases(ready, expected, total)


def _echo_phases(ready: ResolvedRun, expected: Forecast, total: int) -> None:
    print_phases(expected)
    seen = ready.study.data.sizes(total).train * ready.study.recipe.epochs
    one_training = [speed.seconds(1, seen) for speed in expected.calibration.speeds]
    least, most = min(one_training), max(one_training)
    click.echo(
        f"one training of {counted(seen, ready.task.sample)}: "
        f"{duration(least)} to {duration(most)}, {expected.calibration.source}"
    )
    total = trainings([phase for phase, _ in expected.phases])
    click.echo(
        f"the study: about {duration(expected.seconds)} for {total:,} trainings, "
        f"{ready.study.workers} at a time; finalists are estimated, and "
        "reading the data and the report come on top"
    )
