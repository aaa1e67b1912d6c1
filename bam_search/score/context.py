"""What trainings on the same images share.

The device, the precision, the images on the device, and how they enter a model.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bam_search.score.batches import CHANNELS, SIDE, DeviceImages
from bam_search.score.data import Images
from bam_search.score.device import Device
from bam_search.score.recipe import Recipe


@dataclass(frozen=True, eq=False)
class TrainingContext:
    """The training images, the device they train on, and how they are normalised.

    `mean` and `std` are per channel, repeated over a whole image's pixels: (32 * 32 * 3,), on the
    device. They are repeated because arithmetic on three numbers at a time takes twice as long on a
    CPU.
    """

    device: Device
    bf16: bool
    images: Images
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, device: Device, recipe: Recipe, images: Images) -> "TrainingContext":
        """The training context for these training images.

        Mean and standard deviation are per channel, over all pixels.
        """
        # From histograms: exact, and without a float copy of all images.
        channels = [torch.from_numpy(images.x[..., c]).flatten() for c in range(CHANNELS)]
        histograms = torch.stack([torch.bincount(values, minlength=256) for values in channels])
        levels = torch.arange(256, dtype=torch.float64)
        share = histograms.double() / histograms.sum(1, keepdim=True)
        mean = share @ levels
        std = (share @ levels**2 - mean**2).sqrt()
        mean = mean.float().repeat(SIDE * SIDE).to(device.type)
        std = std.float().repeat(SIDE * SIDE).to(device.type)
        return cls(device, uses_bf16(recipe, device), images, mean, std)

    @functools.cached_property
    def device_images(self) -> DeviceImages:
        """The images on the device, made when first asked for: what only measures needs none."""
        return DeviceImages.of(self.images, self.device.type)

    def forward(self, model: nn.Module, pixels: Tensor) -> Tensor:
        """The logits of `pixels`: (B, 32, 32, 3) uint8 -> (B, classes) float32.

        The model runs under bfloat16 autocast where the training context has `bf16`.
        """
        x = ((pixels.flatten(1).float() - self.mean) / self.std).view_as(pixels)
        x = x.permute(0, 3, 1, 2)  # channels-last in memory, without a copy
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = model(x)
        return logits.float()


def uses_bf16(recipe: Recipe, device: Device) -> bool:
    """Whether the recipe means bfloat16 on this device."""
    return recipe.precision == "bf16" or (recipe.precision == "auto" and device.bf16)
