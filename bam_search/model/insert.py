"""How attention is inserted: as a child of its site, called from a forward hook of the site.

The child is named `attention`, or `bam_attention` where the site has an attribute `attention` of
its own, and carries a mark, so that it is known whatever its class. No key of the backbone changes.
The site's class keeps the child out of sight (`site_class.py`). A site that runs over its children
in a way of its own must not find one more, so there the child is out while the site runs.

The model, and each module that has a site, note where attention was put. Before each of their
passes they look whether it is there still: a site that was replaced has its hook put back if its
child moved with it (SyncBatchNorm's conversion), else the pass raises UserError.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.site_class import MARK, give_class, own_class, restore_class
from bam_search.space.placement import Choice

CHILD = "attention"
CHILD_IF_TAKEN = "bam_attention"
HIDDEN_CHILD = "_bam_search_while_running"
DISABLED = "_bam_search_disabled"
"""The attribute of a site whose child is out for a while: its own id, which a copy has not."""
NOTED = "_bam_search_attached"
"""The attribute of a module that has the names of sites in it where attention was put."""


@dataclass(frozen=True)
class Mark:
    """What an inserted child is: the choice it was made from.

    `order` is the number of its site among the model's, from 0. `hidden` says that the child is out
    while its site runs.
    """

    choice: Choice
    order: int
    hidden: bool = False


class FromIdentity(nn.Module):
    """x + gate * (inner(x) - x), where `gate` is one learned number that starts at 0.

    So the output is exactly x until training moves the gate. Thomas Bachlechner et al.: "ReZero is
    All You Need", UAI 2021, https://arxiv.org/abs/2003.04887 (a gate that starts at zero).
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate.to(x.dtype) * (self.inner(x) - x)


def free_name(site: nn.Module) -> str | None:
    """The name for a site's new child; None if the site has attributes of both names."""
    return next((name for name in (CHILD, CHILD_IF_TAKEN) if not hasattr(site, name)), None)


def insert(model: nn.Module, children: Mapping[str, tuple[nn.Module, Mark]]) -> None:
    """Put each child with its mark at its site, by name; `children` are checked already."""
    for name, (attention, mark) in children.items():
        site, child = model.get_submodule(name), free_name(model.get_submodule(name))
        assert child is not None
        setattr(attention, MARK, mark)
        site.add_module(child, attention)
        site.__dict__.pop(DISABLED, None)  # of a copy that was made of a disabled model
        _put_in_effect(site, mark)
        parent, _, own_name = name.rpartition(".")
        _note(model.get_submodule(parent), [own_name])
    _note(model, children)


def remove(model: nn.Module) -> None:
    """Take all inserted children out, and all that belongs to them, wherever they are."""
    for module in list(model.modules()):
        child = _child_name(module)
        if child:
            delattr(module, child)
        for attribute in (HIDDEN_CHILD, DISABLED, NOTED):
            module.__dict__.pop(attribute, None)
        restore_class(module)
        _unhook(module)


@contextlib.contextmanager
def without(model: nn.Module) -> Iterator[None]:
    """Within the context the inserted children are out of `model`; then the same ones are in again.

    Hooks stay, in their order.
    """
    sites = [site for site in model.modules() if _child_name(site)]
    taken = [(site, _child_name(site), inserted(site)) for site in sites]
    for site, name, _ in taken:
        delattr(site, name)
        site.__dict__[DISABLED] = id(site)
    try:
        yield
    finally:
        for site, name, attention in taken:
            site.__dict__.pop(DISABLED, None)
            site.add_module(name, attention)


def is_disabled(model: nn.Module) -> bool:
    """Whether the attention of the model, or of a part of it, is out within `without`."""
    return any(site.__dict__.get(DISABLED) == id(site) for site in model.modules())


def inserted(site: nn.Module) -> nn.Module | None:
    """The inserted child of a site, if it has one."""
    return site._modules.get(_child_name(site))


def attended(model: nn.Module) -> dict[str, str]:
    """The names of the children in effect, by site.

    One is in effect if its site calls it, or if the next pass will see to that.
    """
    named = dict(model.named_modules())
    noted = {
        f"{owner}.{name}" if owner else name
        for owner, module in named.items()
        for name in module.__dict__.get(NOTED, ())
    }
    return {
        name: f"{name}.{_child_name(site)}"
        for name, site in named.items()
        if _child_name(site) and (_calls_child(site) or name in noted)
    }


def marks(model: nn.Module) -> dict[str, Mark]:
    """The marks of the inserted children by site, in the order of the sites."""
    by_name = {site: mark_of(model.get_submodule(child)) for site, child in attended(model).items()}
    return dict(sorted(by_name.items(), key=lambda item: item[1].order))


def mark_of(child: nn.Module) -> Mark:
    """The mark of an inserted child."""
    mark: Mark = getattr(child, MARK)
    return mark


def renumber(model: nn.Module, order: Mapping[str, int]) -> None:
    """Give the marks of earlier insertions the numbers that their sites have now."""
    for name, child in attended(model).items():
        attention = model.get_submodule(child)
        mark = mark_of(attention)
        setattr(attention, MARK, replace(mark, order=order.get(name, mark.order)))


def _child_name(site: nn.Module) -> str:
    """The name of a site's inserted child, "" if it has none."""
    names = (CHILD, CHILD_IF_TAKEN)
    return next((name for name in names if hasattr(site._modules.get(name), MARK)), "")


def _put_in_effect(site: nn.Module, mark: Mark) -> None:
    """Have a site call its child, once."""
    give_class(site)
    if _calls_child(site):  # a copy of a disabled model has hooks, and no child
        return
    # Before all other hooks: whoever listens to the site hears what the model goes on with.
    site.register_forward_hook(_attend, prepend=True)
    if mark.hidden:
        site.register_forward_pre_hook(_hide, prepend=True)
        site.register_forward_hook(_reveal, prepend=True, always_call=True)


def _calls_child(site: nn.Module) -> bool:
    return _attend in site._forward_hooks.values()


def _unhook(module: nn.Module) -> None:
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        ours = [key for key, hook in hooks.items() if hook in (_look, _hide, _reveal, _attend)]
        for key in ours:
            del hooks[key]
            module._forward_hooks_always_called.pop(key, None)


def _note(owner: nn.Module, names: Iterable[str]) -> None:
    """Have a module look, before each pass, for the attention at sites of these names in it."""
    owner.__dict__[NOTED] = tuple(dict.fromkeys((*owner.__dict__.get(NOTED, ()), *names)))
    if _look not in owner._forward_pre_hooks.values():
        owner.register_forward_pre_hook(_look)


# The hooks are functions of the module, not closures: copies, pickles, replicas and torch.compile
# keep them.


def _look(owner: nn.Module, _args: object) -> None:
    if torch.compiler.is_compiling():
        return
    for name in owner.__dict__.get(NOTED, ()):
        site: nn.Module | None = owner
        for part in name.split("."):
            site = getattr(site, "_modules", {}).get(part)
        _look_at(name, site)


def _look_at(name: str, site: nn.Module | None) -> None:
    """See that the attention at a site is in effect. Raises UserError if it is not there."""
    attention = None if site is None else inserted(site)
    if site is not None and attention is not None:
        _put_in_effect(site, mark_of(attention))
    elif site is None or DISABLED not in site.__dict__:
        now = "is gone" if site is None else f"is a {own_class(site).__name__} without it"
        raise UserError(
            f"the attention at {name!r} is no longer in the model: the submodule {now}",
            "replace, convert, fuse or freeze modules before attaching; detach(model) forgets it",
        )


def _attend(site: nn.Module, _args: object, output: Tensor) -> Tensor:
    attention = inserted(site)
    return output if attention is None else attention(output)


def _hide(site: nn.Module, _args: object) -> None:
    name = _child_name(site)
    site.__dict__[HIDDEN_CHILD] = (name, site._modules.pop(name, None))


def _reveal(site: nn.Module, _args: object, _output: object) -> None:
    name, attention = site.__dict__.pop(HIDDEN_CHILD, ("", None))
    if attention is not None:
        site.add_module(name, attention)
