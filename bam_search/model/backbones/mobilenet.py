"""MobileNetV1 for 224x224 images.

Andrew Howard et al.: "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", 2017, https://arxiv.org/abs/1704.04861 (table 1).
"""

from torch import Tensor, nn

from bam_search.model.backbones.init import init_weights
from bam_search.model.pool import GlobalAvgPool

STAGES = ((128, 2), (256, 2), (512, 6), (1024, 2))
"""Channels at width 1.0, and depthwise separable blocks, of each stage."""


class MobileNetV1(nn.Module):
    """(B, 3, H, W) -> (B, classes): `width` multiplies all channels."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        first, before = int(32 * width), int(64 * width)
        self.stem = nn.Sequential(*_convolution(3, first, 3, 2, 1), *_separable(first, before, 1))
        for i, (channels, blocks) in enumerate(STAGES):
            after = int(channels * width)
            stage = [nn.Sequential(*_separable(before, after, 2))]
            stage += [nn.Sequential(*_separable(after, after, 1)) for _ in range(blocks - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            before = after
        self.avgpool = GlobalAvgPool()
        self.fc = nn.Linear(before, classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i in range(len(STAGES)):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.fc(self.avgpool(x))


def _separable(before: int, after: int, stride: int) -> list[nn.Module]:
    return [*_convolution(before, before, 3, stride, before), *_convolution(before, after, 1, 1, 1)]


def _convolution(before: int, after: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
