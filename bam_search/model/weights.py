"""Load weights into a model, from a file in any of the forms in which people save them.

A state dict may be nested (`{"state_dict": ...}`), that of a wrapped model (`module.` by
DataParallel and DDP, `_orig_mod.` by torch.compile), of an average of models (EMA), of half
precision, without the head, or with one for other classes. Nothing in a file is executed.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bam_search.errors import UserError, first_line

Weights = Mapping[str, Tensor]

NAMES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"),
    *("backbone", "encoder", "teacher", "student"),
    *("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema", "params_ema"),
)
"""What a nested state dict is called, in the order of preference; then come all other names."""
OTHER = "give the weights of this model, or of this model with another head"
DEPTH = 3
"""How deep a state dict may be nested."""
BODIES = ("backbone.body", "backbone")
"""What the backbone of a detector is called, in the order in which they are tried."""
COMPILED = "_orig_mod."
"""What torch.compile puts into the keys of a state dict."""
COUNTER = "num_batches_tracked"
"""The one key that old files lack, and that normalisation with a momentum does not read."""
CODE = ("Unsupported global", "Unsupported class", "TorchScript")
"""What torch says of a file that holds objects which only code can make."""
LIKE = "save them with torch.save(model.state_dict(), path)"


@dataclass(frozen=True)
class Fit:
    """Weights of a file for a model.

    `weights` has those that the file has, by the model's keys, in the model's types; `new` the keys
    of the head, if the file has none that fits. `source` says which part of the file they are.
    """

    weights: Weights
    new: tuple[str, ...]
    source: str

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the weights: equal ones in another form have the same."""
        content = hashlib.sha256()
        for key, value in sorted(self.weights.items()):
            if key.endswith(COUNTER):  # old files lack it
                continue
            content.update(f"{key} {value.dtype} {tuple(value.shape)} ".encode())
            content.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return content.hexdigest()[:12]


def load_weights(model: nn.Module, path: Path, head: Collection[str] = ()) -> Fit:
    """Load the weights in the file at `path` into `model`, on any device and in any type.

    `head` are the keys of the model's that may be missing, or of another shape, in the file: those
    stay as they are. Raises UserError, which names the first key that is missing or unexpected; the
    model is then not changed.
    """
    fit = fit_weights(model, path, head)
    model.load_state_dict(fit.weights, strict=False)
    return fit


def fit_detector(model: nn.Module, path: Path, head: Collection[str] = ()) -> Fit:
    """What a file has for a detector: all of it, or the weights of its backbone alone.

    These are those of a classifier, whose last layers are left out; the neck and the heads are
    `new` then. Raises UserError.
    """
    try:
        return fit_weights(model, path, head)
    except UserError as error:
        bodies = [name for name in BODIES if name in dict(model.named_modules())]
        content = _read(path) if bodies else None
        fits = (_fit_body(model, name, content) for name in bodies)
        found = next(filter(None, fits), None)
        if found is None:
            raise UserError(f"{error.message}, nor its backbone", error.hint) from None
        return found


def _fit_body(model: nn.Module, name: str, content: object) -> Fit | None:
    """The weights of a file's content for one submodule; None if they do not fit."""
    body, prefix = _tensors(model.get_submodule(name)), f"{name}."
    for source, nested in _nested(content):
        for part, weights in _unwrapped(nested, body, source):
            known = {key: value for key, value in weights.items() if key in body}
            fit = _compare(body, known, (), part)
            if isinstance(fit, Fit):
                mine = {f"{prefix}{key}": value for key, value in fit.weights.items()}
                new = tuple(key for key in _tensors(model) if not key.startswith(prefix))
                return Fit(mine, new, fit.source)
    return None


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model's state dict."""
    return {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}


def fit_weights(model: nn.Module, path: Path, head: Collection[str] = ()) -> Fit:
    """What `load_weights` would load. Raises UserError."""
    state = _tensors(model)
    closest = _Misfit(-1, "it holds no state dict", LIKE)
    for source, nested in _nested(_read(path)):
        for part, weights in _unwrapped(nested, state, source):
            found = _compare(state, weights, head, part)
            if isinstance(found, Fit):
                return found
            closest = max(closest, found, key=lambda misfit: misfit.matching)
    raise UserError(f"{path} does not fit the model: {closest.reason}", closest.hint)


def _read(path: Path) -> Any:
    """What the file holds: tensors, numbers, texts, and tables and lists of them."""
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}", "name a file of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # torch raises many types for a file that is none of its own.
    except Exception as error:
        if any(sign in str(error) for sign in CODE):
            raise UserError(
                f"{path} holds objects beside tensors, and reading these could run any code",
                "keep its state dict alone, where you trust the file: "
                "torch.save(model.state_dict(), path)",
            ) from None
        raise UserError(f"{path} is no file of weights", LIKE) from None


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(
            f"{path} needs safetensors, which is not installed", "pip install safetensors"
        ) from None
    try:
        return load_file(path)
    except Exception as error:
        raise UserError(f"{path} is no file of weights: {first_line(error)}") from None


def _nested(table: Any, name: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Weights]]:
    """Yield all state dicts of a file, each with its name in it; the likeliest first."""
    if isinstance(table, nn.Module) or not isinstance(table, Mapping):
        return
    weights = {str(key): value for key, value in table.items() if isinstance(value, Tensor)}
    if weights:
        yield name, weights
    if depth:
        for key in sorted(table, key=_preference):
            yield from _nested(table[key], f"{name}.{key}".lstrip("."), depth - 1)


def _preference(name: Any) -> int:
    return NAMES.index(name) if name in NAMES else len(NAMES)


def _unwrapped(weights: Weights, state: Weights, source: str) -> Iterator[tuple[str, Weights]]:
    """Yield the weights with the model's own keys: without the prefix that a wrapper adds."""
    plain = {key.replace(COMPILED, ""): value for key, value in weights.items()}
    for prefix in sorted(_prefixes(plain, state), key=len):
        found = {
            key.removeprefix(prefix): value
            for key, value in plain.items()
            if key.startswith(prefix)
        }
        yield f"{source}.{prefix.rstrip('.')}".strip("."), found


def _prefixes(weights: Weights, state: Weights) -> set[str]:
    """What stands in front of the model's first or longest key in the file; also nothing."""
    prefixes = {""}
    for own in (next(iter(state), ""), max(state, key=len, default="")):
        ends = [key.removesuffix(own) for key in weights if key.endswith(own)]
        prefixes.update(prefix for prefix in ends if prefix.endswith("."))
    return prefixes


@dataclass(frozen=True)
class _Misfit:
    """Why weights are not those of a model, of which `matching` keys match."""

    matching: int
    reason: str
    hint: str


def _compare(state: Weights, weights: Weights, head: Collection[str], source: str) -> Fit | _Misfit:
    """The weights as they fit the model with this state dict, or why they do not."""
    there = {key: value for key, value in weights.items() if key in state}
    wrong = [key for key, value in there.items() if not _is_alike(value, state[key])]
    fitting = {key: value.to(state[key].dtype) for key, value in there.items() if key not in wrong}
    absent = [key for key in state if key not in fitting and not key.endswith(COUNTER)]
    new = _without_any(absent, state, head)
    around_new = tuple({f"{_module_of(key)}." for key in new if "." in key})
    missing = [key for key in absent if key not in new]
    unexpected = [key for key in weights if key not in state and not key.startswith(around_new)]
    if len(fitting) > len(new) and not missing and not unexpected:
        return Fit(fitting, tuple(new), source)
    return _Misfit(len(fitting), _reason(state, weights, missing, unexpected), OTHER)


def _is_alike(one: Tensor, other: Tensor) -> bool:
    """Whether `other` can have the values of `one`, which may be in half precision."""
    same_kind = one.is_floating_point() == other.is_floating_point()
    return same_kind and (is_lazy(other) or one.shape == other.shape)


def _without_any(absent: list[str], state: Weights, head: Collection[str]) -> list[str]:
    """The keys of the absent head, and of the modules around it of which all is absent."""
    keys = [key for key in state if not key.endswith(COUNTER)]
    new: set[str] = set()
    for key in (key for key in absent if key in head):
        new.add(key)
        module = _module_of(key)
        while module:
            inside = [name for name in keys if name.startswith(f"{module}.")]
            if not set(inside) <= set(absent):
                break
            new |= set(inside)
            module = _module_of(module)
    return [key for key in state if key in new]


def _module_of(key: str) -> str:
    """The name of the module that has the key, or of the one around a module; empty at the top."""
    return key.rpartition(".")[0]


def _reason(state: Weights, weights: Weights, missing: list[str], unexpected: list[str]) -> str:
    """What is wrong with the weights, in words: the first key of each kind of mistake."""
    reshaped = [key for key in missing if key in weights]
    missing = [key for key in missing if key not in weights]
    parts = [
        *(f"{key} is missing{_more(missing)}" for key in missing[:1]),
        *(f"{key} is unexpected{_more(unexpected)}" for key in unexpected[:1]),
        *(f"{key} is {_words(weights[key])}, not {_words(state[key])}" for key in reshaped[:1]),
    ]
    return ", and ".join(parts) or "it has next to nothing of it"


def _words(value: Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _more(keys: list[str]) -> str:
    return f", as {_others(len(keys) - 1)}" if len(keys) > 1 else ""


def _others(count: int) -> str:
    return "is another" if count == 1 else f"are {count} more"
