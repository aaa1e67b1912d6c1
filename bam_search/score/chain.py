"""Batch normalisation, perhaps an addition, and ReLU as one function, for training.

torch's own operators read a feature map for its statistics, then read and write it again for each
of normalisation, addition and ReLU. Nearly all of their cost is memory traffic. Here one pass
computes the statistics and one pass does the rest; the backward pass works likewise. The passes are
functions of tensors, not of modules; `_forward` also updates the running statistics in place.
torch.compile compiles each pass once per process for each combination of device, dtype, shape and
strides, whichever model the tensors come from.
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Backend = str | Callable[..., Any]
"""What compiles: a name that torch.compile knows, or a function."""
OPTIONS: dict[str, Any] = {"realize_reads_threshold": 8}
"""For inductor: an intermediate result that reads at most 8 buffers (default 4) is not stored.

So the normalised map is never written to memory in float32.
"""
REDUCED_DIMS = (0, 2, 3)
"""The dimensions of (B, C, H, W) that batch normalisation takes its statistics over."""


def normalise_add_relu(
    norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None, backend: Backend
) -> Tensor:
    """relu(norm(x) + residual), or relu(norm(x)) without `residual`.

    Updates the running statistics of `norm`. `x` and `residual` are (B, C, H, W) of one float type.
    `norm` is in training, with weights and running statistics in float32 and a momentum. All is
    computed in float32 and rounded once, where separate operators round each of their results.
    """
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    weights = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return _NormaliseAddRelu.apply(x, residual, *weights, norm.momentum, norm.eps, backend)


def add_relu(x: Tensor, residual: Tensor, backend: Backend) -> Tensor:
    """relu(x + residual) of two tensors of one shape and type."""
    return _AddRelu.apply(x, residual, backend)


class _NormaliseAddRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        backend: Backend,
    ) -> Tensor:
        arguments = (x, residual, weight, bias, running_mean, running_var, momentum, eps)
        y, mean, rstd = _run(_forward, backend, *arguments)
        # Without a residual, backward recomputes the ReLU mask from x: y need not be saved.
        ctx.save_for_backward(x, None if residual is None else y, weight, bias, mean, rstd)
        ctx.backend = backend
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *per_channel = ctx.saved_tensors
        # Pooling, or another placement, can give other strides: no reason for another graph.
        if gradient.stride() != x.stride():
            gradient = torch.empty_like(x).copy_(gradient)
        if y is None:
            grad_x, grad_weight, grad_bias = _run(_backward, ctx.backend, gradient, x, *per_channel)
            grad_residual = None
        else:
            gradients = _run(_backward_of_sum, ctx.backend, gradient, x, y, *per_channel)
            grad_x, grad_weight, grad_bias, grad_residual = gradients
        return grad_x, grad_residual, grad_weight, grad_bias, None, None, None, None, None


class _AddRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, backend: Backend) -> Tensor:
        y: Tensor = _run(_sum_relu, backend, x, residual)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (y,) = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(gradient, y, 0)
        return passed, passed, None


def _run(function: Callable[..., Any], backend: Backend, *arguments: Tensor | float | None) -> Any:
    device = next(a for a in arguments if isinstance(a, Tensor)).device.type
    bare = [a.detach() if isinstance(a, Tensor) else a for a in arguments]
    # Nothing here depends on autocast; a graph would, and backward runs without.
    with torch.autocast(device, enabled=False):
        return _graph(function, backend, *map(_kind, bare))(*bare)


def _kind(argument: Tensor | float | None) -> object:
    """All that a graph is compiled for."""
    if not isinstance(argument, Tensor):
        return argument
    return argument.device, argument.dtype, argument.shape, argument.stride()


@functools.cache
def _graph(function: Callable[..., Any], backend: Backend, *_kinds: object) -> Callable[..., Any]:
    """`function`, to be compiled for one kind of arguments.

    Each graph gets its own copy of the code. torch.compile stores graphs by code, up to a limit,
    which cannot be raised for backward: autograd's threads do not see this thread's settings
    (https://github.com/pytorch/pytorch/issues/186537).
    """
    code = function.__code__
    copy = FunctionType(code.replace(), function.__globals__, function.__name__)
    options = OPTIONS if backend == "inductor" else None
    return torch.compile(copy, backend=backend, fullgraph=True, dynamic=False, options=options)


def _forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, ...]:
    n = x.numel() // x.shape[1]
    var, mean = torch.var_mean(x.float(), REDUCED_DIMS, correction=0)
    running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
    running_var.mul_(1 - momentum).add_(var, alpha=momentum * n / (n - 1))
    rstd = torch.rsqrt(var + eps)
    y = _affine(x, weight, bias, mean, rstd)
    if residual is not None:
        y = y + residual.float()
    # The scale is recomputed in backward, not returned: Triton 3.6 fails to compile a reduction
    # kernel that both stores `rstd` and reads it again ("operand does not dominate this use").
    return y.relu().to(x.dtype), mean, rstd


def _affine(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """The normalised map, in float32."""
    scale = weight * rstd
    shift = bias - mean * scale
    return x.float() * _map(scale) + _map(shift)


def _backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, ...]:
    passed = torch.where(_affine(x, weight, bias, mean, rstd) <= 0, 0, gradient)
    return _through_norm(passed, x, weight, mean, rstd)


def _backward_of_sum(
    gradient: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    _bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, ...]:
    passed = torch.where(y <= 0, 0, gradient)
    return *_through_norm(passed, x, weight, mean, rstd), passed


def _through_norm(
    gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of a normalisation's input, weight and bias.

    That of the input is linear in `gradient` and `x`, with coefficients per channel: one pass once
    the sums are known. Sergey Ioffe, Christian Szegedy: "Batch Normalization", ICML 2015,
    https://arxiv.org/abs/1502.03167, section 3.
    """
    n = x.numel() // x.shape[1]
    scale = weight * rstd
    grad_bias = gradient.float().sum(REDUCED_DIMS)
    grad_weight = (gradient.float() * (x.float() - _map(mean))).sum(REDUCED_DIMS) * rstd
    slope = -scale * rstd * grad_weight / n
    level = -scale * grad_bias / n - mean * slope
    grad_x = gradient.float() * _map(scale) + x.float() * _map(slope) + _map(level)
    return grad_x.to(x.dtype), grad_weight, grad_bias


def _map(per_channel: Tensor) -> Tensor:
    return per_channel.view(-1, 1, 1)


def _sum_relu(x: Tensor, residual: Tensor) -> Tensor:
    return functional.relu(x + residual)
