"""`run --dry-run`: what a study would do, cost and take. Writes and downloads nothing."""

import click

from bam_search.cli.forecast import duration, forecast, sizes, told
from bam_search.cli.prepare import Request, ResolvedRun, one_per_space, resolve_run
from bam_search.config import flat
from bam_search.score.cost import overhead
from bam_search.score.estimate import most_expensive

TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000
"""Of CIFAR-100: a dry run does not read the data."""
AT_LEAST = 1.0
"""Seconds for which each speed is measured."""


def print_dry_run(request: Request) -> int:
    """Print the resolved study, the size of its space, the range of costs and a time estimate."""
    for part in one_per_space(request):
        _show(resolve_run(part))
    return 0


def _show(ready: ResolvedRun) -> None:
    click.echo(f"{ready.first_line}; data: {ready.source.text}", err=True)
    for note in (*ready.notes, *ready.advice):
        click.echo(note, err=True)
    for key, value in flat(
        {**ready.study.to_dict(), "paper": f"{len(ready.study.paper)} figures"}
    ).items():
        click.echo(f"{key} = {value}")
    click.echo(
        f"\nspace {ready.space.name}: {len(ready.choice_space.sites)} sites, {ready.choice_space.size:,} placements"
    )
    _echo_costs(ready)
    _echo_time(ready)


def _echo_costs(ready: ResolvedRun) -> None:
    base = ready.costs.base
    rows = dict(ready.references)
    rows["every site at its most expensive"] = most_expensive(ready.choice_space, ready.costs)
    click.echo(
        f"\n{'':28} {'params':>12} {'overhead':>9} {'MACs conv+fc':>15} {'overhead':>9} {'MACs all':>15} {'overhead':>9}"
    )
    for name, placement in rows.items():
        cost = ready.costs.cost(placement)
        cells = (
            (cost.params, base.params, 12),
            (cost.macs_conv_fc, base.macs_conv_fc, 15),
            (cost.macs, base.macs, 15),
        )
        click.echo(
            f"{name:28} "
            + " ".join(f"{n:{width},} {overhead(n, other):+7.2f} %" for n, other, width in cells)
        )
    if base.uncounted:
        click.echo(f"not counted: {', '.join(base.uncounted)}")


def _echo_time(ready: ResolvedRun) -> None:
    images = ready.study.data.limit or TRAIN_IMAGES
    held_out = round(images * ready.study.data.validation)
    found = forecast(ready, sizes(ready, images - held_out, held_out, TEST_IMAGES), AT_LEAST)
    click.echo("")
    if isinstance(found, str):
        click.echo(told(found))
        return
    for phase, seconds in found.phases:
        click.echo(f"{phase.name:28} {phase.trainings:5,} trainings {duration(seconds):>12}")
    n = sum(phase.trainings for phase, _ in found.phases)
    least, most = (
        pick(speed.seconds(1, images * ready.study.recipe.epochs) for speed in found.speeds)
        for pick in (min, max)
    )
    click.echo(
        f"one training of {images * ready.study.recipe.epochs:,} images: {duration(least)} to {duration(most)}, measured just now"
    )
    click.echo(
        f"the study: about {duration(found.seconds)} for {n:,} trainings, {ready.study.workers} at a time; finalists are estimated, and "
        "reading the data, starting processes and the report come on top"
    )
