"""Training with batch normalisation, addition and ReLU as one function, wherever they follow.

No library offers that function for bfloat16. torch's own kernel can add and rectify (`z` and
`fuse_relu` in aten/src/ATen/native/cuda/Normalization.cuh), but no ATen operator offers that.
cuDNN's fused normalisation is not among torch's operators. apex has one (contrib/groupbn), a
package to be built on the machine, whose examples are all float16.
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils._pytree import tree_map_only

from bam_search.errors import first_line
from bam_search.model.insert import attended
from bam_search.model.site_class import own_class
from bam_search.score.chain import Backend
from bam_search.score.compiled import quiet
from bam_search.score.deferred import Chains, Deferred, NotFused, plain

TYPES = {torch.float32, torch.bfloat16, torch.float16}
"""The types of maps that are normalised in float32 anyway."""
NO_CHAIN = "no batch normalisation of this model is followed by ReLU"


@contextlib.contextmanager
def fused(model: nn.Module, backend: Backend = "inductor") -> Iterator[Chains]:
    """While the model trains in the context, each normalise-add-ReLU chain is one function.

    A chain is a batch normalisation, perhaps an addition, and ReLU. Only what `nn.BatchNorm2d`
    returns is changed: a lazy tensor, computed when it is used. Modules, their hooks and attention
    are called as ever. So a normalisation with attention on it runs by itself, and the sum with its
    ReLU is one function. What lies inside of attention stays as it is. So does a normalisation that
    is frozen, has no weights, running statistics or momentum, has hooks on its gradient, or
    normalises another dtype than float32, bfloat16 and float16.

    Yields the chains that were met. Raises NotFused if there are none, in the first training pass
    at the latest, and where the model does something with a normalisation's output that would
    otherwise go wrong silently.
    """
    norms = _norms(model)
    if not norms:
        raise NotFused(NO_CHAIN)
    chains = Chains(backend)
    again = partial(_defer_again, chains)
    hooks = [norm.register_forward_hook(again) for norm in norms if norm._forward_hooks]
    hooks.append(model.register_forward_hook(partial(_materialise_output, chains)))
    for norm in norms:
        norm.forward = partial(_defer, norm, chains)  # type: ignore[method-assign]
    try:
        with quiet():
            yield chains
    except TorchDynamoException as error:
        reason = first_line(getattr(error, "inner_exception", error))
        raise NotFused(f"batch normalisation cannot be compiled: {reason}") from error
    finally:
        for norm in norms:
            del norm.forward
        for hook in hooks:
            hook.remove()


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch normalisations outside of attention whose `forward` is their class's."""
    attention = tuple(f"{child}." for child in attended(model).values())
    outside = [m for name, m in model.named_modules() if not name.startswith(attention)]
    norms = [module for module in outside if own_class(module) is nn.BatchNorm2d]
    return [norm for norm in norms if "forward" not in norm.__dict__]


def _defer(norm: nn.BatchNorm2d, chains: Chains, x: Tensor) -> Tensor:
    x = plain(x)
    # Hooks, attention's for example, may hand it to an autograd function, which would treat a lazy
    # tensor as one that has no grad_fn.
    waits = _can_wait(norm, x) and not norm._forward_hooks
    return Deferred(chains, x, norm) if waits else nn.BatchNorm2d.forward(norm, x)


def _defer_again(chains: Chains, _norm: nn.Module, _args: object, output: object) -> object:
    """After a normalisation's hooks: a sum with what they gave can still wait for its ReLU."""
    value = plain(output)
    if type(value) is Tensor and value.requires_grad and torch.is_grad_enabled():
        return Deferred(chains, value)
    return value


def _can_wait(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    return _trains_in_float32(norm) and _is_map(x)


def _trains_in_float32(norm: nn.BatchNorm2d) -> bool:
    if not (norm.training and torch.is_grad_enabled()):
        return False
    if norm._backward_hooks or norm._backward_pre_hooks:
        return False
    needed = (norm.momentum, norm.weight, norm.bias, norm.running_mean)
    if any(value is None for value in needed):
        return False
    types = {norm.weight.dtype, norm.running_mean.dtype}  # type: ignore[union-attr]
    return types == {torch.float32}


def _is_map(x: Tensor) -> bool:
    if type(x) is not Tensor or x.dim() != 4 or x.dtype not in TYPES:
        return False
    # One value a channel cannot be normalised; torch's own function says so.
    return x.numel() != x.shape[1]


def _materialise_output(chains: Chains, model: nn.Module, _args: object, output: object) -> object:
    """Compute what leaves the model, and check that no normalisation was forgotten."""
    if not (model.training and torch.is_grad_enabled()):
        return output
    output = tree_map_only(Deferred, plain, output)
    if not chains.fused_calls:
        raise NotFused(NO_CHAIN)
    if chains.deferred_norms != chains.executed_norms:
        raise NotFused("nothing reads the output of a batch normalisation")
    return output
