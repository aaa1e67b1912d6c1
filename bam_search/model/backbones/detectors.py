"""Detectors of torchvision, on ResNets with a feature pyramid, and a small one for CPUs.

`classes` counts the background, as torchvision does: labels begin at 1. The anchors are half as
large as torchvision's, for images of 300 to 600 pixels instead of 800.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.fcos import (
    FCOSClassificationHead,
    FCOSHead,
    FCOSRegressionHead,
)
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from bam_search.model.backbones.resnet import small

GROUPS = 32
"""Of group normalisation, which does not depend on the batch: Yuxin Wu, Kaiming He, "Group
Normalization", ECCV 2018, https://arxiv.org/abs/1803.08494."""
RATIOS = (0.5, 1.0, 2.0)
"""Height of an anchor, divided by its width."""
SCORE = 0.05
"""The least score of a detection; with a larger one a precision at full recall is not measured."""
WIDTH = 32
"""Channels of the small detector's pyramid."""
STRIDES = (4, 8, 16, 32)
"""Those of its levels."""
ALL_STAGES = 5
"""Stages of a ResNet that train, its stem among them."""

Norm = Callable[[int], nn.Module]
NORMS: Mapping[str, Norm] = {"batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, GROUPS)}
"""Normalisations of a backbone: "group" for small batches from scratch, "batch" for others, and for
pretrained weights."""


def fcos(resnet: str, norm: str, classes: int) -> nn.Module:
    """FCOS on the pyramid levels 3 to 7 of a ResNet of torchvision.

    Zhi Tian et al.: "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019,
    https://arxiv.org/abs/1904.01355.
    """
    backbone = _pyramid_3_to_7(resnet, norm)
    return detection.FCOS(backbone, classes, score_thresh=SCORE)


def retinanet(resnet: str, norm: str, classes: int) -> nn.Module:
    """RetinaNet on the pyramid levels 3 to 7 of a ResNet of torchvision.

    Tsung-Yi Lin et al.: "Focal Loss for Dense Object Detection", ICCV 2017,
    https://arxiv.org/abs/1708.02002.
    """
    sizes = [tuple(int(side * 2 ** (n / 3)) for n in range(3)) for side in (16, 32, 64, 128, 256)]
    backbone = _pyramid_3_to_7(resnet, norm)
    return detection.RetinaNet(backbone, classes, anchor_generator=_anchors(sizes))


def fasterrcnn(resnet: str, norm: str, classes: int) -> nn.Module:
    """Faster R-CNN on the pyramid levels 2 to 6 of a ResNet of torchvision.

    Shaoqing Ren et al.: "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
    Networks", NeurIPS 2015, https://arxiv.org/abs/1506.01497.
    """
    backbone = resnet_fpn_backbone(
        backbone_name=resnet, weights=None, norm_layer=NORMS[norm], trainable_layers=ALL_STAGES
    )
    anchors = _anchors([(side,) for side in (16, 32, 64, 128, 256)])
    return detection.FasterRCNN(backbone, classes, rpn_anchor_generator=anchors)


def ssd300_vgg16(classes: int) -> nn.Module:
    """SSD300 on VGG16, for images of 300x300.

    Wei Liu et al.: "SSD: Single Shot MultiBox Detector", ECCV 2016,
    https://arxiv.org/abs/1512.02325.
    """
    return detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes)


def ssdlite320_mobilenet_v3(classes: int) -> nn.Module:
    """SSDlite on MobileNetV3-Large, for images of 320x320.

    Mark Sandler et al.: "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
    https://arxiv.org/abs/1801.04381, section 6.2.
    """
    create = detection.ssdlite320_mobilenet_v3_large
    return create(weights=None, weights_backbone=None, num_classes=classes)


def fcos_small(classes: int) -> nn.Module:
    """FCOS on the body of `small` (three blocks, 32 to 128 channels) with a pyramid of 32 channels.

    For images of about 160x120 on a CPU: strides 4 to 32, and heads of one layer without
    normalisation, which would cost more than all else.
    """
    body = small(classes, pooled_stem=True)
    levels = {"layer1": "0", "layer2": "1", "layer3": "2"}
    backbone = BackboneWithFPN(body, levels, [32, 64, 128], WIDTH, LastLevelMaxPool())
    anchors = AnchorGenerator([(stride,) for stride in STRIDES], [(1.0,)] * len(STRIDES))
    head = FCOSHead(WIDTH, 1, classes, num_convs=0)
    head.classification_head = FCOSClassificationHead(WIDTH, 1, classes, 1, norm_layer=_none)
    head.regression_head = FCOSRegressionHead(WIDTH, 1, 1, norm_layer=_none)
    return detection.FCOS(
        backbone, classes, anchor_generator=anchors, head=head, score_thresh=SCORE
    )


def _pyramid_3_to_7(resnet: str, norm: str) -> BackboneWithFPN:
    return resnet_fpn_backbone(
        backbone_name=resnet,
        weights=None,
        norm_layer=NORMS[norm],
        trainable_layers=ALL_STAGES,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )


def _none(_channels: int) -> nn.Module:
    return nn.Identity()


def _anchors(sizes: Sequence[Sequence[int]]) -> AnchorGenerator:
    """Anchors of these sides at each level, in RATIOS."""
    return AnchorGenerator(tuple(map(tuple, sizes)), (RATIOS,) * len(sizes))
