"""Which operations of a module read or write a whole map, forward and backward.

This is what a GPU would do, found without one. Tensors are fake: on the device "cuda", with a shape
and a type, but without memory. So autocast does what it does on a GPU. Torch's engine does not go
backward over them, so the nodes of the graph are called one by one here, as the engine would.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHAPE = (6, 32, 10, 12)
"""Of the map: nothing else in a module of few channels has as many elements."""

MAKES_NOTHING = {
    "alias",
    "as_strided",
    "detach",
    "device",
    "empty_like",
    "expand",
    "permute",
    "select",
    "slice",
    "t",
    "transpose",
}
MAKES_NOTHING |= {"_unsafe_view", "squeeze", "unsqueeze", "view"}
"""Operations that move no numbers."""


@dataclass(frozen=True)
class Pass:
    """An operation, and the maps that it reads and writes."""

    name: str
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]


class _Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.passes: list[Pass] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        reads, writes = _maps((args, kwargs)), _maps(result)
        if name not in MAKES_NOTHING and (reads or writes):
            self.passes.append(Pass(name, reads, writes))
        return result


def _maps(tree: Any) -> tuple[Tensor, ...]:
    size = torch.Size(SHAPE).numel()
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    # One number for many elements is not a map in memory.
    return tuple(
        tensor for tensor in tensors if tensor.numel() == size and 0 not in tensor.stride()
    )


def traffic(make: Callable[[int], nn.Module]) -> tuple[list[Pass], list[Pass]]:
    """The passes over the map, forward and backward, of a module that trains in bf16 autocast.

    The map is channels-last and needs its gradient.
    """
    with FakeTensorMode(), torch.device("cuda"):
        module = make(SHAPE[1])
        leaf = torch.empty(SHAPE, dtype=torch.bfloat16, requires_grad=True)
        x = leaf.to(memory_format=torch.channels_last)
        forward, backward = _Watching(), _Watching()
        with forward, _autocast():
            y = module(x)
        gradient = torch.empty_like(y)
        with backward:
            _go_backward(y, gradient, x)
    return forward.passes, backward.passes


class _autocast:
    """Autocast on a GPU, which `torch.autocast` leaves off where there is none."""

    def __enter__(self) -> None:
        self.before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.autocast_increment_nesting()

    def __exit__(self, *_exception: object) -> None:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", self.before[0])
        torch.set_autocast_dtype("cuda", self.before[1])


def _go_backward(y: Tensor, gradient: Tensor, x: Tensor) -> None:
    """Call the nodes from `y` to `x`, and add up the gradients of what was used more than once."""
    gradients: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    gradients[y.grad_fn][y.output_nr] = gradient
    with torch.no_grad():
        for node in _in_order(y.grad_fn):
            got = gradients.pop(node, {})
            if node is x.grad_fn or not hasattr(node, "_input_metadata"):
                continue  # the map itself, or a parameter
            given = [got.get(i) for i in range(len(node._input_metadata))]
            made = node.apply(*given) if hasattr(node, "apply") else node(*given)
            made = made if isinstance(made, tuple) else (made,)
            for (after, i), value in zip(node.next_functions, made, strict=True):
                if after is not None and value is not None:
                    _add(gradients[after], i, _fitted(value, after, i))


def _in_order(root: Any) -> list[Any]:
    order: list[Any] = []
    seen: set[Any] = set()

    def visit(node: Any) -> None:
        if node is not None and node not in seen:
            seen.add(node)
            for after, _ in node.next_functions:
                visit(after)
            order.append(node)

    visit(root)
    return order[::-1]


def _fitted(value: Tensor, node: Any, i: int) -> Tensor:
    """A gradient in the shape and the type of what it is of, as the engine makes it."""
    like = node.variable if hasattr(node, "variable") else node._input_metadata[i]
    value = value if value.shape == like.shape else value.sum_to_size(like.shape)
    return value if value.dtype == like.dtype else value.to(like.dtype)


def _add(gradients: dict[int, Tensor], i: int, value: Tensor) -> None:
    gradients[i] = gradients[i] + value if i in gradients else value
