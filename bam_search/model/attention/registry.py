"""The table of attention modules: this package's, a user's, and timm's.

One entry says all that is known of a module: its class, its options with their defaults, and the
file that a worker process loads it from.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_origin

import torch
from torch import nn

from bam_search.errors import UserError, first_line, nearest
from bam_search.model.attention.bam import BAM
from bam_search.model.attention.block import Block
from bam_search.model.attention.cbam import CBAM
from bam_search.model.attention.eca import ECA
from bam_search.model.attention.gc import GC
from bam_search.model.attention.se import SE
from bam_search.model.attention.timm_modules import timm_constructor
from bam_search.space.modules import TIMM, TIMM_NAMES, ModuleFile
from bam_search.space.placement import NONE, Option
from bam_search.space.user_file import check_code, digest_of_code, run_file

Constructor = Callable[..., nn.Module]
"""Called with the number of channels and options; its module is (B, C, H, W) in and out."""

CONVENTION = "an attention module is a class, called as Module(channels, **options)"
OPTION_KINDS = (bool, int, float, str)
DIMS = "dims"
"""The parameter of a constructor that makes modules for maps of 1, 2 or 3 dimensions. No option."""
PROBE_CHANNELS = 256
PROBE_SIZES = ((8, 8), (9, 7))
PROBE_LENGTH = (9,)
"""The maps on which a new module is tried; on the last one if it takes maps of one dimension."""


@dataclass(frozen=True)
class Parameter:
    """An option of a module: its default, and its kind, which is a type or a Literal."""

    default: Option
    kind: Any


@dataclass(frozen=True)
class AttentionModule:
    """An attention module by name.

    `file` is where a user's class lies; None for a module of a library, and for a class that no
    file has, which exists in this process only. `is_foreign` says whether its constructor may raise
    anything. `needs_like` is true where the constructor also takes the module at the site,
    `takes_dims` where it also takes the number of the map's dimensions; others take maps of two.
    """

    name: str
    constructor: Constructor
    parameters: Mapping[str, Parameter]
    file: ModuleFile | None = None
    is_foreign: bool = False
    needs_like: bool = False
    takes_dims: bool = False


def _built_in(name: str, cls: type[nn.Module]) -> AttentionModule:
    needs_like = "like" in inspect.signature(cls).parameters
    parameters = parameters_of(cls)
    return AttentionModule(name, cls, parameters, needs_like=needs_like, takes_dims=takes_dims(cls))


def takes_dims(constructor: Constructor) -> bool:
    """Whether a constructor also makes modules for maps of one and three dimensions."""
    return DIMS in inspect.signature(constructor).parameters


def parameters_of(constructor: Constructor) -> dict[str, Parameter]:
    """The options of a constructor, by name and in order.

    An option is a parameter with a default that a placement can have as text: a number, true,
    false or a word. `dims` is none: the map decides it.
    """
    try:
        signature = inspect.signature(constructor, eval_str=True)
    except (NameError, SyntaxError):  # annotations that are known to type checkers only
        signature = inspect.signature(constructor)
    return {
        parameter.name: Parameter(parameter.default, _kind(parameter))
        for parameter in signature.parameters.values()
        if type(parameter.default) in OPTION_KINDS and parameter.name != DIMS
    }


def _kind(parameter: inspect.Parameter) -> Any:
    annotation = parameter.annotation
    if get_origin(annotation) is Literal or annotation in OPTION_KINDS:
        return annotation
    return type(parameter.default)


ATTENTION: Mapping[str, type[nn.Module]] = {
    "bam": BAM,
    "se": SE,
    "cbam": CBAM,
    "eca": ECA,
    "gc": GC,
    "block": Block,
}
"""The modules of this package."""

_BUILT_IN: Mapping[str, AttentionModule] = {
    name: _built_in(name, cls) for name, cls in ATTENTION.items()
}
_REGISTERED: dict[str, AttentionModule] = {}
"""What `register_attention` added in this process."""


def find(name: str) -> AttentionModule:
    """The attention module of this name. Raises UserError if there is none."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name.startswith(TIMM):
        return _timm(name)
    raise UserError(
        f"there is no attention module {name!r}", nearest(name, [*_BUILT_IN, *_REGISTERED])
    )


def register_attention(name: str, source: type[nn.Module] | str) -> None:
    """Make an attention module of yours known as `name`, in placements, studies and records.

        >>> from torch import nn
        >>> from torchvision.models import resnet18
        >>> from bam_search import attach, register_attention
        >>> class Gate(nn.Module):
        ...     def __init__(self, channels, k=1):
        ...         super().__init__()
        ...         self.gate = nn.Conv2d(channels, channels, k, padding="same")
        ...
        ...     def forward(self, x):
        ...         return x * self.gate(x).sigmoid()
        >>> register_attention("gate", Gate)
        >>> attach(resnet18(), "layer3=gate(k=3)").text
        'layer3=gate(k=3)'

    `source` is the class, or the text `FILE.py:CLASS`. It is called as `Module(channels,
    **options)`, and its module takes and returns maps (B, C, H, W). Options are the constructor's
    parameters whose default is a number, true, false or a word. A class that is defined anew where
    it was takes the place of the earlier one. A class whose constructor has a parameter `dims`
    also takes maps (B, C, L) and (B, C, D, H, W): `dims` is 1, 2 or 3.

    Raises UserError for a name that is taken or is no identifier, and for a class that does not
    keep to this.
    """
    if isinstance(source, str):
        module = _of_file(name, ModuleFile.parse(source))
    else:
        module = _of_class(name, source)
    earlier = _REGISTERED.get(name)
    if earlier and not _same_place(earlier, module):
        raise UserError(f"there is an attention module {name!r} already", "give yours another name")
    _add(module)


def use_module_files(files: Mapping[str, ModuleFile]) -> None:
    """Make the modules of `files` known by their names, in place of what these names meant before.

    Each file is run only if it is not known yet. Raises UserError as `register_attention` does, and
    if a file is not the one that was hashed.
    """
    for name, file in files.items():
        if name not in _REGISTERED or _REGISTERED[name].file != file:
            _add(_of_file(name, file))


def needs_like(name: str) -> bool:
    """Whether the constructor of a module also takes the module at its site, as `block` does."""
    return find(name).needs_like


def origin(name: str) -> str | None:
    """Which code a module's name stands for: equal for equal code, in other processes too.

    It is "" for a module of this package or of timm, else the class and the hash of its code. None
    for a class that no file has.
    """
    module = find(name)
    if name not in _REGISTERED:
        return ""
    return None if module.file is None else f"{module.file.cls} {module.file.digest}"


def module_files() -> dict[str, ModuleFile]:
    """The files of the user's modules, by name: all that another process needs to know them."""
    files = {name: module.file for name, module in _REGISTERED.items()}
    return {name: file for name, file in files.items() if file is not None}


_ON_CHANGE: list[Callable[[], None]] = []


def on_change(forget: Callable[[], None]) -> None:
    """Have `forget` called whenever a name may mean another module: it clears a cache."""
    _ON_CHANGE.append(forget)


def _add(module: AttentionModule) -> None:
    _REGISTERED[module.name] = module
    for forget in _ON_CHANGE:
        forget()


def _same_place(one: AttentionModule, other: AttentionModule) -> bool:
    """Whether two entries are of one class; a file that runs again defines its class anew."""
    return _place(one) == _place(other)


def _place(module: AttentionModule) -> tuple[str, str]:
    if module.file:
        return str(Path(module.file.path).resolve()), module.file.cls
    constructor: Any = module.constructor
    return constructor.__module__, constructor.__qualname__


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise UserError(
            f"{name!r} cannot name an attention module",
            "letters, digits and '_' make a name, such as coord",
        )
    if name in _BUILT_IN or name == NONE.module:
        raise UserError(f"the name {name!r} is taken", "give your module another name")


def _loaded(file: ModuleFile) -> object:
    """The class of a file, which is executed. Raises UserError."""
    check_code(((file.path, file.digest),))
    path = Path(file.path)
    loaded = run_file(path)
    if not hasattr(loaded, file.cls):
        classes = [key for key, value in vars(loaded).items() if isinstance(value, type)]
        raise UserError(f"{path} has no class {file.cls!r}", nearest(file.cls, classes))
    return getattr(loaded, file.cls)


def _of_file(name: str, file: ModuleFile) -> AttentionModule:
    _check_name(name)
    return _of_class(name, _loaded(file), file)


def _of_class(name: str, cls: object, file: ModuleFile | None = None) -> AttentionModule:
    _check_name(name)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        what = getattr(cls, "__name__", repr(cls))
        raise UserError(f"{name}: {what} is no class of torch.nn.Module", CONVENTION)
    _check_signature(name, cls)
    _check_shapes(name, cls)
    where = file or _file_of(cls)
    parameters = parameters_of(cls)
    return AttentionModule(name, cls, parameters, where, True, takes_dims=takes_dims(cls))


def _file_of(cls: type[nn.Module]) -> ModuleFile | None:
    """Where a class lies, if another process can load it from there."""
    try:
        path = inspect.getfile(cls)
    except (TypeError, OSError):  # of a notebook, or of the Python prompt
        return None
    is_importable = path.endswith(".py") and Path(path).is_file()
    if not is_importable or cls.__qualname__ != cls.__name__:
        return None
    return ModuleFile(path, cls.__name__, digest_of_code(Path(path)))


def _check_signature(name: str, cls: type[nn.Module]) -> None:
    """Raise UserError unless the class can be called with channels alone."""
    try:
        inspect.signature(cls).bind(PROBE_CHANNELS)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name}: {cls.__name__} cannot be called with a number of channels: {error}",
            CONVENTION,
        ) from None


def _check_shapes(name: str, cls: type[nn.Module]) -> None:
    """Raise UserError unless the module returns a map of the shape that it got."""
    sizes = [*PROBE_SIZES, PROBE_LENGTH] if takes_dims(cls) else PROBE_SIZES
    for sides in sizes:
        x = torch.zeros(2, PROBE_CHANNELS, *sides)
        dims = {DIMS: len(sides)} if takes_dims(cls) else {}
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                y = cls(PROBE_CHANNELS, **dims).eval()(x)
        except Exception as error:  # a user's class can raise anything
            raise UserError(
                f"{name}: {cls.__name__} fails on a map of {tuple(x.shape)}: "
                f"{type(error).__name__}: {first_line(error)}",
                CONVENTION,
            ) from error
        returned = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        if returned != tuple(x.shape):
            raise UserError(
                f"{name}: {cls.__name__} returns {returned} for a map of {tuple(x.shape)}",
                "an attention module returns a map of the shape that it gets",
            )


@functools.cache
def _timm(name: str) -> AttentionModule:
    if name not in TIMM_NAMES:
        raise UserError(f"there is no attention module {name!r}", nearest(name, TIMM_NAMES))
    constructor = timm_constructor(name.removeprefix(TIMM))
    return AttentionModule(name, constructor, parameters_of(constructor), is_foreign=True)
