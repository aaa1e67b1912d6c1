"""ResNets for 32x32 images: torchvision's, with the stem of the CIFAR experiments, and a small three-stage one for CPUs.

Kaiming He et al.: "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385. The CIFAR stem
(3x3, stride 1, no max-pool) and the stride on the first 1x1 convolution are what reproduces the counts that the BAM paper publishes.
"""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


def resnet18(classes: int) -> ResNet:
    """(B, 3, 32, 32) -> (B, classes); 4 stages of 2 basic blocks, 64 to 512 channels."""
    return _cifar_stem(ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes))


def resnet50(classes: int) -> ResNet:
    """(B, 3, 32, 32) -> (B, classes); 4 stages of 3, 4, 6, 3 bottleneck blocks, 256 to 2048 channels."""
    return _stride_on_first(_cifar_stem(ResNet(Bottleneck, [3, 4, 6, 3], num_classes=classes)))


def _cifar_stem(net: ResNet) -> ResNet:
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net


def _stride_on_first(net: ResNet) -> ResNet:
    # torchvision strides on the 3x3 convolution of a bottleneck, the original (and the BAM paper's counts) on the 1x1.
    for block in net.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return net


class SmallResNet(nn.Module):
    """(B, 3, H, W) -> (B, classes): a 3x3 stem of stride 2, three stages of basic blocks, global average pooling.

    The strided stem makes it about four times cheaper than the stem of the large ResNets at the same widths, which lets a laptop
    train a candidate in seconds while the sites keep enough channels for a reduction to mean something.
    """

    def __init__(self, widths: tuple[int, int, int], blocks: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(widths[0], widths[0], blocks[0], stride=1)
        self.layer2 = _stage(widths[0], widths[1], blocks[1], stride=2)
        self.layer3 = _stage(widths[1], widths[2], blocks[2], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(before: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or before != width:
        shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    first = BasicBlock(before, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))
