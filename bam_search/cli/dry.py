"""`run --dry-run`: what a study would do, cost and take. Writes and downloads nothing."""

import click

from bam_search.cli.prepare import Ready, Request, each, prepare
from bam_search.config import flat
from bam_search.score.cost import overhead
from bam_search.score.estimate import dearest, seconds_per_image


def dry(request: Request) -> int:
    """Print the resolved study, the size of its space, the range of costs and a time estimate."""
    for part in each(request):
        _show(prepare(part))
    return 0


def _show(ready: Ready) -> None:
    click.echo(f"{ready.first_line}; data: {ready.source.text}", err=True)
    for note in ready.notes:
        click.echo(note, err=True)
    for key, value in flat({**ready.study.to_dict(), "paper": f"{len(ready.study.paper)} figures"}).items():
        click.echo(f"{key} = {value}")
    click.echo(f"\nspace {ready.space.name}: {len(ready.menu.sites)} sites, {ready.menu.size:,} placements")
    _echo_costs(ready)
    _echo_time(ready)


def _echo_costs(ready: Ready) -> None:
    base = ready.costs.base
    rows = dict(ready.references)
    rows["every site at its dearest"] = dearest(ready.menu, ready.costs)
    click.echo(f"\n{'':28} {'params':>12} {'overhead':>9} {'MACs conv+fc':>15} {'overhead':>9} {'MACs all':>15} {'overhead':>9}")
    for name, placement in rows.items():
        cost = ready.costs.cost(placement)
        cells = ((cost.params, base.params, 12), (cost.macs_conv_fc, base.macs_conv_fc, 15), (cost.macs, base.macs, 15))
        click.echo(f"{name:28} " + " ".join(f"{n:{width},} {overhead(n, other):+7.2f} %" for n, other, width in cells))
    if base.uncounted:
        click.echo(f"not counted: {', '.join(base.uncounted)}")


def _echo_time(ready: Ready) -> None:
    study = ready.study
    images = (study.data.limit or 50_000) * study.recipe.epochs
    texts = [placement.text for placement in ready.references.values()] or ["none"]
    speeds = [seconds_per_image(ready.space, ready.sites, text, study.recipe, ready.device, ready.threads) for text in texts]
    mean = images * sum(speeds) / len(speeds)
    finalists = len(ready.references) + 6 * ready.searches
    total = mean * (study.trials + finalists * study.finals.seeds) / study.workers
    click.echo(
        f"\none training: {images * min(speeds):,.0f} to {images * max(speeds):,.0f} s, measured on the references, {images:,} images each"
    )
    click.echo(
        f"the study: about {total / 60:,.1f} min for {study.trials} candidates and {'some ' * ready.searches}{finalists} finalists with "
        f"{study.finals.seeds} seeds each, {study.workers} at a time; "
        "reading the data and starting processes come on top"
    )
