"""Put attention into a model, and take it out again. Everything is checked before the model is touched.

The attention module becomes a child named `attention` of its site, so no key of the backbone changes. An `nn.Sequential` site just
gets it as its last child; any other site calls it from one forward hook.
"""

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.attention import canonical, create
from bam_search.model.sites import select
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import Site

CHILD = "attention"


def resolve(placement: Placement | str, sites: Sequence[Site]) -> Placement:
    """The canonical placement: targets become site names in the model's order, options equal to their defaults go.

    Raises UserError for a target that names no site, a site named twice, or a choice that is illegal at its site.
    """
    if isinstance(placement, str):
        placement = Placement.parse(placement)
    chosen: dict[str, Choice] = {}
    for target, choice in placement.choices:
        for site in select(target, sites):
            if site.name in chosen:
                raise UserError(f"placement {placement.text!r} names site {site.name!r} twice", "a site holds one attention module")
            chosen[site.name] = _canonical_at(site, choice)
    return Placement.of({site.name: chosen[site.name] for site in sites if site.name in chosen})


def attach(model: nn.Module, placement: Placement | str, sites: Sequence[Site], seed: int = 0) -> None:
    """Put the attention modules of a placement into `model`, in place; a failure leaves it untouched.

    Each module's weights are drawn from a generator keyed by `seed` and the site's name, so the same choice at the same site starts
    alike in every placement. Raises UserError as `resolve` does, and if a site has attention already.
    """
    channels = {site.name: site.channels for site in sites}
    wanted = resolve(placement, sites).choices
    for name, _ in wanted:
        if hasattr(model.get_submodule(name), CHILD):
            raise UserError(f"site {name!r} has a child named {CHILD!r} already", "detach it first")
    modules = {name: _create(choice, channels[name], model.get_submodule(name), f"{seed}:{name}") for name, choice in wanted}
    _insert(model, modules)


def detach(model: nn.Module) -> None:
    """Take all attention out of `model`, in place: the reverse of `attach`."""
    for module in list(model.modules()):
        if CHILD in dict(module.named_children()) and _is_site(module):
            delattr(module, CHILD)
            for key in [key for key, hook in module._forward_hooks.items() if hook is _attend]:
                del module._forward_hooks[key]


def _canonical_at(site: Site, choice: Choice) -> Choice:
    try:
        return canonical(choice, site.channels)
    except UserError as error:
        raise UserError(f"at site {site.name!r}: {error.message}", error.hint) from None


def _create(choice: Choice, channels: int, like: nn.Module, key: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(key.encode()))
        return create(choice, channels, like)


def _insert(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, attention in modules.items():
        site = model.get_submodule(name)
        site.add_module(CHILD, attention)
        if not isinstance(site, nn.Sequential):
            site.register_forward_hook(_attend)


def _attend(site: nn.Module, _args: object, output: Tensor) -> Tensor:
    # A function of the module, not a closure: copies, pickles and torch.compile keep it.
    attention = site.get_submodule(CHILD)
    return attention(output)


def _is_site(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) or _attend in module._forward_hooks.values()
