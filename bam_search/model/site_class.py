"""The class that a site has while it has attention: its own, with the attention out of sight.

It has its base's name and is a subclass of it, as torch's parametrized and sharded modules have
classes of their own. So code that looks for a class exactly, to fuse a convolution with the
normalisation after it for example, leaves the site alone. Where the site is a container, its
length, indices and iteration are those of its own modules, and its methods that change it do not
meet the attention.
"""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, cast

from torch import nn

Methods = Mapping[str, Callable[..., Any]]

MARK = "_bam_search_mark"
"""The attribute of an inserted child; copies and pickles keep it, and it is in no state dict."""
BASE = "_bam_search_base"
"""The attribute of a site's class: the class that the site had before."""


def give_class(site: nn.Module) -> None:
    """Give a site its class; one that has it stays as it is."""
    if not hasattr(type(site), BASE):
        site.__class__ = _class_of(cast("Hashable", type(site)))


def restore_class(site: nn.Module) -> None:
    """Give a site its class of before back."""
    if BASE in vars(type(site)):
        site.__class__ = own_class(site)


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module has without attention."""
    base: type[nn.Module] = getattr(type(module), BASE, type(module))
    return base


@functools.cache
def _class_of(base: Any) -> type[nn.Module]:
    kind = next((kind for kind in CONTAINERS if issubclass(base, kind)), None)
    reads = CONTAINERS[kind] if kind else {}
    methods = {
        **{name: _apart(base, name) for name in CHANGES if kind and hasattr(base, name)},
        # One that the user's class has for itself stays.
        **{name: read for name, read in reads.items() if _same(base, kind, name)},
        "__reduce_ex__": _reduce,
    }
    about = {"__module__": base.__module__, "__qualname__": base.__qualname__, BASE: base}
    return type(base.__name__, (base,), {**about, **methods})


def _same(base: type, kind: type | None, name: str) -> bool:
    return getattr(base, name) is getattr(kind, name)


def _reduce(site: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """For pickle and deepcopy, which could not find the class by its name."""
    base: Any = own_class(site)
    if (base.__reduce__, base.__reduce_ex__) == (object.__reduce__, object.__reduce_ex__):
        reduced: Any = base.__reduce_ex__(site, protocol)
        return _empty, (base,), *reduced[2:]
    # A class with a way of its own, such as a graph of torch.fx: it knows no attention.
    restore_class(site)
    try:
        make, arguments, *rest = base.__reduce_ex__(site, protocol)
    finally:
        give_class(site)
    state = {name: vars(site)[name] for name in vars(nn.Module())}
    return _made_anew, (make, arguments), *(rest or [state])


def _empty(base: type[nn.Module]) -> nn.Module:
    cls = _class_of(cast("Hashable", base))
    return cls.__new__(cls)


def _made_anew(make: Callable[..., nn.Module], arguments: tuple[Any, ...]) -> nn.Module:
    site = make(*arguments)
    give_class(site)
    return site


def _own(container: nn.Module) -> dict[str, Any]:
    """The modules of a container without the attention."""
    return {name: m for name, m in container._modules.items() if not hasattr(m, MARK)}


def _apart(base: type[nn.Module], name: str) -> Callable[..., Any]:
    """A method of a container, called while the attention is out of it."""
    method = getattr(base, name)

    @functools.wraps(method)
    def called(container: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = _own(container)
        attention = {key: m for key, m in container._modules.items() if key not in own}
        container._modules = own
        try:
            made = method(container, *args, **kwargs)
        finally:
            container._modules.update(attention)
        if isinstance(made, nn.Module) and made is not container:
            restore_class(made)  # a slice has no attention
        return made

    return called


CHANGES = (
    *("append", "insert", "extend", "pop", "popitem", "clear", "update", "setdefault"),
    *("__setitem__", "__delitem__", "__add__", "__iadd__", "__mul__", "__imul__", "__dir__"),
)
"""Methods of containers that change them, or make another of them."""


def _length(container: nn.Module) -> int:
    return len(_own(container))


def _modules(container: nn.Module) -> Iterator[nn.Module]:
    return iter(list(_own(container).values()))


def _item(container: nn.Module, index: int | slice) -> nn.Module:
    if isinstance(index, slice):
        sliced: nn.Module = _apart(own_class(container), "__getitem__")(container, index)
        return sliced
    return list(_own(container).values())[index]


def _names(container: nn.Module) -> Iterator[str]:
    return iter(list(_own(container)))


def _has(container: nn.Module, name: object) -> bool:
    return name in _own(container)


SEQUENCE: Methods = {"__len__": _length, "__iter__": _modules, "__getitem__": _item}
MAPPING: Methods = {
    "__len__": _length,
    "__iter__": _names,
    "__contains__": _has,
    "keys": lambda container: _own(container).keys(),
    "values": lambda container: _own(container).values(),
    "items": lambda container: _own(container).items(),
}
CONTAINERS: Mapping[type[nn.Module], Methods] = {
    nn.Sequential: SEQUENCE,
    nn.ModuleList: SEQUENCE,
    nn.ModuleDict: MAPPING,
}
"""What reads the modules of a container, by kind."""
