"""Where on the input each element of a submodule's output comes from.

The places are followed through one forward pass, operation by operation: layout operations move
them, convolutions thin them out, a product of matrices leaves to each row the place of its row. So
a tensor's axes are told apart, and tokens are known to be the patches of an image, in which order.
It is seen too whether anything reads these patches later on. Nothing is computed of the model's own
values, so it may be on the meta device.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bam_search.model.arguments import Arguments

Places = tuple[Tensor, ...]
"""A coordinate of each element, from 0 to 1, along each side of the input.

NaN where an element comes from no place, such as a class token.
"""

MOVES = frozenset(
    {
        *("permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "repeat", "unfold"),
        *("slice", "select", "split", "split_with_sizes", "chunk", "unbind", "flip", "roll"),
    }
)
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias"})
JOINS = frozenset({"cat", "stack"})
PRODUCTS: Mapping[str, int] = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""Products of matrices, and which argument is the first factor."""
RESAMPLES = ("convolution", "max_pool", "avg_pool", "adaptive", "upsample", "mkldnn_max_pool")
"""How the names begin of what makes another resolution of a map."""
LOSES = ("index", "gather", "scatter", "sort", "topk", "masked", "take", "as_strided", "copy")
"""How the names begin of what may put elements anywhere."""


@dataclass(frozen=True)
class Followed:
    """The places of what submodules return, by name, without those that are lost on the way.

    `read` has the names of those of which the model's output reads more than elements that come
    from no place.
    """

    places: Mapping[str, Places]
    read: frozenset[str]


def followed(model: nn.Module, inputs: Arguments, names: Iterable[str]) -> Followed:
    """The places of what the submodules of these names return, on the first of the inputs."""
    found: dict[str, Places] = {}
    follow = _Follow((*inputs.images, *inputs.tensors)[0])

    def listen(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            places = follow.places(output)
            if places is not None:
                found[name] = places
                follow.carry(output, {name})

        return hook

    handles = [model.get_submodule(n).register_forward_hook(listen(n)) for n in names]
    try:
        with torch.no_grad(), follow:
            output = model(*inputs.args, **inputs.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return Followed(found, follow.read.union(*map(follow.carried, tree_leaves(output))))


def is_grid(places: Places) -> bool:
    """Whether each coordinate grows along an axis of its own and along no other, in their order."""
    return all(_grows_along(axis, place) for axis, place in enumerate(places))


def grid_of_tokens(places: Places) -> tuple[tuple[int, int], int] | None:
    """((H, W), n): the tokens after the first n are a map of H rows. None if they are not.

    `places` are (N,) each.
    """
    down, across = places
    extra = int(down.isnan().int().cumprod(0).sum())
    down, across = down[extra:], across[extra:]
    width = int((down == down[:1]).int().cumprod(0).sum())
    if width < 2 or len(down) % width or len(down) == width:
        return None
    sides = len(down) // width, width
    return (sides, extra) if is_grid((down.view(sides), across.view(sides))) else None


def _grows_along(axis: int, place: Tensor) -> bool:
    steps = place.diff(dim=axis)
    if not bool((steps > 0).all()):
        return False
    across = place.movedim(axis, 0).reshape(place.shape[axis], -1)
    off = (across.amax(1) - across.amin(1)).max()
    return not steps.numel() or bool(off < steps.min() / 2)


class _Follow(TorchDispatchMode):
    """Sees every operation, and follows the places from `x`.

    `_kept` has each tensor with its places by the tensor's id, as a freed one's would go to
    another. `_carried` has the names of submodules whose output, position by position, went into a
    tensor; `read` those of which several positions went into one.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept: dict[int, tuple[Tensor, Places]] = {}
        self._carried: dict[int, frozenset[str]] = {}
        self.read: frozenset[str] = frozenset()
        self._keep(x, _of_input(x))

    def places(self, value: object) -> Places | None:
        """The places of a tensor's elements; None for what has none."""
        return self._kept.get(id(value), (None, None))[1]

    def carried(self, value: object) -> frozenset[str]:
        """The submodules whose output went into a tensor position by position."""
        return self._carried.get(id(value), frozenset())

    def carry(self, value: object, names: Iterable[str]) -> None:
        """Note that the output of these submodules went into a tensor."""
        self._carried[id(value)] = self.carried(value).union(names)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if self.places(leaf)]
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if operands and results:
            name = func.overloadpacket.__name__.rstrip("_")
            self._follow(name, func, args, kwargs or {}, operands, results)
            self._hand_on(name, args, operands, results)
        return result

    def _hand_on(self, name: str, args: Any, operands: list[Tensor], results: list[Tensor]) -> None:
        """Note which submodules' outputs the results carry, and which are read in this operation.

        A selection of elements that come from no place, such as a class token, carries none.
        """
        carried = frozenset().union(*map(self.carried, operands))
        if not carried:
            return
        if self._mixes(name, args, results[0]):
            self.read |= carried
            return
        for tensor in results:
            places = self.places(tensor)
            if places is None:
                continue  # a second result, such as the mean of a normalisation
            if not _once(places[0]).isnan().all():
                self.carry(tensor, carried)
            elif name not in MOVES:
                self.read |= carried

    def _mixes(self, name: str, args: Any, result: Tensor) -> bool:
        """Whether an operation lets positions see one another, as far as is known."""
        if self.places(result) is None or "attention" in name or name.startswith(RESAMPLES):
            return True
        return name in PRODUCTS and self.places(args[PRODUCTS[name] + 1]) is not None

    def _follow(
        self, name: str, func: Any, args: Any, kwargs: Any, operands: list[Tensor], results: Any
    ) -> None:
        """Give the results the places that follow from those of the operands, if any do."""
        first = results[0]
        if name in MOVES or name in RESHAPES:
            self._move(name in RESHAPES, func, args, kwargs, results)
        elif name in JOINS:
            self._keep(first, self._joined(func, args, kwargs))
        elif name in PRODUCTS:
            left = PRODUCTS[name]
            self._keep(first, self._product(args[left], args[left + 1], first.shape))
        elif name.startswith(RESAMPLES) and first.dim() > 2:
            self._keep(first, _resampled(self._kept[id(operands[0])][1], first.shape))
        elif name == "linear":
            self._keep(first, self._product(args[0], None, first.shape))
        elif not name.startswith(LOSES):
            self._keep(first, self._same_shape(operands, first.shape))

    def _keep(self, tensor: Tensor, places: Places | None) -> None:
        if places is not None:
            self._kept[id(tensor)] = tensor, places

    def _move(
        self, reshapes: bool, func: Any, args: Any, kwargs: Any, results: list[Tensor]
    ) -> None:
        """What moves elements moves their places as well."""
        places = self.places(args[0])
        if places is None:
            return
        if reshapes:
            self._keep(results[0], tuple(place.reshape(results[0].shape) for place in places))
            return
        moved = [tree_leaves(func(place, *args[1:], **kwargs)) for place in places]
        for tensor, *each in zip(results, *moved, strict=True):
            self._keep(tensor, tuple(each))

    def _joined(self, func: Any, args: Any, kwargs: Any) -> Places:
        tensors, *rest = args
        number = next(len(places) for t in tensors if (places := self.places(t)))
        nowhere = [(torch.full(t.shape, torch.nan),) * number for t in tensors]
        known = [self.places(t) or none for t, none in zip(tensors, nowhere, strict=True)]
        return tuple(func(list(each), *rest, **kwargs) for each in zip(*known, strict=True))

    def _product(self, left: Tensor, right: Tensor | None, shape: torch.Size) -> Places | None:
        """A row has its row's places in the first factor.

        Where these are all the same, a column has those in the second.
        """
        rows, columns = self.places(left), self.places(right)
        possible = []
        if rows is not None:
            possible.append(tuple(_once(place).mean(-1, True).expand(shape) for place in rows))
        if columns is not None:
            possible.append(tuple(_once(place).mean(-2, True).expand(shape) for place in columns))
        spread_out = (each for each in possible if _extent(each) > 0.01)
        return next(spread_out, possible[0] if possible else None)

    def _same_shape(self, operands: list[Tensor], shape: torch.Size) -> Places | None:
        """The places of the operand that comes from the widest part of the input."""
        found = [self._kept[id(t)][1] for t in operands if t.shape == shape]
        possible = list({id(places): places for places in found}.values())
        return possible[0] if len(possible) == 1 else max(possible, key=_extent, default=None)


def _of_input(x: Tensor) -> Places:
    sides = x.shape[2:]
    axes = [(torch.arange(side) + 0.5) / side for side in sides]
    return tuple(place.expand(x.shape) for place in torch.meshgrid(*axes, indexing="ij"))


def _resampled(places: Places, shape: torch.Size) -> Places | None:
    mode = ("linear", "bilinear", "trilinear")[len(shape) - 3]
    one_channel = [_once(place).mean(1, True) for place in places]
    if any(place.dim() != len(shape) for place in one_channel):
        return None
    return tuple(
        functional.interpolate(place, shape[2:], mode=mode, align_corners=True).expand(shape)
        for place in one_channel
    )


def _extent(places: Places) -> float:
    """How far apart the places are, those of the first image; 0 where all are the same."""
    of_one = [_once(place[0] if place.dim() > 2 else place) for place in places]
    return sum(float(place.nan_to_num(0.5).std(correction=0)) for place in of_one)


def _once(place: Tensor) -> Tensor:
    """Of equal elements along an axis that was expanded, one."""
    strides = place.stride()
    return place[tuple(slice(None) if stride else slice(0, 1) for stride in strides)]
