"""The attention modules: one file each, one table.

All are called `Module(channels, **options)`, (B, C, H, W) in and out; those with a parameter `dims`
also take maps of one and three dimensions. `registry` is the table, to which `register_attention`
adds a user's own.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import torch
from torch import nn

from bam_search.errors import UserError, first_line, nearest
from bam_search.model.attention.registry import (
    ATTENTION,
    DIMS,
    AttentionModule,
    find,
    module_files,
    needs_like,
    on_change,
    origin,
    register_attention,
    use_module_files,
)
from bam_search.model.maps import CONVOLUTIONS, SHAPES
from bam_search.space.placement import Choice, Option

__all__ = [
    "ATTENTION",
    "canonical",
    "create",
    "defaults",
    "module_files",
    "needs_like",
    "on_change",
    "origin",
    "register_attention",
    "use_module_files",
]


def defaults(module: str) -> dict[str, Option]:
    """The options of an attention module, in order, with their defaults.

    Raises UserError for an unknown module.
    """
    return {name: parameter.default for name, parameter in find(module).parameters.items()}


def canonical(choice: Choice, channels: int, side: int, dims: int = 2) -> Choice:
    """The same choice without the options that equal their defaults, in the module's order.

    Raises UserError for an unknown module or option, a value of the wrong type, or options that are
    illegal on a map of `channels` channels whose shortest side is `side`, or for a module that
    takes no maps of `dims` dimensions.
    """
    # Equal choices may have values of other types: 1 equals True and 1.0.
    kinds = tuple(type(value) for _, value in choice.options)
    return _canonical(choice, kinds, channels, side, dims)


@functools.cache  # a search asks thousands of times for few answers, and each takes milliseconds
def _canonical(choice: Choice, _kinds: object, channels: int, side: int, dims: int) -> Choice:
    module = find(choice.module)
    given = _checked(module, choice.options)
    if not module.needs_like:
        try:
            _check_reach(_made(module, channels, given, dims), side, dims)
        except UserError as error:
            raise UserError(f"{choice.text}: {error.message}", error.hint) from None
    known = module.parameters
    in_order = [name for name in known if name in given]
    options = {name: given[name] for name in in_order if given[name] != known[name].default}
    return Choice.of(choice.module, options)


on_change(_canonical.cache_clear)


def create(choice: Choice, channels: int, like: nn.Module, dims: int = 2) -> nn.Module:
    """The attention module of a choice, for maps of `channels` channels and `dims` dimensions.

    `like` is the module at its site, of which `block` repeats a part. Raises UserError if the
    module takes no maps of so many dimensions.
    """
    module = find(choice.module)
    extra = {"like": like} if module.needs_like else {}
    return module.constructor(channels, **extra, **_dims(module, dims), **dict(choice.options))


def _dims(module: AttentionModule, dims: int) -> dict[str, int]:
    """What a constructor gets beside options. Raises UserError for maps that it does not take."""
    if module.takes_dims:
        return {DIMS: dims}
    if dims == 2:
        return {}
    able = ", ".join(name for name in ATTENTION if find(name).takes_dims)
    raise UserError(
        f"{module.name} takes maps {SHAPES[2]}, and this one is {SHAPES[dims]}",
        f"{able} take it; so does a class of yours with a parameter {DIMS}",
    )


def _made(
    module: AttentionModule, channels: int, options: Mapping[str, Option], dims: int
) -> nn.Module:
    """The module; whatever a constructor that is not ours raises becomes UserError.

    So does a weight without elements: torch makes it, of no channels say, and it does nothing.
    """
    make = functools.partial(module.constructor, channels, **_dims(module, dims), **options)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors", UserWarning)
            made = _cheaply(make, module.is_foreign)
    except UserError:
        raise
    except Exception as error:
        if not module.is_foreign:
            raise
        raise UserError(
            f"on {channels} channels: {type(error).__name__}: {first_line(error)}",
            "another value may do there",
        ) from None
    empty = [name for name, weight in made.named_parameters() if not weight.numel()]
    if empty:
        raise UserError(
            f"on {channels} channels: {empty[0]} has no elements", "another value may do there"
        )
    return made


def _cheaply(make: Callable[[], nn.Module], is_foreign: bool) -> nn.Module:
    """What `make` makes, which knows what is legal, without weights in memory.

    A user's constructor may ask for the values of its tensors, and has them then.
    """
    try:
        with torch.device("meta"):
            return make()
    except Exception:
        if not is_foreign:
            raise
    with torch.random.fork_rng(devices=[]):
        return make()


def _checked(module: AttentionModule, options: tuple[tuple[str, Option], ...]) -> dict[str, Option]:
    """The options by name, each of its parameter's type. Raises UserError."""
    known = module.parameters
    for name, _ in options:
        if name not in known:
            raise UserError(f"{module.name} has no option {name!r}", nearest(name, known))
    return {name: _of_type(module.name, name, value, known[name].kind) for name, value in options}


def _check_reach(module: nn.Module, side: int, dims: int) -> None:
    # With a dilation of the map's side, only the kernel's centre lies inside the map; a larger one
    # would compute the same.
    convolutions = [m for m in module.modules() if isinstance(m, CONVOLUTIONS[dims])]
    d = max((max(convolution.dilation) for convolution in convolutions), default=1)
    if d > side:
        raise UserError(
            f"the dilation {d} is more than the map's side, {side}", f"d can be 1 to {side} there"
        )


def _of_type(module: str, name: str, value: Option, kind: Any) -> Option:
    """The value; a whole number becomes a float where that is asked for. Raises UserError."""
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        if value not in allowed or isinstance(value, bool):
            words_allowed = ", ".join(map(str, allowed))
            raise UserError(f"{module}({name}={value})", f"{name} is one of: {words_allowed}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        words = {
            int: "a whole number",
            bool: "true or false",
            float: "a number",
            str: "a word",
        }
        raise UserError(f"{module}({name}={value})", f"{name} is {words[kind]}")
    return value
