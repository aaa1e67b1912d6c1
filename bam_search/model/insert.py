"""How attention is inserted: as a child named `attention` of its site, called from a forward hook.

A site that is an `nn.Sequential` calls all its children itself, so there the child alone does. A
site that runs over its children in a way of its own (DenseNet's blocks) must not find one more, so
there the child is out of sight while the site runs. No key of the backbone changes.

An inserted child carries a mark, whatever its class: a child named `attention` without it was in
the model before.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bam_search.space.placement import Choice

CHILD = "attention"
HIDDEN_CHILD = "_attention_while_running"
OVER_CHILDREN = {"children", "named_children", "_modules"}
"""What a forward method names that runs over its module's children."""
DISABLED = "_bam_search_disabled"
"""The attribute of a site whose child is out for a while: its own id, which a copy has not."""
MARK = "_bam_search_mark"
"""The attribute of an inserted child; copies and pickles keep it, and it is in no state dict."""


@dataclass(frozen=True)
class Mark:
    """What an inserted child is: the choice it was made from.

    `order` is the number of its site among the model's, from 0.
    """

    choice: Choice
    order: int


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


def insert(model: nn.Module, children: Mapping[str, tuple[nn.Module, Mark]]) -> None:
    """Put each child with its mark at its site, by name; `children` are checked already."""
    for name, (attention, mark) in children.items():
        site = model.get_submodule(name)
        setattr(attention, MARK, mark)
        site.add_module(CHILD, attention)
        # A copy that was made of a disabled model has hooks, and no child.
        if _calls_children(site) or _hooked(site):
            continue
        if _runs_over_children(site):
            site.register_forward_pre_hook(_hide)
            site.register_forward_hook(_reveal, always_call=True)
        site.register_forward_hook(_attend)


def remove(model: nn.Module) -> None:
    """Take all inserted children out, and their hooks."""
    for site in attended(model).values():
        delattr(site, CHILD)
        site.__dict__.pop(HIDDEN_CHILD, None)
        for hooks in (site._forward_pre_hooks, site._forward_hooks):
            inserted = [key for key, hook in hooks.items() if hook in (_hide, _reveal, _attend)]
            for key in inserted:
                del hooks[key]
                site._forward_hooks_always_called.pop(key, None)


@contextlib.contextmanager
def without(model: nn.Module) -> Iterator[None]:
    """Within the context the inserted children are out of `model`; then the same ones are in again.

    Hooks stay, in their order.
    """
    taken = {site: site.get_submodule(CHILD) for site in attended(model).values()}
    for site in taken:
        delattr(site, CHILD)
        site.__dict__[DISABLED] = id(site)
    try:
        yield
    finally:
        for site, attention in taken.items():
            site.__dict__.pop(DISABLED)
            site.add_module(CHILD, attention)


def is_disabled(model: nn.Module) -> bool:
    """Whether the attention of the model, or of a part of it, is out within `without`."""
    return any(site.__dict__.get(DISABLED) == id(site) for site in model.modules())


def attended(model: nn.Module) -> dict[str, nn.Module]:
    """The sites that have an inserted child, by name."""
    return {name: site for name, site in model.named_modules() if _occupied(site)}


def marks(model: nn.Module) -> dict[str, Mark]:
    """The marks of the inserted children by site, in the order of the sites."""
    by_name = {
        name: getattr(site.get_submodule(CHILD), MARK) for name, site in attended(model).items()
    }
    return dict(sorted(by_name.items(), key=lambda item: item[1].order))


def renumber(model: nn.Module, order: Mapping[str, int]) -> None:
    """Give the marks of earlier insertions the numbers that their sites have now."""
    for name, mark in marks(model).items():
        child = model.get_submodule(name).get_submodule(CHILD)
        setattr(child, MARK, Mark(mark.choice, order.get(name, mark.order)))


def _occupied(site: nn.Module) -> bool:
    if not hasattr(site._modules.get(CHILD), MARK):
        return False
    return _calls_children(site) or _hooked(site)


def _calls_children(site: nn.Module) -> bool:
    return type(site).forward is nn.Sequential.forward


def _runs_over_children(site: nn.Module) -> bool:
    if isinstance(site, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return True
    code = getattr(type(site).forward, "__code__", None)
    return code is not None and not OVER_CHILDREN.isdisjoint(code.co_names)


def _hooked(site: nn.Module) -> bool:
    return _attend in site._forward_hooks.values()


# The hooks are functions of the module, not closures: copies, pickles, replicas and torch.compile
# keep them.


def _attend(site: nn.Module, _args: object, output: Tensor) -> Tensor:
    attention = getattr(site, CHILD, None)
    return output if attention is None else attention(output)


def _hide(site: nn.Module, _args: object) -> None:
    attention = site._modules.pop(CHILD, None)
    setattr(site, HIDDEN_CHILD, (attention,))  # in a tuple, so that it is no child


def _reveal(site: nn.Module, _args: object, _output: object) -> None:
    (attention,) = getattr(site, HIDDEN_CHILD)
    setattr(site, HIDDEN_CHILD, (None,))
    if attention is not None:
        site.add_module(CHILD, attention)
