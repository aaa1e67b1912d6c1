"""`sites`: where attention can go in a model, what BAM would cost there, and why it cannot go
elsewhere.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import click
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attention import canonical
from bam_search.model.build import backbone
from bam_search.model.find_sites import find_sites
from bam_search.model.load import load
from bam_search.model.trace import Shape
from bam_search.score.formula import increment
from bam_search.space.placement import Choice
from bam_search.space.sites import CHANNELS_LAST, STAGE_ENDS, Site, Sites

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
    """Print the submodules of `model`, those that `target` names if it is given.

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


def parse_shape(text: str) -> Shape:
    """`3x224x224` -> (3, 224, 224). Raises UserError."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"--input {text!r} is not CxHxW", "for example --input 3x224x224")
    channels, height, width = map(int, parts)
    return channels, height, width


def _rows(net: nn.Module, sites: Sites) -> list[Row]:
    by_name = sites.by_name
    names = [name for name, _ in net.named_modules() if name]
    return [
        _row(by_name[name]) if name in by_name else Row(name, None, None, None, sites.refused[name])
        for name in names
    ]


def _row(site: Site) -> Row:
    try:
        canonical(BAM, site.channels, site.side)
    except UserError as error:
        return Row(site.name, site, None, None, error.message)
    added = increment(BAM, site)
    return Row(site.name, site, added.params, added.macs_conv_fc, "")


def _summary(model: str, shape: Shape, net: nn.Module, sites: Sites) -> str:
    kinds = Counter(type(net.get_submodule(name)).__name__ for name in sites.blocks)
    blocks = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none found"
    ends = ", ".join(site.name for site in sites if STAGE_ENDS in site.roles) or "none found"
    return f"{model} on images of {'x'.join(map(str, shape))}: {len(sites)} sites; blocks: {blocks}; stages end at: {ends}"


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
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    right = {1, 2, 3, 6, 7}
    lines = (
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
    return [line.rstrip() for line in lines]


def _cells(row: Row) -> tuple[str, ...]:
    site = row.site
    if site is None:
        return (row.name, "", "", "", "", "", "", "", row.why_not)
    size = f"{site.height}x{site.width}" + (
        f" {CHANNELS_LAST}" if site.layout == CHANNELS_LAST else ""
    )
    stage = "" if site.stage is None else str(site.stage)
    costs = (
        ("", "") if row.params is None or row.macs is None else (f"{row.params:,}", f"{row.macs:,}")
    )
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
    site = asdict(row.site) if row.site else {"name": row.name}
    return {**site, "bam_params": row.params, "bam_macs_conv_fc": row.macs, "why_not": row.why_not}
