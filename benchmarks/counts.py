"""The MACs of convolutions and linear layers, against torch's own counter.

    python -m benchmarks.counts [--out benchmarks/results/counts.csv] [LIBRARY:NAME ...]

Counted are every classification model of torchvision and the smallest model of each timm family (a
family is the part of a name before the first underscore), on one image of the size that it was made
for. `count` traces a copy on the CPU; `torch.utils.flop_counter.FlopCounterMode` watches a pass on
the meta device, and counts an addition as well as a multiplication, so it is halved. Attention is
set to be written out in both, as torch's counter knows no fused attention of a CPU.

Two sums are compared. `conv_linear` are convolutions and linear layers, for torch what runs as
`convolution`, `addmm` and `mm`. `products` are these and all other products of matrices, such as
those of attention, which are no layers and a convention of their own. Where a model multiplies two
activations by `mm`, or a weight by `bmm`, or has recurrent layers, the first sums differ and the
second do not.

A row is written as soon as it is known; models that have a row are not counted again.
"""

import argparse
import csv
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bam_search.errors import first_line
from bam_search.model.load import load, names, natural_shape
from bam_search.model.trace import Shape
from bam_search.model.twin import twin_of
from bam_search.score.cost import Cost, count
from bam_search.score.countable import without_fast_path
from benchmarks.attach import family

OUT = Path(__file__).parent / "results" / "counts.csv"
LARGEST = 1_000_000_000
"""Parameters of a model that this machine's memory holds."""
LAYERS = ("convolution", "addmm", "mm")
"""What torch's counter calls the products that convolutions and linear layers run as."""
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
PRODUCTS = (
    *("conv", "linear", "bilinear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "einsum"),
    *("tensordot", "inner", "scaled_dot_product_attention", *RECURRENT),
)
"""What fvcore and our handles call all products that torch's counter sees."""


@dataclass(frozen=True)
class Row:
    """The MACs of one model, ours and torch's; `why` says why the first two differ."""

    library: str
    model: str
    family: str
    image: str = ""
    conv_linear: int = 0
    torch_conv_linear: int = 0
    products: int = 0
    torch_products: int = 0
    equal: str = "no"
    why: str = ""


def compared(library: str, name: str) -> Row:
    """The row of one model."""
    row = Row(library, name, family(name) if library == "timm" else name)
    try:
        shape = natural_shape(f"{library}:{name}")
        model = _built(library, name).eval().requires_grad_(False)
        if sum(p.numel() for p in model.parameters()) > LARGEST:
            return replace(row, why=f"more than {LARGEST:,} parameters")
        by_torch = _counted_by_torch(twin_of(model, "meta"), shape)
        cost = count(model, shape)
    except Exception as error:  # what a model raises is a result of this benchmark
        return replace(row, why=f"{type(error).__name__}: {first_line(error)}"[:200])
    return _filled(replace(row, image="x".join(map(str, shape))), cost, by_torch)


def _filled(row: Row, cost: Cost, by_torch: dict[str, int]) -> Row:
    ours = sum(cost.by_operator.get(name, 0) for name in PRODUCTS)
    layers = sum(by_torch.get(name, 0) for name in LAYERS)
    total = sum(by_torch.values())
    row = replace(
        row,
        conv_linear=cost.macs_conv_fc,
        torch_conv_linear=layers,
        products=ours,
        torch_products=total,
    )
    if cost.macs_conv_fc == layers:
        return replace(row, equal="yes")
    recurrent = sum(cost.by_operator.get(name, 0) for name in RECURRENT)
    return replace(row, why=_difference(cost.macs_conv_fc - layers, ours - total, recurrent))


def _difference(layers: int, products: int, recurrent: int) -> str:
    if products:
        return f"the products of matrices differ by {products:+,} MACs"
    if -layers == recurrent:
        return f"{recurrent:,} MACs of mm are of recurrent layers; all products together are equal"
    if layers < 0:
        return f"{-layers:,} MACs of mm multiply two activations; all products together are equal"
    return f"{layers:,} MACs of bmm multiply by a weight; all products together are equal"


def _counted_by_torch(model: nn.Module, shape: Shape) -> dict[str, int]:
    """The MACs by operator as torch counts them."""
    counter = FlopCounterMode(display=False)
    with without_fast_path(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, *shape, device="meta"))
    flops = counter.get_flop_counts().get("Global", {})
    return {operator.__name__: n // 2 for operator, n in flops.items()}


def _built(library: str, name: str) -> nn.Module:
    """The model on the meta device; on the CPU if it needs values for that."""
    backbone = load(f"{library}:{name}").backbone
    try:
        with torch.device("meta"):
            return backbone(1000)
    except Exception:  # whatever it lacks there
        return backbone(1000)


def models(done: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Library and name of each model to count, apart from those that are done."""
    for name in names("torchvision"):
        if ("torchvision", name) not in done:
            yield "torchvision", name
    families: dict[str, list[str]] = {}
    for name in names("timm"):
        families.setdefault(family(name), []).append(name)
    for members in families.values():
        if done.isdisjoint(("timm", name) for name in members):
            yield "timm", min(members, key=_size)


def _size(name: str) -> float:
    """The parameters of a timm model; infinite if it cannot be built on the meta device."""
    try:
        with torch.device("meta"):
            model = load(f"timm:{name}").backbone(1000)
    except Exception:  # whatever it lacks there, another member may be built
        return float("inf")
    return float(sum(p.numel() for p in model.parameters()))


def main() -> None:
    """Append a row for each model that has none."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("models", nargs="*", metavar="LIBRARY:NAME")
    asked = parser.parse_args()
    given = [(library, name) for library, _, name in (m.partition(":") for m in asked.models)]
    done = _done(asked.out)
    with asked.out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        if not done:
            writer.writeheader()
        for library, name in given or models(done):
            row = compared(library, name)
            writer.writerow(asdict(row))
            file.flush()
            print(f"{library}:{name}: {row.equal} {row.why}", file=sys.stderr)


def _done(path: Path) -> set[tuple[str, str]]:
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["library"], row["model"]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
