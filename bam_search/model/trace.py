"""Trace one forward pass.

Which submodule was called when, what it returned, and how the tensors depend on one another.
"""

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bam_search.errors import UserError
from bam_search.model.insert import remove

Shape = tuple[int, ...]
"""(C, H, W) of an image, (C, L) of a sequence or (C, D, H, W) of a volume."""
BATCH = 2
"""Images in the traced pass.

With one, an output that folds something else into the batch could not be told apart.
"""

WEIGHTED = frozenset({"convolution", "mm", "addmm", "bmm", "baddbmm"})
"""Operations that do a layer's work; all others shape, normalise or combine."""


@dataclass(frozen=True)
class Call:
    """One call of a submodule.

    The operations `first` to `last` ran inside, and operation `out` made what it returned. `given`
    is the shape of the first tensor it got, `shape` that of the one it returned; `returned` is the
    name of its class. `out` is None unless that was one tensor that depends on the image.
    """

    name: str
    first: int
    last: int
    out: int | None
    given: tuple[int, ...]
    shape: tuple[int, ...]
    returned: str


@dataclass(frozen=True)
class Trace:
    """The operations of one forward pass, and the calls of submodules.

    Operations are numbered in the order in which they ran; 0 is the image, and only operations that
    depend on it are numbered. `sources[n]` are the operations whose results operation n read,
    `kinds[n]` is its name, `result` made the model's last output. `model` is the copy that was
    watched: without attention, perhaps without values.
    """

    model: nn.Module
    calls: tuple[Call, ...]
    sources: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    result: int

    @cached_property
    def times(self) -> Counter[str]:
        """How often each submodule was called."""
        return Counter(call.name for call in self.calls)

    @cached_property
    def live(self) -> frozenset[int]:
        """The operations that the model's output depends on."""
        return self.above([self.result], down_to=0)

    @cached_property
    def trunk(self) -> frozenset[int]:
        """The operations that every path from the image to the output passes through.

        These are the live operations over which no edge between live operations jumps.
        """
        jumps = [0] * (len(self.sources) + 1)
        for end in self.live:
            for start in self.sources[end]:
                if end - start > 1:
                    jumps[start + 1] += 1
                    jumps[end] -= 1
        trunk, edges_over = set(), 0
        for n in range(len(self.sources)):
            edges_over += jumps[n]
            if n in self.live and not edges_over:
                trunk.add(n)
        return frozenset(trunk)

    def above(self, ends: Iterable[int], down_to: int) -> frozenset[int]:
        """`ends` and all operations from `down_to` on that they depend on."""
        seen: set[int] = set()
        waiting = list(ends)
        while waiting:
            n = waiting.pop()
            if n >= down_to and n not in seen:
                seen.add(n)
                waiting.extend(self.sources[n])
        return frozenset(seen)


def trace(model: nn.Module, input_shape: Shape) -> Trace:
    """The trace of a copy of `model` without attention, in eval mode, on the meta device.

    Nothing is computed, and the model is not changed. A model that cannot run there (it asks for
    values) runs on the CPU. Raises UserError if it cannot run on (C, H, W) at all.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    try:
        image = torch.zeros(BATCH, *input_shape, device="meta", dtype=dtype)
        return _watched(_on_meta(model), image)
    except Exception:  # whatever it was, the second attempt raises what is wrong
        pass
    try:
        image = torch.zeros(BATCH, *input_shape, dtype=dtype)
        return _watched(copy.deepcopy(model).to("cpu"), image)
    except Exception as error:  # a user's model can raise anything; the user has to read it
        kind = type(error).__name__
        first = (str(error).strip().splitlines() or [kind])[0]
        raise UserError(
            f"the model cannot run on images of shape {input_shape}: {kind}: {first}"
        ) from error


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have no values, made without copying them."""
    empty: dict[int, Any] = {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    for p in model.parameters():
        empty[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    return copy.deepcopy(model, empty)


def _watched(twin: nn.Module, image: Tensor) -> Trace:
    remove(twin)
    watch = _Watch()
    watch.handed_on(image)
    for name, module in twin.named_modules():
        if name:
            _listen(module, name, watch)
    with torch.no_grad(), watch:
        output = twin.eval()(image)
    makers = watch.makers(output)
    if not makers:
        raise ValueError("its output does not depend on the image")
    return Trace(twin, tuple(watch.calls), tuple(watch.sources), tuple(watch.kinds), max(makers))


def _listen(module: nn.Module, name: str, watch: "_Watch") -> None:
    entered: list[tuple[int, tuple[int, ...]]] = []
    module.register_forward_pre_hook(
        lambda _module, *given: entered.append((len(watch.sources), _shape(given))),
        with_kwargs=True,
    )
    module.register_forward_hook(
        lambda _module, _args, output: watch.returned(name, *entered.pop(), output)
    )


def _shape(values: object) -> tuple[int, ...]:
    """The shape of the first tensor among the values; () if there is none."""
    return next((tuple(t.shape) for t in _tensors(values)), ())


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@dataclass(eq=False)
class _Watch(TorchDispatchMode):
    """Sees every operation, and numbers those that depend on the image.

    `maker` is the number of the operation that made a tensor, by the tensor's id. `kept` holds
    these tensors: the id of a tensor that is freed would go to another.
    """

    calls: list[Call] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    maker: dict[int, int] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def handed_on(self, image: Tensor) -> None:
        self._add((), "image", image)

    def returned(self, name: str, first: int, given: tuple[int, ...], output: object) -> None:
        out = self.maker.get(id(output)) if isinstance(output, Tensor) else None
        last = len(self.sources) - 1
        kind = type(output).__name__
        self.calls.append(Call(name, first, last, out, given, _shape(output), kind))

    def makers(self, values: object) -> set[int]:
        """The operations that made the tensors among the values."""
        numbers = (self.maker.get(id(tensor)) for tensor in _tensors(values))
        return {number for number in numbers if number is not None}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = self.makers((args, kwargs))
        if read:
            self._add(tuple(sorted(read)), func.overloadpacket.__name__.rstrip("_"), result)
        return result

    def _add(self, sources: tuple[int, ...], kind: str, result: object) -> None:
        self.sources.append(sources)
        self.kinds.append(kind)
        for tensor in _tensors(result):
            self.maker[id(tensor)] = len(self.sources) - 1
            self.kept.append(tensor)
