"""`small`, the network of three stages, with two basic blocks in each instead of one."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1


class Deeper(nn.Module):
    """(B, 3, H, W) -> (B, classes): a stem of stride 2, then stages of 32, 64 and 128 channels."""

    def __init__(self, classes: int, blocks: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(32, 32, blocks, 1)
        self.layer2 = stage(32, 64, blocks, 2)
        self.layer3 = stage(64, 128, blocks, 2)
        self.fc = nn.Linear(128, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def stage(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or before != after:
        shortcut = nn.Sequential(conv1x1(before, after, stride), nn.BatchNorm2d(after))
    first = BasicBlock(before, after, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(after, after) for _ in range(blocks - 1)))
