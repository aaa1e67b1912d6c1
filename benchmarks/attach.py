"""Attention at any site of any model, tried on the models of torchvision and timm.

Tried are every classification model of torchvision and one model of each timm family.

    python -m benchmarks.attach [--out benchmarks/results/attach.csv] [LIBRARY:NAME ...]

For each model and each of the targets `bottleneck` and `every-block`: BAM is attached; a forward
and a backward pass on the meta device must have the right shapes; fvcore must count what the closed
forms say; `detach` must leave every module, child, hook and key as it was; for models of at most 30
M parameters the outputs of a training pass must be equal again, and equal while attached with
init="identity". A family of timm is the part of the names before the first underscore; its first
model of less than a billion parameters is the one tried.
"""

import argparse
import copy
import csv
import multiprocessing
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bam_search.errors import UserError, last_line
from bam_search.model.attach import attach, detach, resolve
from bam_search.model.find_sites import find_sites
from bam_search.model.insert import attended
from bam_search.model.load import load, names, natural_shape
from bam_search.model.trace import Shape
from bam_search.score.cost import Cost, count
from bam_search.score.increments import increment
from bam_search.space.placement import Placement
from bam_search.space.sites import Sites

TARGETS = ("bottleneck", "every-block")
MODULE = "bam(r=4,d=1)"
"""Legal on every map of at least four channels."""

TINY = (3, 64, 64)
"""The images that models are run on, if they are the same models there; sites are found on the
images that they were made for.
"""

SMALL = 30_000_000
"""Parameters of a model that is also run on real numbers."""


@dataclass(frozen=True)
class Row:
    """The result of one model: which targets attach, and why the others do not.

    `sites` and `stages` are how many were found.
    """

    library: str
    model: str
    family: str
    sites: int = 0
    stages: int = 0
    blocks: int = 0
    attached: str = ""
    reason: str = ""
    broken: str = ""


def models() -> list[str]:
    """Every classification model of torchvision, and one of each timm family.

    They are named as on the command line.
    """
    first: dict[str, str] = {}
    for name in names("timm"):
        if family(name) not in first and not _is_huge(name):
            first[family(name)] = name
    return [
        *(f"torchvision:{name}" for name in names("torchvision")),
        *(f"timm:{name}" for name in first.values()),
    ]


def _is_huge(name: str) -> bool:
    """Whether a timm model has a billion parameters or more by its name: `vit_5b_...`.

    Such a model fills this machine's memory.
    """
    return re.search(r"_[1-9]\d*b_|giant|gigantic", name) is not None


def family(name: str) -> str:
    """The part of a timm name before the first underscore."""
    return name.split("_")[0]


def tried(reference: str) -> Row:
    """One model's row; `broken` is a promise that did not hold."""
    torch.set_num_threads(1)
    library, name = reference.split(":")
    row = Row(library, name, family(name) if library == "timm" else name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _tried(row, reference)
        except UserError as error:
            return replace(row, reason=error.message)
        except Exception:  # a broken promise of ours is a result of this benchmark
            return replace(row, broken=last_line(traceback.format_exc())[:200])


def _tried(row: Row, reference: str) -> Row:
    shape = natural_shape(reference)
    model = load(reference).backbone(1000)
    sites = find_sites(model, shape)
    tiny = _tiny(model, shape, sites)
    base = count(model, tiny)
    attached, reasons = [], {}
    for target in TARGETS:
        try:
            placement = resolve(f"{target}={MODULE}", sites)
        except UserError as error:
            reasons[target] = error.message
            continue
        _check(model, tiny, base, placement)
        attached.append(target)
    return replace(
        row,
        sites=len(sites),
        stages=len({s.stage for s in sites} - {None}),
        blocks=len({s.block for s in sites} - {""}),
        attached=" ".join(attached),
        reason="; ".join(dict.fromkeys(reasons.values())),
    )


def _tiny(model: nn.Module, shape: Shape, sites: Sites) -> Shape:
    """TINY, if the model has the same stages and blocks at that size; else the model's shape."""
    try:
        same = [(s.name, s.roles) for s in find_sites(model, TINY) if s.roles] == [
            (s.name, s.roles) for s in sites if s.roles
        ]
    except UserError:
        same = False
    return TINY if same else shape


def _check(model: nn.Module, shape: Shape, base: Cost, placement: Placement) -> None:
    """Raises AssertionError for a promise that does not hold."""
    sites = find_sites(model, shape)
    small = sum(p.numel() for p in model.parameters()) <= SMALL
    before, shapes = _fingerprint(model), _trained_shapes(model, shape)
    outputs = _outputs(model, shape) if small else []
    attach(model, placement, sites=sites)
    assert _trained_shapes(model, shape) == shapes, "the outputs have other shapes"
    _check_count(model, shape, sites, placement, base)
    detach(model)
    assert _fingerprint(model) == before, "detach leaves something behind"
    if small:
        attach(model, placement, sites=sites, init="identity")
        assert _equal(_outputs(model, shape), outputs), "init=identity changes the outputs"
        detach(model)
        assert _equal(_outputs(model, shape), outputs), "detach does not restore the outputs"


def _trained_shapes(model: nn.Module, shape: Shape) -> list[tuple[int, ...]]:
    """The output shapes of a training step's forward pass.

    The step's backward pass has to reach all attention.
    """
    twin = copy.deepcopy(model).to("meta").train()
    leaves = tree_leaves(twin(torch.zeros(2, *shape, device="meta")))
    outputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    torch.stack([output.sum() for output in outputs]).sum().backward()
    for child in attended(twin).values():
        _check_gradients(twin.get_submodule(child))
    return [tuple(output.shape) for output in outputs]


def _check_gradients(attention: nn.Module) -> None:
    for parameter in attention.parameters():
        reached = parameter.grad is not None and parameter.grad.shape == parameter.shape
        assert reached, "a parameter of the attention gets no gradient"


def _check_count(
    model: nn.Module, shape: Shape, sites: Sites, placement: Placement, base: Cost
) -> None:
    by_name = sites.by_name
    chosen = [(choice, by_name[name]) for name, choice in placement.choices]
    added = [increment(choice, at.channels, *at.sides) for choice, at in chosen]
    found = count(model, shape)
    assert found.params == base.params + sum(a.params for a in added), (
        "parameters differ from the sum"
    )
    expected = base.macs_conv_fc + sum(a.macs_conv_fc for a in added)
    assert found.macs_conv_fc == expected, (
        f"MACs differ from the sum: {found.macs_conv_fc} and {expected}"
    )


def _fingerprint(model: nn.Module) -> list[object]:
    return [
        (
            name,
            id(m),
            [(key, id(child)) for key, child in m.named_children()],
            [id(hook) for hook in m._forward_hooks.values()],
        )
        for name, m in model.named_modules()
    ] + [(key, id(value)) for key, value in (*model.named_parameters(), *model.named_buffers())]


def _outputs(model: nn.Module, shape: Shape) -> list[Tensor]:
    # In training mode, where normalisations keep random weights from overflowing; the seed draws
    # the same units to drop.
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.no_grad():
        return [t for t in tree_leaves(model.train()(images)) if isinstance(t, Tensor)]


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        torch.allclose(a, b, 0, 0, equal_nan=True) for a, b in zip(one, other, strict=True)
    )


def main() -> None:
    """Try the models, and write one row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="LIBRARY:NAME")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    rows = []
    for row in _all(asked.models or models(), asked.processes):
        rows.append(row)
        print(" | ".join(str(value) for value in asdict(row).values()), file=sys.stderr, flush=True)
    with asked.out.open("w", newline="") if asked.out else sys.stdout as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    if any(row.broken for row in rows):
        raise SystemExit(1)


def _all(references: list[str], processes: int) -> Iterator[Row]:
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=8) as pool:
        yield from pool.imap(tried, references)


if __name__ == "__main__":
    main()
