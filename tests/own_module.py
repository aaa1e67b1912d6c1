"""An attention module that is not part of the package: coordinate attention.

Qibin Hou, Daquan Zhou, Jiashi Feng: "Coordinate Attention for Efficient Mobile Network Design",
CVPR 2021, https://arxiv.org/abs/2103.02907.
"""

import torch
from torch import Tensor, nn


class CoordAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x times a gate for each row and one for each column."""

    def __init__(self, channels: int, r: int = 32) -> None:
        super().__init__()
        hidden = max(8, channels // r)
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish()
        )
        self.rows = nn.Conv2d(hidden, channels, 1)
        self.columns = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        of_rows = x.mean(3, keepdim=True)  # (B, C, H, 1)
        of_columns = x.mean(2, keepdim=True).transpose(2, 3)  # (B, C, W, 1)
        both = self.reduce(torch.cat([of_rows, of_columns], 2))
        of_rows, of_columns = both.split([height, width], 2)
        return x * self.rows(of_rows).sigmoid() * self.columns(of_columns).transpose(2, 3).sigmoid()
