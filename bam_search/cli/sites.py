"""`sites`: where attention can go in a model, and what BAM costs there.

For every other submodule it says why attention cannot go there.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import click
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attention import canonical
from bam_search.model.build import backbone
from bam_search.model.find_sites import find_sites
from bam_search.model.load import load
from bam_search.model.trace import Shape
from bam_search.score.increments import increment
from bam_search.space.placement import Choice
from bam_search.space.sites import CHANNELS_FIRST, STAGE_ENDS, Site, Sites

BAM = Choice("bam")


@dataclass(frozen=True)
class Row:
    """One submodule: its site, what BAM adds there, or why it cannot."""

    name: str
    site: Site | None
    params: int | None
    macs: int | None
    why_not: str


def show(model: str, input_shape: Shape | None, target: str | None, as_json: bool) -> None:
    """Print the submodules of `model`, or those of its sites that `target` names.

    Raises UserError.
    """
    space = load(model)
    shape = input_shape or space.input_shape
    net = backbone(space, seed=0)
    sites = find_sites(net, shape)
    chosen = sites.select(target) if target else None
    rows = [row for row in _rows(net, sites) if chosen is None or row.site in chosen]
    if as_json:
        click.echo(json.dumps([_object(row) for row in rows], indent=2))
        return
    click.echo(_summary(model, shape, net, sites), err=True)
    for line in _table(rows):
        click.echo(line)


def _rows(net: nn.Module, sites: Sites) -> list[Row]:
    """Return a row for each submodule of `net`."""
    by_name = sites.by_name
    rows = []
    for name, _ in net.named_modules():
        if not name:
            continue  # the model itself
        if name in by_name:
            rows.append(_row(by_name[name]))
        else:
            rows.append(Row(name, None, None, None, sites.refused[name]))
    return rows


def _row(site: Site) -> Row:
    why_not = _why_not(site)
    if why_not:
        return Row(site.name, site, None, None, why_not)
    calls = [increment(BAM, site.channels, *sides) for sides in site.maps]
    macs = sum(call.macs_conv_fc for call in calls)
    return Row(site.name, site, calls[0].params, macs, "")


def _why_not(site: Site) -> str:
    """Return why BAM cannot go there, or an empty text if it can."""
    try:
        canonical(BAM, site.channels, site.side, site.dims)
    except UserError as error:
        return error.message
    return ""


def _summary(model: str, shape: Shape, net: nn.Module, sites: Sites) -> str:
    kinds = Counter(type(net.get_submodule(name)).__name__ for name in sites.blocks)
    blocks = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none found"
    ends = ", ".join(site.name for site in sites if STAGE_ENDS in site.roles) or "none found"
    size = "x".join(map(str, shape))
    return (
        f"{model} on images of {size}: {len(sites)} sites; blocks: {blocks}; stages end at: {ends}"
    )


def _table(rows: Iterable[Row]) -> list[str]:
    heads = (
        "module",
        "channels",
        "map",
        "stage",
        "block",
        "targets",
        "BAM params",
        "BAM MACs conv+fc",
        "why not",
    )
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return [_aligned(line, widths) for line in lines]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    numeric = {1, 2, 3, 6, 7}  # the columns that align on the right
    padded = []
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        padded.append(cell.rjust(width) if column in numeric else cell.ljust(width))
    return "  ".join(padded).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    site = row.site
    if site is None:
        return (row.name, "", "", "", "", "", "", "", row.why_not)
    size = "x".join(map(str, site.sides))
    if site.layout not in CHANNELS_FIRST.values():
        size = f"{size} {site.layout}"
    stage = "" if site.stage is None else str(site.stage)
    costs = ("", "")
    if row.params is not None and row.macs is not None:
        costs = (f"{row.params:,}", f"{row.macs:,}")
    return (
        row.name,
        str(site.channels),
        size,
        stage,
        site.block,
        " ".join(site.roles),
        *costs,
        row.why_not,
    )


def _object(row: Row) -> dict[str, Any]:
    unknown = dict.fromkeys(field.name for field in fields(Site))
    site = asdict(row.site) if row.site else {**unknown, "name": row.name}
    return {**site, "bam_params": row.params, "bam_macs_conv_fc": row.macs, "why_not": row.why_not}
