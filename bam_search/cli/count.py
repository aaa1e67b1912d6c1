"""`count`: what placements cost, without training anything."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click

from bam_search.config import known
from bam_search.errors import UserError
from bam_search.model.attach import fit, resolve
from bam_search.model.build import backbone, build, sites_of
from bam_search.model.load import load
from bam_search.score.context import uses_bf16
from bam_search.score.cost import COUNTS, Cost, count, overheads
from bam_search.score.cost_table import cost_table
from bam_search.score.data import SHAPE
from bam_search.score.device import choose
from bam_search.score.latency import Latency, LatencySetting, latency, training_memory
from bam_search.score.recipe import Recipe
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace, load_space
from bam_search.space.sites import Sites

HEADS = {
    "params": "params",
    "macs_conv_fc": "MACs conv+fc",
    "macs": "MACs all",
    "activations": "activations",
}
"""The counts, as the table's columns."""


@dataclass(frozen=True)
class Asked:
    """What the command line asked for; no space means all for CIFAR, no placement the paper's four."""

    spaces: tuple[str, ...]
    placements: tuple[str, ...]
    module: str | None
    audit: bool
    latency: bool
    device: str
    batch: int


@dataclass(frozen=True)
class Row:
    """One placement of one space: `written` as the user wrote it, `placement` canonical."""

    space: str
    written: str
    placement: Placement
    cost: Cost
    base: Cost
    measured: "Measured | None"


@dataclass(frozen=True)
class Measured:
    """The time beside the backbone's, and the memory of a training step in bytes, for `batch`
    images on `device`.
    """

    latency: Latency
    memory: int
    base_memory: int
    batch: int
    device: str


def rows(asked: Asked) -> Iterator[Row]:
    """Each space's placements in turn.

    Raises UserError, and ClickException (exit 1) if an audit fails.
    """
    texts = written_placements(asked.placements, asked.module)
    for name in asked.spaces or cifar_spaces():
        space = load(name)
        sites = sites_of(space)
        costs = cost_table(space, sites)
        for text in texts:
            placement = (
                resolve(text, sites)
                if asked.placements or asked.module
                else _fitted(name, text, sites)
            )
            cost = costs.cost(placement)
            if asked.audit:
                _audit(space, sites, placement, cost)
            measured = _measure(asked, space, sites, placement) if asked.latency else None
            yield Row(space.name, text, placement, cost, costs.base, measured)


def _fitted(space: str, text: str, sites: Sites) -> Placement:
    placement, changes = fit(text, sites)
    for change in changes:
        click.echo(f"{space}, {text}: {change}", err=True)
    return placement


def written_placements(placements: tuple[str, ...], module: str | None) -> list[str]:
    """The placements to count: targets without `=` get the module.

    Raises UserError for a module that nothing takes.
    """
    if not placements:
        one = module or "bam"
        return [
            "none",
            f"bottleneck={one}",
            f"every-block={one}",
            *([] if module else ["every-block=se"]),
        ]
    written = []
    for text in placements:
        plain = "=" not in text and text.strip() != "none"
        if module and not plain:
            raise UserError(
                f"--module {module!r} goes with targets such as 'bottleneck', not with {text!r}",
                "leave --module out",
            )
        written.append(
            " ".join(f"{target}={module or 'bam'}" for target in text.split()) if plain else text
        )
    return written


def cifar_spaces() -> list[str]:
    """The spaces that ship for CIFAR-100."""
    return [name for name in known("search_spaces", ".py") if load_space(name).input_shape == SHAPE]


def as_json(found: list[Row]) -> str:
    """One object for one row, else a list."""
    objects = [_object(row) for row in found]
    return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2)


def print_table(found: Iterator[Row]) -> None:
    """An aligned line a row, as soon as it is known."""
    click.echo(
        f"{'space':24} {'placement':28} "
        + " ".join(f"{head:>14} {'+%':>7}" for head in HEADS.values())
    )
    uncounted: set[str] = set()
    for row in found:
        over = overheads(row.cost, row.base)
        click.echo(
            f"{row.space:24} {row.written:28} "
            + " ".join(f"{getattr(row.cost, key):14,} {over[key]:+7.2f}" for key in HEADS)
        )
        if row.measured:
            click.echo(f"{'':24} {_measured_line(row.measured)}")
        uncounted |= set(row.cost.uncounted)
    click.echo(f"not counted: {', '.join(sorted(uncounted)) or 'nothing'}")


def _object(row: Row) -> dict[str, Any]:
    table: dict[str, Any] = {"schema": 1, "space": row.space, "placement": row.placement.text}
    table |= {key: getattr(row.cost, key) for key in COUNTS}
    table["by_operator"] = dict(row.cost.by_operator)
    table["base"] = {key: getattr(row.base, key) for key in COUNTS}
    table["overhead"] = overheads(row.cost, row.base)
    table["uncounted"] = sorted(row.cost.uncounted)
    if row.measured:
        found = row.measured
        table["latency"] = asdict(found.latency)
        table["training_memory"] = {"bytes": found.memory, "base": found.base_memory}
        table["measured_on"] = {"device": found.device, "batch": found.batch}
    return table


def _measure(asked: Asked, space: SearchSpace, sites: Sites, placement: Placement) -> Measured:
    device = choose(asked.device)
    model, base = build(space, sites, placement, seed=0), backbone(space, seed=0)
    setting = LatencySetting(device, space.input_shape, asked.batch, uses_bf16(Recipe(), device))
    timed = latency(model, base, setting)
    memory, base_memory = (training_memory(net, setting) for net in (model, base))
    return Measured(timed, memory, base_memory, asked.batch, device.name)


def _measured_line(found: Measured) -> str:
    timed = found.latency
    return (
        f"time x {timed.ratio:.3f} (95 % {timed.low:.3f} to {timed.high:.3f}, {timed.pairs} pairs), training memory "
        f"{found.memory / 2**20:,.0f} MiB ({found.base_memory / 2**20:,.0f} without), {found.batch} images on {found.device}"
    )


def _audit(space: SearchSpace, sites: Sites, placement: Placement, cost: Cost) -> None:
    traced = count(build(space, sites, placement, seed=0), space.input_shape)
    if traced != cost:
        raise click.ClickException(
            f"{space.name}, {placement.text}: fvcore counts {traced}, the closed forms say {cost}"
        )
