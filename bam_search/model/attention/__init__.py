"""The attention modules: one file each, one table. All are called `Module(channels, **options)`, (B, C, H, W) in and out."""

import inspect
from collections.abc import Callable, Mapping

from torch import nn

from bam_search.errors import UserError, nearest
from bam_search.model.attention.bam import BAM
from bam_search.model.attention.se import SE
from bam_search.space.placement import Choice, Option

ATTENTION: Mapping[str, Callable[..., nn.Module]] = {"bam": BAM, "se": SE}


def defaults(module: str) -> dict[str, Option]:
    """The options of an attention module, in order, with their defaults. Raises UserError for an unknown module."""
    if module not in ATTENTION:
        raise UserError(f"there is no attention module {module!r}", nearest(module, ATTENTION))
    parameters = inspect.signature(ATTENTION[module]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def canonical(choice: Choice, channels: int) -> Choice:
    """The same choice without the options that equal their defaults, in the module's order.

    Raises UserError for an unknown module or option, a value of the wrong type, or one that is illegal on `channels` channels.
    """
    known = defaults(choice.module)
    for name, value in choice.options:
        if name not in known:
            raise UserError(f"{choice.module} has no option {name!r}", nearest(name, known))
        if type(value) is not type(known[name]):
            raise UserError(f"{choice.module}({name}={value}): {name} must be of type {type(known[name]).__name__}")
    given = dict(choice.options)
    full = {name: given.get(name, default) for name, default in known.items()}
    _check(choice, full, channels)
    return Choice.of(choice.module, {name: value for name, value in full.items() if value != known[name]})


def create(choice: Choice, channels: int) -> nn.Module:
    """The attention module of a choice, for `channels` channels."""
    return ATTENTION[choice.module](channels, **dict(choice.options))


def _check(choice: Choice, options: Mapping[str, Option], channels: int) -> None:
    # Every option so far is a count or a size: a positive whole number; and r divides the channels into at least one.
    for name, value in options.items():
        if isinstance(value, int) and value < 1:
            raise UserError(f"{choice.text}: {name} must be at least 1")
    reduction = options.get("r", 1)
    assert isinstance(reduction, int)
    if reduction > channels:
        raise UserError(f"{choice.text}: r is larger than the site's {channels} channels", f"r can be at most {channels} there")
