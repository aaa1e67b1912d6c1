"""Normalisations to choose among where batches are small, as in detection.

Batch normalisation needs several values a channel, so that a vector (B, C) needs B > 1, and its
statistics are poor for few. Sergey Ioffe, Christian Szegedy: "Batch Normalization", ICML 2015,
https://arxiv.org/abs/1502.03167. Yuxin Wu, Kaiming He: "Group Normalization", ECCV 2018,
https://arxiv.org/abs/1803.08494.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.model.maps import BATCH_NORMS

Norm = Literal["batch", "frozen", "group", "none"]
"""Over the batch; by statistics that stay as they are; over groups of an image's channels; none."""

MOST_GROUPS, LEAST_IN_GROUP = 32, 16
"""The group sizes of Wu and He's table 3 with the least error, by number and by channels."""


def normalisation(kind: Norm, channels: int, dims: int, affine: bool = True) -> nn.Module:
    """The normalisation of a map with `dims` dimensions, or of vectors (B, C), where `dims` is 0.

    All but "none" have a weight and a bias a channel, if `affine`.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "group":
        return GroupNorm(channels, affine)
    if kind == "frozen":
        return FrozenBatchNorm(channels, affine)
    return BATCH_NORMS[dims](channels, affine=affine)


def groups(channels: int) -> int:
    """The most groups, 32 or fewer, that share the channels out evenly, each 16 or more.

    One group where there are fewer channels, which is a layer normalisation.
    """
    fitting = (n for n in range(MOST_GROUPS, 1, -1) if channels % n == 0)
    return next((n for n in fitting if channels // n >= LEAST_IN_GROUP), 1)


class FrozenBatchNorm(nn.Module):
    """(B, C, ...) -> (B, C, ...): batch normalisation by statistics that no batch changes.

    Its state dict is that of a batch normalisation, so it goes on with the statistics of a trained
    one. Those of a new one are mean 0 and variance 1. Weight and bias train.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.weight, self.bias = _affine(channels, affine)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return functional.batch_norm(x, mean, variance, self.weight, self.bias)


class GroupNorm(nn.Module):
    """(B, C, ...) -> (B, C, ...): each image's channels are normalised in groups.

    The result has the type of `x`, also where autocast would make it float32. A group of one value
    becomes the bias.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.groups = groups(channels)
        self.weight, self.bias = _affine(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.groups, self.weight, self.bias).to(x.dtype)


def _affine(channels: int, affine: bool) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    if not affine:
        return None, None
    return nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
