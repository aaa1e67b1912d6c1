"""The copy of a model that is watched, traced and counted, so that the model itself is not touched.

A copy keeps what belongs to the model: parameters, also those that modules share, inserted
attention, and hooks that torch, this package or the model itself has registered (`weight_norm`,
`prune`). It leaves behind what a user hung on it from outside: hooks for logging or for keeping
activations would record passes that no one made.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bam_search.errors import UserError, first_line

HOOKS = (
    *("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"),
    *("_state_dict_pre_hooks", "_state_dict_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
"""The attributes of a module that hold its hooks by number."""
FLAGS = (
    *("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_forward_pre_hooks_with_kwargs",
)
"""The attributes of a module that say, by number, how its hooks are called."""
PACKAGES = frozenset({"torch", "bam_search"})
"""Hooks that are defined in these are a part of how a model computes."""


def twin_of(model: nn.Module, device: str) -> nn.Module:
    """A copy of `model` on `device`, "meta" or "cpu", which may be run and changed.

    Parameters, buffers and other tensors are copied to the device; on "cpu" those that had no
    values, being on the meta device, are 0. Activations that a module keeps are copied without
    their history. An attribute that cannot be copied, such as a lock, is shared.

    Raises UserError if the model has parameters without a shape, or cannot be copied.
    """
    _require_shapes(model)
    with torch.inference_mode(mode=False), torch.no_grad(), _Placing(device):
        try:
            return _copied(model, device, {})
        except Exception:  # whatever an attribute raises, the second attempt copies without it
            return _copied_with_shared(model, device)


def _require_shapes(model: nn.Module) -> None:
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            site, _, attribute = name.rpartition(".")
            kind = type(model.get_submodule(site)).__name__
            raise UserError(
                f"the model cannot be copied: {attribute!r} of {site or 'the model'!r}, "
                f"a {kind}, has no shape before the first pass",
                "run the model once on a batch, which sets the shapes of lazy modules",
            )


def _copied_with_shared(model: nn.Module, device: str) -> nn.Module:
    shared = dict(_uncopyable(model))
    try:
        return _copied(model, device, shared)
    except Exception as error:  # a class of a user's can raise anything; the user has to read it
        raise UserError(
            "the model cannot be copied, and a copy is what is run here: "
            f"{type(error).__name__}: {first_line(error)}",
            "copy.deepcopy(model) has to work: mend __deepcopy__ or __getstate__ of its class",
        ) from error


def _copied(model: nn.Module, device: str, shared: Mapping[int, Any]) -> nn.Module:
    memo = _memo(model, device) | dict(shared)
    twin = copy.deepcopy(model, memo)
    # Hooks come last: a method of a module is then copied as that of the module's copy.
    for module in model.modules():
        # One that says how it is copied leaves out what its hooks need, as graphs of torch.export.
        if id(module) in memo and not hasattr(module, "__deepcopy__"):
            _copy_hooks(module, memo[id(module)], model, memo)
    return twin


def _copy_hooks(module: nn.Module, to: nn.Module, model: nn.Module, memo: dict[int, Any]) -> None:
    for attribute in HOOKS:
        kept = _kept(getattr(module, attribute, {}), model)
        if kept:
            getattr(to, attribute).update(copy.deepcopy(kept, memo))
    for attribute in FLAGS:
        getattr(to, attribute).update(getattr(module, attribute))


def _memo(model: nn.Module, device: str) -> dict[int, Any]:
    """What deepcopy takes instead of copying, by id: placed tensors, and no hooks."""
    memo: dict[int, Any] = {id(b): _placed(b, device) for b in model.buffers()}
    for p in model.parameters():
        memo[id(p)] = nn.Parameter(_placed(p, device), p.requires_grad)
    for module in model.modules():
        for attribute in HOOKS:
            hooks = getattr(module, attribute, {})
            memo[id(hooks)] = type(hooks)()
    return memo


def _placed(tensor: Tensor, device: str) -> Tensor:
    if tensor.is_meta and device != "meta":
        # Not uninitialised: an index has to be one that exists.
        return torch.zeros_like(tensor, device=device)
    return tensor.detach().to(device, copy=True)


class _Placing(TorchFunctionMode):
    """Within the context deepcopy places tensors, whatever made them, on the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = _placed(tensor, self.device)
        return memo[id(tensor)]


def _uncopyable(model: nn.Module) -> Iterator[tuple[int, Any]]:
    """Each attribute that cannot be copied, with its id. Raises UserError if it holds modules."""
    registries, memo = set(vars(nn.Module())), _memo(model, "meta")
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            error = None if attribute in registries else _refusal(value, dict(memo))
            if error is None:
                continue
            if any(isinstance(leaf, nn.Module) for leaf in tree_leaves(value)):
                raise UserError(
                    f"the model cannot be copied, and a copy is what is run here: {attribute!r} "
                    f"of {name or 'the model'!r}: {type(error).__name__}: {first_line(error)}",
                    "keep modules in an nn.ModuleList or nn.ModuleDict, apart from other things",
                )
            yield id(value), value


def _refusal(value: Any, memo: dict[int, Any]) -> Exception | None:
    """What copying raises, if it does."""
    try:
        copy.deepcopy(value, memo)
    except Exception as error:  # whatever it raises
        return error
    return None


def _kept(hooks: Mapping[int, Any], model: nn.Module) -> dict[int, Any]:
    return {key: hook for key, hook in hooks.items() if _of_model(hook, model)}


def _of_model(hook: Any, model: nn.Module) -> bool:
    """Whether a hook belongs to the model: torch's, ours, or a method of what the model holds."""
    if isinstance(hook, partial):
        return _of_model(hook.func, model)
    package = (getattr(hook, "__module__", None) or "").partition(".")[0]
    if package in PACKAGES or isinstance(hook, BasePruningMethod):
        return True
    owner = getattr(hook, "__self__", None)
    return owner is not None and any(owner is held for held in _held(model))


def _held(model: nn.Module) -> Iterator[Any]:
    """The model's modules, and the attributes of each."""
    for module in model.modules():
        yield module
        yield from vars(module).values()
