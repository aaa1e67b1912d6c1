"""How pixels enter a model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bam_search.tasks.classification.images import Images


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and standard deviation of the training images' channels, over all pixels.

    Both are repeated over a whole image's pixels: (H * W * C,), on the device. They are repeated
    because arithmetic on three numbers at a time takes twice as long on a CPU.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, images: Images, device: str) -> "Normalisation":
        """The normalisation for these training images."""
        # From histograms: exact, and without a float copy of all images.
        height, width, count = images.x.shape[1:]
        channels = [torch.from_numpy(images.x[..., c]).flatten() for c in range(count)]
        histograms = torch.stack([torch.bincount(values, minlength=256) for values in channels])
        levels = torch.arange(256, dtype=torch.float64)
        share = histograms.double() / histograms.sum(1, keepdim=True)
        mean = share @ levels
        std = (share @ levels**2 - mean**2).sqrt()
        pixels = height * width
        return cls(
            mean.float().repeat(pixels).to(device),
            std.float().repeat(pixels).to(device),
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, H, W, C) uint8 -> (B, C, H, W) float32, channels-last in memory."""
        x = ((pixels.flatten(1).float() - self.mean) / self.std).view_as(pixels)
        return x.permute(0, 3, 1, 2)  # without a copy
