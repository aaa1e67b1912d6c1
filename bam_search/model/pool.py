"""Global pooling, written once for the attention modules and the backbones of this project."""

import torch
from torch import Tensor, nn

from bam_search.model.maps import positions


class GlobalAvgPool(nn.Module):
    """(B, C, H, W) -> (B, C), the mean over H and W; maps of one or three dimensions likewise.

    Taken over a channels-last view: then the gradient is channels-last as well, and adding it to
    those of other branches, or taking it through a ReLU, runs through memory in one direction.
    `nn.AdaptiveAvgPool2d` gives a channels-first gradient, which triples the time of that pass; and
    in bfloat16 on a CPU a sum takes a third of the time of `mean`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return mean(positions(x), 1)


def mean(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """The mean over one dimension, in the type of `x`.

    Its gradient is a view: it is spread over `x` without being written.

    The sum has the type of `x` (torch adds in float32 all the same): left to itself, autocast on a
    GPU makes it float32, and then writes the gradient as a map in the type of `x`. Only a sum of
    float16 is float32, as it could exceed the largest number of float16.
    """
    total = x.sum(dim, keepdim, dtype=_summed_in(x.dtype))
    return (total / x.shape[dim]).to(x.dtype)


def largest(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), the largest over H and W, from a channels-last view.

    The first pixel that has it gets the gradient.
    """
    return positions(x).max(1).values


@torch.fx.wrap  # a graph drawn by fx asks when it runs, not when it is drawn
def _summed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.float16 else dtype
