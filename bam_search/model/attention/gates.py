"""Two operations on a whole map, whose derivatives go over it fewer times than autograd's own.

A pass over a map is memory-bound on a GPU: its time is that of reading and writing the map. Both
save their inputs only, so that second derivatives follow from autograd.
"""

import math
from typing import Any

import torch
from torch import Tensor


def spread(base: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """base + y * slope, (B, H, W, C); maps of one or three dimensions likewise.

    `y` is (B, H, W, 1); `base` and `slope`, of C channels, are the same at all pixels: (C,) or (B,
    1, 1, C).
    """
    if not _uses_custom_backward(y):
        return torch.addcmul(base, y, slope)
    per_image = (y.shape[0], *[1] * (y.dim() - 2), slope.shape[-1])
    return _Spread.apply(base.expand(per_image), y, slope.expand(per_image))


def amplified(x: Tensor, gate: Tensor) -> Tensor:
    """x + x * gate, where `gate` is broadcast to the shape of `x`."""
    return _Amplified.apply(x, gate) if _uses_custom_backward(x) else torch.addcmul(x, x, gate)


def _uses_custom_backward(x: Tensor) -> bool:
    """Whether to use the derivatives that are written here instead of autograd's.

    Only where derivatives are taken and nothing traces the operations. A compiler fuses autograd's
    own passes; a tracer (fvcore's, fx's) has to see the operations.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return isinstance(x, Tensor) and torch.is_grad_enabled()


class _Spread(torch.autograd.Function):
    """`spread` for `base` and `slope` of shape (B, 1, 1, C).

    Autograd's derivative of `addcmul` writes the products with `y` and with `slope` as maps and
    adds them up. Two matrix products read the gradient once each, and write no map.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(base: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        return torch.addcmul(base, y, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        _, y, slope = inputs
        ctx.save_for_backward(y, slope)
        ctx.save_for_forward(y, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, slope = ctx.saved_tensors
        images, *sides, channels = grad.shape
        pixels = grad.reshape(images, math.prod(sides), channels)
        ys = y.to(grad.dtype).reshape(images, math.prod(sides))
        grad_y = slope.to(grad.dtype).reshape(images, 1, channels) @ pixels.transpose(1, 2)
        grad_base, grad_slope = (torch.stack([torch.ones_like(ys), ys], 1) @ pixels).unbind(1)
        return (
            grad_base.reshape(slope.shape),
            grad_y.reshape(y.shape),
            grad_slope.reshape(slope.shape),
        )

    @staticmethod
    def jvp(ctx: Any, d_base: Tensor, d_y: Tensor, d_slope: Tensor) -> Tensor:
        y, slope = ctx.saved_tensors
        return d_base + d_y * slope + y * d_slope


class _Amplified(torch.autograd.Function):
    """`amplified`.

    Autograd adds up the gradients of both uses of `x` in `addcmul`, in a pass of its own; and
    x * (1 + gate) is one pass more forward.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gate: Tensor) -> Tensor:
        return torch.addcmul(x, x, gate)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gate = ctx.saved_tensors
        return torch.addcmul(grad, grad, gate), (grad * x).sum_to_size(gate.shape)

    @staticmethod
    def jvp(ctx: Any, d_x: Tensor, d_gate: Tensor) -> Tensor:
        x, gate = ctx.saved_tensors
        return torch.addcmul(d_x, d_x, gate) + x * d_gate
