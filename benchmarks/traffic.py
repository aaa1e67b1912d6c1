"""The bytes that one training image moves through a net.

They are counted operator by operator, and with batch normalisation, addition and ReLU as one
function.

    python -m benchmarks.traffic resnet18 resnet50 [--bytes-per-s 3.0e12]

One pass each way is watched on the meta device, where nothing is computed. Every operator reads the
maps that it is given from memory and writes those that it returns, at two bytes a number, but:

- batch normalisation reads its input twice, for the statistics and to normalise; backward it reads
  the gradient and the input twice;
- a convolution reads the gradient twice backward, for its input and for its weights;
- views, and what has no image in it (weights, statistics), move nothing.

What caches keep between two operators is not known here: on maps that fit into them a device does
better.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bam_search.model.load import load
from bam_search.model.trace import BATCH, Shape, Trace, trace
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS

IMAGE: Shape = (3, 32, 32)
BYTES = 2
"""Of a number: maps are bfloat16."""
TWICE = "batch_norm"
"""In the names of operators that read each map twice."""
VIEWS = {
    "view",
    "_unsafe_view",
    "t",
    "detach",
    "alias",
    "expand",
    "permute",
    "transpose",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
}
SAVED = {"norm-relu": 5, "norm-add-relu": 4}
"""How many map reads and writes a chain saves as one function (`bam_search/score/chain.py`).

Apart, normalising and ReLU move the map 3 + 2 times forward and 5 + 3 times backward; as one, 3 and
5 times. With an addition it is 3 + 3 + 2 and 5 + 3 times apart; as one, 4 and 8, because the
gradient of the sum is a result of its own, which the compiler writes before it takes its sums.
"""


def traffic(net: nn.Module, bytes_per_s: float) -> dict[str, float]:
    """Bytes a training image, and the most images a second at so many bytes a second.

    Both unfused (operator by operator) and fused. `net` takes (B, 3, 32, 32); it is not changed.
    """
    watched = trace(net, IMAGE)
    unfused = BYTES * moved(watched.model)
    fused = unfused - BYTES * sum(SAVED[kind] * numbers for kind, numbers in chains(watched))
    return {
        "bytes_per_image_unfused": unfused,
        "bytes_per_image_fused": fused,
        "images_per_s_unfused": bytes_per_s / unfused,
        "images_per_s_fused": bytes_per_s / fused,
    }


def chains(watched: Trace) -> list[tuple[str, int]]:
    """The chains that `recipe.fuse` makes one function.

    Each has its kind and the size of one image's map in it, in numbers.
    """
    readers = _readers(watched)
    found: dict[int, tuple[str, int]] = {}
    for call in watched.calls:
        is_norm = type(watched.model.get_submodule(call.name)) is nn.BatchNorm2d
        if call.out is None or not is_norm:
            continue
        after = _only(watched, readers, call.out)
        end = _only(watched, readers, after[0]) if after and after[1] == "add" else after
        # A sum of two normalisations is one chain, of one of them.
        if after and end and end[1] == "relu":
            kind = "norm-relu" if end == after else "norm-add-relu"
            found[end[0]] = (kind, torch.Size(call.shape).numel() // BATCH)
    return list(found.values())


def _readers(watched: Trace) -> dict[int, list[int]]:
    """The operations that read each operation's output."""
    readers: dict[int, list[int]] = {}
    for reader, sources in enumerate(watched.sources):
        for source in sources:
            readers.setdefault(source, []).append(reader)
    return readers


def _only(watched: Trace, readers: Mapping[int, list[int]], source: int) -> tuple[int, str] | None:
    """The one operation that reads `source`, and its kind."""
    found = readers.get(source, [])
    return (found[0], watched.kinds[found[0]]) if len(found) == 1 else None


def moved(net: nn.Module) -> int:
    """How many numbers operators read and write for one training image.

    It changes the running statistics of `net`.
    """
    watch = _Watch()
    images = torch.zeros(BATCH, *IMAGE, device=next(net.parameters()).device)
    with watch:
        logits = net.train()(images)
        torch.autograd.backward(logits, torch.zeros_like(logits))
    return watch.numbers // BATCH


@dataclass(eq=False)
class _Watch(TorchDispatchMode):
    """Adds up what the maps of a batch have in numbers, each time one is read or written."""

    numbers: int = 0

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = func.overloadpacket.__name__.rstrip("_")
        if kind not in VIEWS:
            read = (2 if TWICE in kind else 1) * _numbers((args, kwargs))
            if kind == "convolution_backward" and args[-1][0]:
                read += args[0].numel()
            self.numbers += read + _numbers(result)
        return result


def _numbers(values: object) -> int:
    maps = [
        t
        for t in tree_leaves(values)
        if isinstance(t, Tensor) and t.dim() > 1 and t.shape[0] == BATCH
    ]
    return sum(t.numel() for t in maps)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="+", help="search spaces")
    parser.add_argument(
        "--bytes-per-s",
        type=float,
        default=3.0e12,
        help="what the device's memory moves; an H100 about 3.0e12",
    )
    asked = parser.parse_args()
    nets = {name: load(name, CIFAR_INPUTS).backbone(100) for name in asked.nets}
    print(
        json.dumps({name: traffic(net, asked.bytes_per_s) for name, net in nets.items()}, indent=2)
    )


if __name__ == "__main__":
    main()
