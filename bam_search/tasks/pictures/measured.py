"""Pictures as a model gets them that is not trained: their middle."""

import torch
from torch import Tensor
from torch.nn import functional

from bam_search.tasks.pictures.sizes import Size

ROOM = 8 / 7
"""How much larger than what is measured an image is: a centre crop leaves out the border.

That is 256 for 224, as usual for ImageNet.
"""


def as_measured(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W, C) uint8: how a model that is not trained gets (n, h, w, C) images.

    They are the middle of the images, scaled down if they are much larger than that.
    """
    pixels = scaled(pixels, size)
    top, left = ((a - b) // 2 for a, b in zip(pixels.shape[1:3], size, strict=True))
    return pixels[:, top : top + size[0], left : left + size[1]]


def scaled(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The (n, h, w, C) uint8 images at the size of which the middle is measured."""
    height, width = pixels.shape[1:3]
    smaller = measured_of((height, width), size)
    if smaller == (height, width):
        return pixels
    planes = pixels.permute(0, 3, 1, 2)
    if pixels.device.type != "cpu":  # only a CPU scales bytes
        planes = planes.float()
    planes = functional.interpolate(planes, smaller, mode="bilinear", antialias=True)
    return planes.round().to(torch.uint8).permute(0, 2, 3, 1)


def measured_of(stored: Size, working: Size) -> Size:
    """The size of the image of which the middle is measured: at most ROOM times that middle."""
    ratio = max(ROOM * want / have for want, have in zip(working, stored, strict=True))
    if ratio >= 1:
        return stored
    return round(ratio * stored[0]), round(ratio * stored[1])
