"""Pre-activation networks for 32x32 images: PreResNet and WideResNet.

Kaiming He et al.: "Identity Mappings in Deep Residual Networks", ECCV 2016,
https://arxiv.org/abs/1603.05027. Sergey Zagoruyko, Nikos Komodakis: "Wide Residual Networks", BMVC
2016, https://arxiv.org/abs/1605.07146. Blocks are BN-ReLU-conv; where the shape changes, the
shortcut is a bare 1x1 convolution of the activated input, and the trunk ends in BN-ReLU.
"""

from torch import Tensor, nn

from bam_search.model.backbones.init import init_weights
from bam_search.model.pool import GlobalAvgPool


class PreActBlock(nn.Module):
    """(B, before, H, W) -> (B, after, H / stride, W / stride).

    A chain of BN-ReLU-conv is added to its shortcut. `layers` gives (out channels, kernel) of each
    convolution; the first has the stride, as in the BAM paper's counts.
    """

    def __init__(self, before: int, layers: tuple[tuple[int, int], ...], stride: int) -> None:
        super().__init__()
        after = layers[-1][0]
        # The shortcut is called first, so that the branch's last convolution is the block's last.
        changes_shape = stride != 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes_shape else None
        width = before
        for i, (channels, kernel) in enumerate(layers):
            step = stride if i == 0 else 1
            convolution = nn.Conv2d(width, channels, kernel, step, kernel // 2, bias=False)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(width))
            self.add_module(f"conv{i + 1}", convolution)
            width = channels
        self.relu = nn.ReLU(inplace=True)
        self.depth = len(layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.get_submodule("bn1")(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.get_submodule("conv1")(y)
        for i in range(2, self.depth + 1):
            y = self.get_submodule(f"conv{i}")(self.relu(self.get_submodule(f"bn{i}")(y)))
        return shortcut + y


class PreActNet(nn.Module):
    """(B, 3, H, W) -> (B, classes): a pre-activation network of three stages.

    It has a 3x3 stem of 16 channels, three stages of pre-activation blocks, BN-ReLU and average
    pooling. `widths` are the 3x3 convolutions' channels by stage; a bottleneck block has four times
    as many at its ends. A stem of stride 2 makes it four times cheaper.
    """

    def __init__(
        self,
        widths: tuple[int, int, int],
        blocks: int,
        bottleneck: bool,
        classes: int,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=stem_stride, padding=1, bias=False)
        before = 16
        for i, width in enumerate(widths):
            layers = _layers(width, bottleneck)
            stage = []
            for j in range(blocks):
                first_of_later_stage = i > 0 and j == 0
                stage.append(PreActBlock(before, layers, stride=2 if first_of_later_stage else 1))
                before = layers[-1][0]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.bn = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = GlobalAvgPool()
        self.fc = nn.Linear(before, classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in ("layer1", "layer2", "layer3"):
            x = self.get_submodule(stage)(x)
        return self.fc(self.avgpool(self.relu(self.bn(x))))


def _layers(width: int, bottleneck: bool) -> tuple[tuple[int, int], ...]:
    """(out channels, kernel) of each convolution of a block."""
    if bottleneck:
        return ((width, 1), (width, 3), (4 * width, 1))
    return ((width, 3), (width, 3))


def preresnet110(classes: int) -> PreActNet:
    """The "PreResNet110" whose counts the BAM paper gives.

    It has 18 bottleneck blocks a stage, which makes 164 layers.
    """
    return PreActNet((16, 32, 64), 18, bottleneck=True, classes=classes)


def small_preact(classes: int) -> PreActNet:
    """As `preresnet110`, with 2 blocks a stage and a stem of stride 2.

    A laptop trains it in seconds.
    """
    return PreActNet((16, 32, 64), 2, bottleneck=True, classes=classes, stem_stride=2)


def preresnet110_true(classes: int) -> PreActNet:
    """110 layers: 18 basic blocks a stage."""
    return PreActNet((16, 32, 64), 18, bottleneck=False, classes=classes)


def wideresnet28(k: int, classes: int) -> PreActNet:
    """WRN-28-k: 4 basic blocks a stage, k times as wide."""
    return PreActNet((16 * k, 32 * k, 64 * k), 4, bottleneck=False, classes=classes)
