"""`count`: what placements cost, without training anything."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import click
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attach import fit_to_sites, resolve
from bam_search.model.attention import use_module_files
from bam_search.model.build import backbone, build, sites_of
from bam_search.model.detector import is_detector
from bam_search.model.load import Inputs, load
from bam_search.model.start import Start, StartPlan
from bam_search.model.trace import Shape
from bam_search.score.context import uses_bf16
from bam_search.score.cost import COUNTS, Cost, count, overheads
from bam_search.score.cost_table import cost_table
from bam_search.score.detector_parts import PartCost
from bam_search.score.device import choose
from bam_search.score.latency import Latency, LatencySetting, latency, training_memory
from bam_search.space.modules import files_of, is_definition, parse_definitions
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace, load_space, space_names
from bam_search.space.sites import Sites
from bam_search.study.record import UNCOUNTED
from bam_search.tasks.load_task import CLASSIFICATION, load_task
from bam_search.tasks.recipe import Recipe

HEADS = {
    "params": "params",
    "macs_conv_fc": "MACs conv+fc",
    "macs": "MACs all",
    "activations": "activations",
}
"""The counts, as the table's columns."""


@dataclass(frozen=True)
class Asked:
    """What the command line asked for.

    `shape` is (C, H, W) of one image; None, as `classes`, for what each space is made for.
    No spaces mean all that ship for the default task, no placements the paper's four. `modules`
    says what goes to targets without one, and where modules of the user's lie. `insertion` is as
    in the table `[start]` of a study.
    """

    spaces: tuple[str, ...]
    placements: tuple[str, ...]
    modules: tuple[str, ...]
    insertion: Literal["plain", "identity"]
    shape: Shape | None
    classes: int | None
    audit: bool
    latency: bool
    device: str
    batch: int

    def space(self, name: str) -> SearchSpace:
        """Return the space of this name for these images. Raises UserError if it has its own."""
        natural = load(name)
        if self.shape is None and self.classes is None:
            return natural
        shape, classes = self.shape or natural.input_shape, self.classes or natural.classes
        space = load(name, Inputs(shape, classes))
        if (space.input_shape, space.classes) != (shape, classes):
            raise UserError(
                f"space {name!r} says itself that it takes {space.input_shape} "
                f"and has {space.classes} outputs",
                "leave --input and --classes out",
            )
        return space

    def build(self, space: SearchSpace, sites: Sites, placement: Placement) -> nn.Module:
        """Return the model of a placement, with attention inserted as asked for."""
        return build(
            space, sites, placement, 0, Start(init=StartPlan(insertion=self.insertion).init)
        )


@dataclass(frozen=True)
class Row:
    """One placement of one space: `written` as the user wrote it, `placement` canonical.

    `parts` are those of the backbone, if that is a detector.
    """

    space: str
    written: str
    placement: Placement
    cost: Cost
    base: Cost
    measured: "Measured | None"
    parts: tuple[PartCost, ...] = ()


@dataclass(frozen=True)
class Measured:
    """The latencies and training memory of a placement, for `batch` images on `device`.

    `latency` compares with the backbone as trained, `deployed` one image as deployed; `memory` is
    that of one training step, in bytes, and `base_memory` the backbone's.
    """

    latency: Latency
    deployed: Latency
    memory: int
    base_memory: int
    batch: int
    device: str


def rows(asked: Asked) -> Iterator[Row]:
    """Yield a row for each placement of each space.

    Raises UserError, and ClickException (exit 1) if an audit fails.
    """
    module, usual = named_module(asked.modules)
    as_written = bool(asked.placements or module)
    texts = written_placements(asked.placements, module, usual)
    for name in asked.spaces or default_spaces():
        space = asked.space(name)
        sites = sites_of(space)
        costs = cost_table(space, sites, gated=asked.insertion == "identity")
        # All of them before the first row, so that a mistake comes without any.
        placements = [
            resolve(text, sites) if as_written else _fitted(name, text, sites) for text in texts
        ]
        for text, placement in zip(texts, placements, strict=True):
            cost = costs.cost(placement)
            if asked.audit:
                _audit(space, asked.build(space, sites, placement), placement, cost)
            measured = _measure(asked, space, sites, placement) if asked.latency else None
            yield Row(space.name, text, placement, cost, costs.base, measured, costs.parts)


def _fitted(space: str, text: str, sites: Sites) -> Placement:
    """Return the placement made to fit the network, and print what had to change for that."""
    placement, changes = fit_to_sites(text, sites)
    for change in changes:
        click.echo(f"{space}, {text}: {change}", err=True)
    return placement


def written_placements(
    placements: tuple[str, ...], module: str | None, usual: str = "bam"
) -> list[str]:
    """Return the placements to count, in which targets without `=` get the module, else `usual`.

    Raises UserError if `module` is given with a placement that names its own modules.
    """
    if not placements:
        return _default_placements(module, usual)
    return [_with_module(text, module, usual) for text in placements]


def _default_placements(module: str | None, usual: str) -> list[str]:
    """Return the paper's placements; SE is compared only where no module was asked for."""
    name = module or usual
    placements = ["none", f"bottleneck={name}", f"every-block={name}"]
    if not module:
        placements.append("every-block=se")
    return placements


def _with_module(text: str, module: str | None, usual: str) -> str:
    names_only_targets = "=" not in text and text.strip() != "none"
    if names_only_targets:
        return " ".join(f"{target}={module or usual}" for target in text.split())
    if module:
        raise UserError(
            f"--module {module!r} goes with targets such as 'bottleneck', not with {text!r}",
            "leave --module out",
        )
    return text


def default_spaces() -> list[str]:
    """Return the names of the spaces that ship for the task of a study that names none."""
    shape = load_task(CLASSIFICATION).inputs.shape
    return [name for name in space_names() if load_space(name).input_shape == shape]


def named_module(texts: tuple[str, ...]) -> tuple[str | None, str]:
    """Return the module that --module asks for, if any, and the one that is usual without.

    Texts such as `coord=my_module.py:CoordAttention` make a module known, and the first of these is
    the usual one instead of BAM. Raises UserError.
    """
    sources = parse_definitions(text for text in texts if is_definition(text))
    use_module_files(files_of(sources))
    named = [text for text in texts if not is_definition(text)]
    if len(named) > 1:
        raise UserError(f"--module names {' and '.join(named)}", "name one, and count twice")
    return next(iter(named), None), next(iter(sources), "bam")


def as_json(rows: list[Row]) -> str:
    """Return one JSON object for one row, and a list of objects for several."""
    objects = [_object(row) for row in rows]
    return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2)


def print_table(rows: Iterator[Row]) -> None:
    """Print an aligned line for each row, as soon as it is known; no header before a mistake."""
    first = next(rows)
    heads = " ".join(f"{head:>14} {'+%':>7}" for head in HEADS.values())
    click.echo(f"{'space':24} {'placement':28} {heads}")
    uncounted: set[str] = set()
    told = ""
    for row in itertools.chain([first], rows):
        if row.space != told:
            told = row.space
            for part in row.parts:
                click.echo(f"{row.space:24} {part.text} conv+fc")
        overhead = overheads(row.cost, row.base)
        counts = " ".join(f"{getattr(row.cost, key):14,} {overhead[key]:+z7.2f}" for key in HEADS)
        click.echo(f"{row.space:24} {row.written:28} {counts}")
        if row.measured:
            click.echo(f"{'':24} {_measured_line(row.measured)}")
        uncounted |= set(row.cost.uncounted)
    click.echo(f"{UNCOUNTED}: {', '.join(sorted(uncounted)) or 'none'}")


def _object(row: Row) -> dict[str, Any]:
    table: dict[str, Any] = {"schema": 1, "space": row.space, "placement": row.placement.text}
    table |= {key: getattr(row.cost, key) for key in COUNTS}
    table["by_operator"] = dict(row.cost.by_operator)
    table["base"] = {key: getattr(row.base, key) for key in COUNTS}
    table["overhead"] = overheads(row.cost, row.base)
    table["uncounted"] = sorted(row.cost.uncounted)
    if row.parts:
        table["parts"] = [asdict(part) for part in row.parts]
    if row.measured:
        measured = row.measured
        table["latency"] = asdict(measured.latency)
        table["deployed_latency"] = asdict(measured.deployed)
        table["training_memory"] = {"bytes": measured.memory, "base": measured.base_memory}
        table["measured_on"] = {"device": measured.device, "batch": measured.batch}
    return table


def _measure(asked: Asked, space: SearchSpace, sites: Sites, placement: Placement) -> Measured:
    device = choose(asked.device)
    model, plain = asked.build(space, sites, placement), backbone(space, seed=0)
    recipe = Recipe()
    # A detector asks the host how much it has found.
    graph = not is_detector(plain)
    bf16 = uses_bf16(recipe, device)
    setting = LatencySetting(device, space.input_shape, asked.batch, bf16, graph)
    timed, deployed = (latency(model, plain, one) for one in (setting, setting.deployed))
    plain.cpu()  # what it takes of a GPU's memory is not the model's
    memory = training_memory(model, setting, recipe)
    model.cpu()
    plain_memory = training_memory(plain, setting, recipe)
    return Measured(timed, deployed, memory, plain_memory, asked.batch, device.name)


def _measured_line(measured: Measured) -> str:
    memory = measured.memory / 2**20
    memory_without = measured.base_memory / 2**20
    return (
        f"on {measured.device}: time as trained, {measured.batch} images, "
        f"{_overhead(measured.latency)}; as deployed, 1 image, {_overhead(measured.deployed)}; "
        f"training memory {memory:,.0f} MiB ({memory_without:,.0f} without)"
    )


def _overhead(timed: Latency) -> str:
    """'+72.1 % (95 % interval +70.0 to +75.2)'."""
    over, low, high = (100 * (ratio - 1) for ratio in (timed.ratio, timed.low, timed.high))
    return f"{over:+z.1f} % (95 % interval {low:+z.1f} to {high:+z.1f})"


def _audit(space: SearchSpace, model: nn.Module, placement: Placement, cost: Cost) -> None:
    """Raise ClickException if fvcore, which traces the model, counts otherwise than `cost`."""
    traced = count(model, space.input_shape)
    if traced != cost:
        raise click.ClickException(
            f"{space.name}, {placement.text}: fvcore counts {traced}, its parts add up to {cost}"
        )
