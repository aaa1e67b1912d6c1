"""A batch normalisation's output that is computed only when something reads it.

So it learns whether an addition and ReLU follow, whatever the model.
https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch-python-api (subclassing
torch.Tensor)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from bam_search.score.chain import Backend, add_relu, normalise_add_relu

ADD = {torch.add, Tensor.add}
ADD_IN_PLACE = {Tensor.add_}
RELU = {functional.relu, torch.relu, Tensor.relu}
RELU_IN_PLACE = {torch.relu_, Tensor.relu_}
METADATA_FUNCTIONS = {
    Tensor.size,
    Tensor.dim,
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device")),
}
"""Functions that need no values of a tensor."""


class NotFused(Exception):
    """Batch normalisation, addition and ReLU cannot be one function in this model, and why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why} (recipe.fuse = false trains the model)")


@dataclass(eq=False)
class Chains:
    """The chains of one model: what compiles them, and how many ran.

    `deferred_norms` and `executed_norms` count its normalisations.
    """

    backend: Backend
    fused_calls: int = 0
    deferred_norms: int = 0
    executed_norms: int = 0


class Deferred(Tensor):
    """The output of `norm` on `x`, or `x` itself, to be computed when something reads it.

    ReLU, of it or of its sum with a map, runs all as one fused function. Anything else gets what
    torch's own operators compute. In-place operations change it for all who hold it.
    """

    _start: "_Start"
    _residual: "_Read | None"
    _computed: Tensor | None

    @staticmethod
    def __new__(cls, chains: Chains, x: Tensor, norm: nn.BatchNorm2d | None = None) -> "Deferred":
        chains.deferred_norms += norm is not None
        return cls._of(_Start(chains, _Read.of(x), norm))

    @classmethod
    def _of(cls, start: "_Start", residual: "_Read | None" = None) -> "Deferred":
        x = start.x.tensor
        made = Tensor._make_wrapper_subclass(
            cls, x.shape, strides=x.stride(), dtype=x.dtype, device=x.device
        )
        made._start, made._residual, made._computed = start, residual, None
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in METADATA_FUNCTIONS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        is_relu = func in RELU or func in RELU_IN_PLACE
        if is_relu and args and isinstance(args[0], Deferred):
            in_place = func in RELU_IN_PLACE or _in_place(*args[1:], **kwargs)
            return args[0]._relu(in_place)
        if func in ADD | ADD_IN_PLACE and len(args) == 2 and not kwargs:
            return _sum(func, *args)
        args, kwargs = tree_map_only(Deferred, Deferred._value, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_arguments: Any) -> Any:
        raise NotFused(f"{func} reads a batch normalisation's output past torch's functions")

    def _value(self) -> Tensor:
        _check_gradients()
        if self._computed is None:
            value = self._start.value()
            self._computed = value if self._residual is None else value + self._residual.get()
        return self._computed

    def is_open(self) -> bool:
        """Whether nothing was read of it or added to it."""
        return self._computed is None and self._residual is None and self._start.is_open()

    def _can_absorb(self, other: object) -> bool:
        return self.is_open() and type(other) is Tensor and _alike(self, other)

    def _relu(self, in_place: bool) -> Tensor:
        bare = self._residual is None and self._start.norm is None
        if bare or self._computed is not None or not self._start.is_open():
            value = self._value()
            return value.relu_() if in_place else value.relu()
        result = self._start.relu(None if self._residual is None else self._residual.get())
        if in_place:
            self._computed = result
        return result


def _alike(a: Tensor, b: Tensor) -> bool:
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)


def _in_place(inplace: bool = False) -> bool:
    return inplace


def _sum(func: Any, a: Any, b: Any) -> Any:
    """a + b; it stays deferred if one of the two is, and nothing has read it."""
    if func in ADD_IN_PLACE:
        return _sum_in_place(func, a, b)
    first, second = (a, b) if isinstance(a, Deferred) and a.is_open() else (b, a)
    if isinstance(first, Deferred):
        second = plain(second)
        if first._can_absorb(second):
            return Deferred._of(first._start, _Read.of(second))
    return func(plain(a), plain(b))


def _sum_in_place(func: Any, a: Any, b: Any) -> Any:
    """`a`, to which `b` is added, now or when the sum is read."""
    if isinstance(a, Deferred):
        b = plain(b)
        if a._can_absorb(b):
            a._residual = _Read.of(b)
            return a
    return func(plain(a), plain(b))


def plain(x: Any) -> Any:
    """`x`, computed if it is deferred."""
    return x._value() if isinstance(x, Deferred) else x


def _check_gradients() -> None:
    """Raise NotFused where gradients are off, as inside of somebody's autograd function.

    That function was not given the tensor that is read there, so its gradient would go nowhere.
    """
    if not torch.is_grad_enabled():
        raise NotFused("a batch normalisation's output is read without gradients")


@dataclass(frozen=True, eq=False)
class _Read:
    """A tensor that will be read later, and must not change until then."""

    tensor: Tensor
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> "_Read":
        return cls(tensor, tensor._version)

    def get(self) -> Tensor:
        if self.tensor._version != self.version:
            raise NotFused("a map is changed in place before it is read")
        return self.tensor


@dataclass(eq=False)
class _Start:
    """The start of a chain; `ran`: the running statistics have been updated with this batch."""

    chains: Chains
    x: _Read
    norm: nn.BatchNorm2d | None
    ran: bool = False
    computed: _Read | None = None

    def is_open(self) -> bool:
        """Whether nothing has read it."""
        return not self.ran and self.computed is None

    def value(self) -> Tensor:
        """What torch's own normalisation gives."""
        if self.computed is None:
            self.computed = _Read.of(self._normalised(self._input()))
        return self.computed.get()

    def relu(self, residual: Tensor | None) -> Tensor:
        """The whole chain."""
        x, backend = self._input(), self.chains.backend
        self.chains.fused_calls += 1
        if self.norm is not None:
            self._mark_executed()
            return normalise_add_relu(self.norm, x, residual, backend)
        assert residual is not None
        return add_relu(x, residual, backend)

    def _input(self) -> Tensor:
        _check_gradients()
        return self.x.get()

    def _normalised(self, x: Tensor) -> Tensor:
        if self.norm is None:
            return x
        if not self.ran:
            self._mark_executed()
            return nn.BatchNorm2d.forward(self.norm, x)
        return functional.batch_norm(
            x, None, None, self.norm.weight, self.norm.bias, True, 0.0, self.norm.eps
        )

    def _mark_executed(self) -> None:
        self.ran = True
        self.chains.executed_norms += 1
