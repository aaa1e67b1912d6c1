"""Detectors with torchvision's interface, made to run on batches of one size.

Such a detector normalises and resizes what it gets. Here a task does that once, for all candidates:
the detector takes a batch as it is, so it trains, and costs are counted, at that size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from bam_search.model.arguments import replaced

TRANSFORM = "transform"
"""The attribute of a detector that resizes images."""
HEADS = ("head", "rpn.head", "roi_heads.box_predictor")
"""The parts that return what losses and boxes are computed from."""

Target = dict[str, Tensor]
"""What is annotated in an image: `boxes` (n, 4), x1 y1 x2 y2 in pixels, and `labels` (n,), from 1.
"""


class AsGiven(nn.Module):
    """In the place of `GeneralizedRCNNTransform`: hands a batch on, and boxes back, as they are."""

    def forward(
        self, images: Tensor | Sequence[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """(B, C, H, W), or B tensors (C, H, W), as a list of images of one size."""
        batch = images if isinstance(images, Tensor) else torch.stack(list(images))
        height, width = batch.shape[-2:]
        return ImageList(batch, [(height, width)] * len(batch)), targets

    def postprocess(
        self, detections: list[Target], _sizes: object, _original_sizes: object
    ) -> list[Target]:
        """The detections: their boxes are in the images' pixels already."""
        return detections


def is_detector(net: nn.Module) -> bool:
    """Whether the model has torchvision's interface for detectors, made for batches or not."""
    return isinstance(getattr(net, TRANSFORM, None), (AsGiven, GeneralizedRCNNTransform))


def for_batches(net: nn.Module) -> nn.Module:
    """A detector changed to take batches as they are; any other model stays as it is.

    Its losses and boxes are computed in float32, whatever the precision of its layers.
    """
    if isinstance(getattr(net, TRANSFORM, None), GeneralizedRCNNTransform):
        setattr(net, TRANSFORM, AsGiven())
        modules = dict(net.named_modules())
        for name in HEADS:
            if name in modules:
                modules[name].register_forward_hook(_in_float32)
    return net


def example_targets(images: Tensor, label: int = 1) -> list[Target]:
    """An object of this class in the middle of each of (B, C, H, W) images."""
    height, width = images.shape[-2:]
    corners = [[width / 4, height / 4, 3 * width / 4, 3 * height / 4]]
    boxes = torch.tensor(corners, device=images.device)
    labels = torch.tensor([label], device=images.device)
    return [{"boxes": boxes, "labels": labels} for _ in images]


def _in_float32(_module: nn.Module, _args: object, output: Any) -> Any:
    return replaced(output, Tensor.float)
