"""What a model gets and returns, in whatever form: tensors in tuples, mappings and objects."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bam_search.errors import UserError

LARGER = (2, 3, 4)
"""How many times as large the sides of a larger image are, to see which sizes follow them."""
IMAGES = (4, 3, 5)
"""The numbers of dimensions of images, else sequences, else volumes, each in a batch."""


LEAVES = (Tensor, int, float, str, type(None), torch.dtype, torch.device)
"""The commonest of what holds no tensor, or is one."""


def tensors(values: object) -> list[Tensor]:
    """The tensors among the values, in order.

    They may lie in lists, tuples, mappings, dataclasses and other objects, and in one another.
    """
    return list(_tensors(values, set()))


def main_tensor(output: object) -> Tensor | None:
    """The tensor that a model's answer is: `output` itself, its `logits`, or the first one in it.

    So what a network adds in training (the auxiliary heads of GoogLeNet) is left out. None if there
    is no tensor.
    """
    named = _inside(output).get("logits", getattr(output, "logits", None))
    found = (named,) if isinstance(named, Tensor) else tensors(output)
    return next(iter(found), None)


def replaced(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same values with `change(t)` in the place of each tensor t. `values` stay as they are."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(replaced(value, change) for value in values))
    if isinstance(values, (list, tuple)):
        return type(values)(replaced(value, change) for value in values)
    inside = _inside(values)
    if not inside:
        return values
    result = copy.copy(values)
    for name, value in inside.items():
        if isinstance(values, Mapping):
            result[name] = replaced(value, change)
        else:
            object.__setattr__(result, name, replaced(value, change))
    return result


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call of a model or a submodule; `text` is how a sentence has them."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    text: str = "the example inputs"

    @classmethod
    def of(cls, example_inputs: object) -> "Arguments":
        """The arguments of a user.

        They are one tensor, a tuple of positional arguments, or a mapping of keyword ones. Raises
        UserError if there is no tensor in them, or they are something else.
        """
        if isinstance(example_inputs, Tensor):
            example_inputs = (example_inputs,)
        hint = "a tuple of positional arguments, or a mapping of keyword ones, with tensors in them"
        if not isinstance(example_inputs, (tuple, Mapping)):
            raise UserError(f"example_inputs is a {type(example_inputs).__name__}", hint)
        if not tensors(example_inputs):
            raise UserError("example_inputs has no tensor in it", hint)
        if isinstance(example_inputs, Mapping):
            return cls(kwargs=dict(example_inputs))
        return cls(tuple(example_inputs))

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors in the arguments, in order."""
        return tensors((self.args, self.kwargs))

    @property
    def images(self) -> list[Tensor]:
        """The tensors that are images or maps: (B, C, H, W), of floating-point numbers.

        Where there are none they are sequences, (B, C, L), or volumes, (B, C, D, H, W).
        """
        numbers = [tensor for tensor in self.tensors if tensor.is_floating_point()]
        kinds = ([tensor for tensor in numbers if tensor.dim() == n] for n in IMAGES)
        return next((kind for kind in kinds if kind), [])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the images, (B, C, H, W), also where they are a sequence of (C, H, W).

        It is that of the first tensor if there are no images, and () without any.
        """
        if self._listed:
            return len(self._listed), *self._listed[0].shape
        found = (*self.images, *self.tensors)
        return tuple(found[0].shape) if found else ()

    @property
    def _listed(self) -> list[Tensor]:
        """The images (C, H, W) that come one by one in a list, as detectors take them."""
        sequences = (value for value in self.args if isinstance(value, (list, tuple)))
        listed = [value for value in next(sequences, ()) if isinstance(value, Tensor)]
        return [image for image in listed if image.dim() == 3]

    def on(self, device: str) -> "Arguments":
        """The arguments on a device."""
        return self._replaced(lambda tensor: tensor.detach().to(device))

    def larger(self) -> "Arguments":
        """The same with black images that are LARGER, without values if these have none."""
        images = {id(tensor) for tensor in self.images}
        leading = 1 if self._listed else 2

        def resized(tensor: Tensor) -> Tensor:
            if id(tensor) not in images:
                return tensor
            sides = tensor.shape[leading:]
            grown = (n * side for n, side in zip(LARGER, sides, strict=False))
            return tensor.new_zeros(*tensor.shape[:leading], *grown)

        return self._replaced(resized)

    def _replaced(self, change: Callable[[Tensor], Tensor]) -> "Arguments":
        args, kwargs = replaced((self.args, dict(self.kwargs)), change)
        return Arguments(args, kwargs, self.text)


def _tensors(values: object, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    if isinstance(values, LEAVES) or id(values) in seen:  # an object may hold itself
        return
    inside = values if isinstance(values, (list, tuple, set)) else _inside(values).values()
    seen.add(id(values))
    for value in inside:
        yield from _tensors(value, seen)


def _inside(values: object) -> Mapping[str, Any]:
    """What a mapping, a dataclass or another object holds; nothing for a module or a class."""
    if isinstance(values, Mapping):
        return values
    if is_dataclass(values):
        return {part.name: getattr(values, part.name, None) for part in fields(values)}
    if isinstance(values, nn.Module) or callable(values) or isinstance(values, torch.Size):
        return {}
    return getattr(values, "__dict__", {})
