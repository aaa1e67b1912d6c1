"""CBAM, the Convolutional Block Attention Module: channel attention, then spatial attention.

Sanghyun Woo, Jongchan Park, Joon-Young Lee, In So Kweon: "CBAM: Convolutional Block Attention
Module", ECCV 2018, https://arxiv.org/abs/1807.06521. F' = Mc(F) * F, F'' = Ms(F') * F' (eq. 1), Mc
= sigmoid(MLP(avg F) + MLP(max F)) (eq. 2), Ms = sigmoid(f_kxk([avg F; max F])), pooled over
channels (eq. 3).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from bam_search.model.attention.options import reduced_channels
from bam_search.model.maps import CONVOLUTIONS, MAX_POOLS, on_map
from bam_search.model.pool import GlobalAvgPool, largest, mean


class CBAM(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), any H and W.

    `r` reduces C to C // r hidden channels, `k` is the side of the spatial convolution. `dims` is
    the number of the map's dimensions: 1 for (B, C, L), 3 for (B, C, D, H, W).
    """

    def __init__(
        self, channels: int, r: int = 16, k: Literal[3, 5, 7] = 7, *, dims: int = 2
    ) -> None:
        super().__init__()
        m = reduced_channels(channels, r)
        convolution = CONVOLUTIONS[dims]
        self.dims = dims
        self.average, self.largest = GlobalAvgPool(), MAX_POOLS[dims](1)
        self.mlp = nn.Sequential(
            convolution(channels, m, 1, bias=False),
            nn.ReLU(inplace=True),
            convolution(m, channels, 1, bias=False),
        )
        self.spatial = convolution(2, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average = self.mlp(on_map(self.average(x), self.dims))
        x = x * (average + self.mlp(self._largest(x))).sigmoid()
        pooled = torch.cat([self._average_channel(x), x.amax(1, keepdim=True)], dim=1)
        return x * self.spatial(pooled).sigmoid()

    def _largest(self, x: Tensor) -> Tensor:
        # CUDA's adaptive pooling copies the map to channels-first and back, and has one thread for
        # all pixels of a channel.
        on_gpu = isinstance(x, Tensor) and x.is_cuda
        return on_map(largest(x), self.dims) if on_gpu else self.largest(x)

    def _average_channel(self, x: Tensor) -> Tensor:
        if self.training:
            return mean(x, 1, keepdim=True)
        return x.mean(1, keepdim=True)  # the same, as its cost is counted
