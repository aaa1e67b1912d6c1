"""BAM, the Bottleneck Attention Module: a channel branch plus a dilated spatial branch.

Jongchan Park, Sanghyun Woo, Joon-Young Lee, In So Kweon: "BAM: Bottleneck Attention Module", BMVC 2018,
https://arxiv.org/abs/1807.06514. F' = F + F * M(F) (eq. 1), M(F) = sigmoid(Mc(F) + Ms(F)) (eq. 2).
"""

import torch
from torch import Tensor, nn


class BAM(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), any H and W; in training B > 1, since the channel branch normalises over the batch.

    `r` reduces C to C // r hidden channels, `d` is the dilation of the `n` 3x3 convolutions of the spatial branch. Both branches
    end in a batch normalisation over C channels, as in the paper. The spatial map is the same for all channels, so it is
    normalised once, and `scale` and `shift` are the C weights and biases of that normalisation.
    """

    def __init__(self, channels: int, r: int = 16, d: int = 4, n: int = 2) -> None:
        super().__init__()
        self.channel = _channel_branch(channels, channels // r)
        self.spatial = _spatial_branch(channels, channels // r, d, n)
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # (B, H, W, C) while the branches meet, so that the large map is channels-last in memory, as images on a device are.
        spatial = self.spatial(x).permute(0, 2, 3, 1)
        spatial = spatial * self.scale.to(spatial.dtype)
        channel = (self.channel(x) + self.shift).to(spatial.dtype)
        gate = (spatial + channel[:, None, None, :]).sigmoid().permute(0, 3, 1, 2)
        return x + x * gate


def _channel_branch(channels: int, hidden: int) -> nn.Sequential:
    """Mc, eq. 3: (B, C, H, W) -> (B, C)."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, channels),
        nn.BatchNorm1d(channels),
    )


def _spatial_branch(channels: int, hidden: int, dilation: int, depth: int) -> nn.Sequential:
    """Ms, eq. 4, up to the weights of its last normalisation: (B, C, H, W) -> (B, 1, H, W)."""
    layers: list[nn.Module] = [*_convolution(channels, hidden, 1, 1)]
    for _ in range(depth):
        layers += _convolution(hidden, hidden, 3, dilation)
    return nn.Sequential(*layers, nn.Conv2d(hidden, 1, 1), nn.BatchNorm2d(1, affine=False))


def _convolution(before: int, after: int, kernel: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
