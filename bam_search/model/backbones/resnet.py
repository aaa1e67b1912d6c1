"""ResNets for 32x32 and 224x224 images.

Those for 32x32 are torchvision's with the stem of the CIFAR experiments, and three-stage networks
of torchvision's blocks; those for 224x224 are torchvision's.

Kaiming He et al.: "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385. The CIFAR stem (3x3, stride 1, no max-pool) and the stride on the
first 1x1 convolution are what reproduces the counts that the BAM paper publishes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torchvision.models import squeezenet1_1, vgg16
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from bam_search.model.backbones.init import Net, init_weights
from bam_search.model.pool import GlobalAvgPool

StrideOn = Literal["1x1", "3x3"]
"""Which convolution of a bottleneck block has the stride."""


def resnet18(classes: int) -> ResNet:
    """(B, 3, H, W) -> (B, classes); 4 stages of 2 basic blocks, 64 to 512 channels."""
    return _cifar_stem(ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes))


def resnet34(classes: int) -> ResNet:
    """(B, 3, H, W) -> (B, classes); 4 stages of 3, 4, 6, 3 basic blocks, 64 to 512 channels."""
    return _cifar_stem(ResNet(BasicBlock, [3, 4, 6, 3], num_classes=classes))


def resnet50(classes: int, stride_on: StrideOn = "1x1") -> ResNet:
    """(B, 3, H, W) -> (B, classes).

    4 stages of 3, 4, 6, 3 bottleneck blocks, 256 to 2048 channels.
    """
    return _strided(_cifar_stem(ResNet(Bottleneck, [3, 4, 6, 3], num_classes=classes)), stride_on)


def resnet101(classes: int, stride_on: StrideOn = "1x1") -> ResNet:
    """(B, 3, H, W) -> (B, classes).

    4 stages of 3, 4, 23, 3 bottleneck blocks, 256 to 2048 channels.
    """
    return _strided(_cifar_stem(ResNet(Bottleneck, [3, 4, 23, 3], num_classes=classes)), stride_on)


def imagenet_resnet18(classes: int) -> ResNet:
    """(B, 3, H, W) -> (B, classes): torchvision's."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)


def imagenet_resnet50(classes: int, stride_on: StrideOn = "1x1") -> ResNet:
    """(B, 3, H, W) -> (B, classes): torchvision's but for the place of the stride."""
    return _strided(ResNet(Bottleneck, [3, 4, 6, 3], num_classes=classes), stride_on)


def imagenet_resnet101(classes: int, stride_on: StrideOn = "1x1") -> ResNet:
    """(B, 3, H, W) -> (B, classes): torchvision's but for the place of the stride."""
    return _strided(ResNet(Bottleneck, [3, 4, 23, 3], num_classes=classes), stride_on)


def imagenet_resnext50_32x4d(classes: int) -> ResNet:
    """(B, 3, H, W) -> (B, classes): torchvision's."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes=classes, groups=32, width_per_group=4)


def imagenet_wrn18(k: float, classes: int) -> ResNet:
    """(B, 3, H, W) -> (B, classes): ResNet18 with all stages k times as wide.

    The stem keeps 64 channels. Sergey Zagoruyko, Nikos Komodakis: "Wide Residual Networks", BMVC
    2016, https://arxiv.org/abs/1605.07146.
    """
    net = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    before = 64
    for i, planes in enumerate((64, 128, 256, 512)):
        wide = int(planes * k)
        setattr(net, f"layer{i + 1}", _stage(BasicBlock, before, wide, 2, stride=2 if i else 1))
        before = wide
    net.fc = nn.Linear(before, classes)
    return init_weights(net)


def imagenet_squeezenet1_1(classes: int) -> nn.Module:
    """(B, 3, H, W) -> (B, classes): torchvision's."""
    return squeezenet1_1(num_classes=classes)


def imagenet_vgg16(classes: int) -> nn.Module:
    """(B, 3, H, W) -> (B, classes): torchvision's.

    It has no batch normalisation, as the original.
    """
    return vgg16(num_classes=classes)


def _cifar_stem(net: ResNet) -> ResNet:
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    init_weights(net.conv1)
    net.maxpool = nn.Identity()
    return net


def _strided(net: Net, stride_on: StrideOn) -> Net:
    """`net` with the stride of its bottlenecks on the convolution `stride_on`.

    torchvision has it on the 3x3 convolution; the original, and the BAM paper's counts, on the
    first 1x1.
    """
    if stride_on == "1x1":
        for block in net.modules():
            if isinstance(block, Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return net


class ThreeStages(nn.Module):
    """(B, 3, H, W) -> (B, classes): a three-stage network, as usual for CIFAR.

    A 3x3 stem, with `pooled_stem` a max-pooling of stride 2 after it, three stages, global average
    pooling, and a linear layer.
    """

    def __init__(
        self,
        stem: int,
        stem_stride: int,
        stages: Sequence[nn.Sequential],
        features: int,
        classes: int,
        pooled_stem: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if pooled_stem else None
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = GlobalAvgPool()
        self.fc = nn.Linear(features, classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        if self.maxpool is not None:
            x = self.maxpool(x)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x))


def small(classes: int, pooled_stem: bool = False) -> ThreeStages:
    """One basic block a stage, 32 to 128 channels, and a stem of stride 2.

    A laptop trains it in seconds. The strided stem makes it about four times cheaper than a stem of
    stride 1 at the same widths, so the sites keep enough channels for a reduction to mean
    something.
    """
    stages = [
        _stage(BasicBlock, before, planes, 1, stride)
        for before, planes, stride in ((32, 32, 1), (32, 64, 2), (64, 128, 2))
    ]
    return ThreeStages(32, 2, stages, 128, classes, pooled_stem)


def imagenet_small(classes: int) -> ThreeStages:
    """`small` with max-pooling after its stem, as ImageNet's ResNets have it.

    On images of 64x64 it has the maps, and about the time, that `small` has on 32x32.
    """
    return small(classes, pooled_stem=True)


def resnext29(cardinality: int, classes: int) -> ThreeStages:
    """ResNeXt29, cardinality x 64d: 3 bottleneck blocks a stage, 256 to 1024 channels.

    Saining Xie et al.: "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017,
    https://arxiv.org/abs/1611.05431.
    """
    block = partial(Bottleneck, groups=cardinality, base_width=64)
    stages = [
        _stage(block, before, planes, 3, stride, 4)
        for before, planes, stride in ((64, 64, 1), (256, 128, 2), (512, 256, 2))
    ]
    return _strided(ThreeStages(64, 1, stages, 1024, classes), "1x1")


def small_resnext(classes: int) -> ThreeStages:
    """As `resnext29`, but small enough for a laptop.

    Cardinality 4, 2 blocks a stage, 32 to 128 channels and a stem of stride 2, as `small` has.
    """
    block = partial(Bottleneck, groups=4, base_width=64)
    stages = [
        _stage(block, before, planes, 2, stride, 4)
        for before, planes, stride in ((32, 8, 1), (32, 16, 2), (64, 32, 2))
    ]
    return _strided(ThreeStages(32, 2, stages, 128, classes), "1x1")


def _stage(
    block: Callable[..., nn.Module],
    before: int,
    planes: int,
    blocks: int,
    stride: int,
    expansion: int = 1,
) -> nn.Sequential:
    after = planes * expansion
    shortcut = None
    if stride != 1 or before != after:
        projection = nn.Conv2d(before, after, 1, stride, bias=False)
        shortcut = nn.Sequential(projection, nn.BatchNorm2d(after))
    first = block(before, planes, stride, shortcut)
    return nn.Sequential(first, *(block(after, planes) for _ in range(blocks - 1)))
