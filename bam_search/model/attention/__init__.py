"""The attention modules: one file each, one table.

All are called `Module(channels, **options)`, (B, C, H, W) in and out.
"""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import torch
from torch import nn

from bam_search.errors import UserError, nearest
from bam_search.model.attention.bam import BAM
from bam_search.model.attention.block import Block
from bam_search.model.attention.cbam import CBAM
from bam_search.model.attention.eca import ECA
from bam_search.model.attention.gc import GC
from bam_search.model.attention.se import SE
from bam_search.space.placement import Choice, Option

ATTENTION: Mapping[str, type[nn.Module]] = {
    "bam": BAM,
    "se": SE,
    "cbam": CBAM,
    "eca": ECA,
    "gc": GC,
    "block": Block,
}


def defaults(module: str) -> dict[str, Option]:
    """The options of an attention module, in order, with their defaults.

    Raises UserError for an unknown module.
    """
    return {name: parameter.default for name, parameter in _options(module).items()}


@functools.cache  # a search asks thousands of times for few answers, and each takes milliseconds
def canonical(choice: Choice, channels: int, side: int) -> Choice:
    """The same choice without the options that equal their defaults, in the module's order.

    Raises UserError for an unknown module or option, a value of the wrong type, or options that are
    illegal on a map of `channels` channels whose shorter side is `side`.
    """
    known = _options(choice.module)
    for name, value in choice.options:
        if name not in known:
            raise UserError(f"{choice.module} has no option {name!r}", nearest(name, known))
        _check_type(choice.module, name, value, known[name].annotation)
    given = dict(choice.options)
    if not _needs_like(choice.module):
        try:
            # The module itself knows what is legal; on the meta device it costs nothing to make.
            with torch.device("meta"):
                _check_reach(ATTENTION[choice.module](channels, **given), side)
        except UserError as error:
            raise UserError(f"{choice.text}: {error.message}", error.hint) from None
    in_order = [name for name in known if name in given]
    options = {name: given[name] for name in in_order if given[name] != known[name].default}
    return Choice.of(choice.module, options)


def create(choice: Choice, channels: int, like: nn.Module) -> nn.Module:
    """The attention module of a choice, for `channels` channels.

    `like` is the module at its site, of which `block` repeats a part.
    """
    extra = {"like": like} if _needs_like(choice.module) else {}
    return ATTENTION[choice.module](channels, **extra, **dict(choice.options))


def _needs_like(module: str) -> bool:
    return "like" in inspect.signature(ATTENTION[module]).parameters


@functools.cache
def _options(module: str) -> Mapping[str, inspect.Parameter]:
    if module not in ATTENTION:
        raise UserError(f"there is no attention module {module!r}", nearest(module, ATTENTION))
    parameters = inspect.signature(ATTENTION[module], eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.default is not p.empty}


def _check_reach(module: nn.Module, side: int) -> None:
    # With a dilation of the map's side, only the kernel's centre lies inside the map; a larger one
    # would compute the same.
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    d = max((max(convolution.dilation) for convolution in convolutions), default=1)
    if d > side:
        raise UserError(
            f"the dilation {d} is more than the map's side, {side}", f"d can be 1 to {side} there"
        )


def _check_type(module: str, name: str, value: Option, kind: Any) -> None:
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        if value not in allowed or isinstance(value, bool):
            words_allowed = ", ".join(map(str, allowed))
            raise UserError(f"{module}({name}={value})", f"{name} is one of: {words_allowed}")
    elif type(value) is not kind:
        words = {int: "a whole number", bool: "true or false", float: "a number"}
        raise UserError(f"{module}({name}={value})", f"{name} is {words[kind]}")
