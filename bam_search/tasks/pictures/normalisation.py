"""How pixels enter a model."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bam_search.tasks.pictures.pixels import Pixels

MOST = 2**28
"""Of larger data, about so many bytes of pixels are looked at, of images at even distances."""


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and standard deviation of the training images' channels, over all pixels as stored.

    Both are repeated over a whole image's pixels: (H * W * C,), on the device. They are repeated
    because arithmetic on three numbers at a time takes twice as long on a CPU. A channel that is
    the same everywhere becomes 0: its deviation counts as 1.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, images: Pixels, size: tuple[int, int], device: str) -> "Normalisation":
        """The normalisation for these training images, which enter a model as (H, W) of `size`."""
        # From histograms: exact, and without a float copy of all images.
        histograms = sum(_histograms(chunk) for chunk in _some(images).chunks())
        assert isinstance(histograms, Tensor)
        levels = torch.arange(256, dtype=torch.float64)
        share = histograms.double() / histograms.sum(1, keepdim=True)
        mean = share @ levels
        std = (share * (levels - mean[:, None]) ** 2).sum(1).sqrt()
        std[std == 0] = 1
        pixels = size[0] * size[1]
        return cls(
            mean.float().repeat(pixels).to(device),
            std.float().repeat(pixels).to(device),
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, H, W, C), from 0 to 255 -> (B, C, H, W) float32, channels-last in memory."""
        # In one piece of memory: new ones of this size cost more than the arithmetic on a CPU.
        x = pixels.flatten(1).to(torch.float32, copy=True).sub_(self.mean).div_(self.std)
        return x.view(pixels.shape).permute(0, 3, 1, 2)  # without a copy


def _some(images: Pixels) -> Pixels:
    """All images, or of many those at even distances."""
    most = max(1, MOST // int(np.prod(images.shape)))
    if len(images) <= most:
        return images
    return images.take(np.linspace(0, len(images) - 1, most).round().astype(np.int64))


def _histograms(pixels: np.ndarray) -> Tensor:
    """(C, 256): how often each channel has each level."""
    channels = [torch.from_numpy(pixels[..., c]).flatten() for c in range(pixels.shape[3])]
    return torch.stack([torch.bincount(values, minlength=256) for values in channels])
