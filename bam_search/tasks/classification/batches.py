"""The batches of a training, from uint8 images on the device.

Images are cropped and flipped as they are gathered. Knows no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bam_search.tasks.classification.images import Images
from bam_search.tasks.pictures.normalisation import Normalisation
from bam_search.tasks.pictures.on_device import CroppedPixels
from bam_search.tasks.pictures.plan import EpochPlan
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.recipe import Recipe


@dataclass(frozen=True, eq=False)
class DeviceImages:
    """The training images on their device: their pixels, and `labels`, (N,) int64."""

    pixels: CroppedPixels
    labels: Tensor

    @classmethod
    def of(
        cls, images: Images, size: Size, recipe: Recipe, device: str, batch: int, room: int
    ) -> "DeviceImages":
        """The images; see `CroppedPixels`."""
        pixels = CroppedPixels.of(images.pixels, size, recipe, device, batch, room)
        return cls(pixels, torch.from_numpy(images.y).to(device))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class LabelledPart:
    """A part of a batch: `inputs` (b, C, H, W) float32 and `labels` (b,) int64."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageBatches:
    """The full batches of one epoch, in tensors that stay where they are on the device.

    `cuts` is (steps, B, k) int64, the crops of each batch, and `labels` is (steps, B). Images that
    fill no further batch are left out of the epoch.
    """

    images: DeviceImages
    normalisation: Normalisation
    recipe: Recipe
    cuts: Tensor
    labels: Tensor

    @classmethod
    def of(
        cls, images: DeviceImages, normalisation: Normalisation, recipe: Recipe, batch: int
    ) -> "ImageBatches":
        """Empty batches; `load` fills them."""
        steps = len(images) // batch
        cuts = images.labels.new_empty(steps, batch, images.pixels.crops.integers)
        return cls(images, normalisation, recipe, cuts, torch.empty_like(cuts[:, :, 0]))

    def __len__(self) -> int:
        return len(self.cuts)

    def load(self, seed: int, epoch: int) -> None:
        """Fill the batches with the images of an epoch."""
        pixels, labels = self.images.pixels, self.images.labels
        plan = EpochPlan.of(len(labels), pixels.crops.frame, seed, epoch, self.recipe)
        index = plan.index[: self.labels.numel()]
        self.cuts.copy_(pixels.crops.cuts(pixels.begin(index), plan).view_as(self.cuts))
        self.labels.copy_(labels[index.to(labels.device)].view_as(self.labels))

    def ready(self, step: int) -> None:
        """Have the images of batch number `step` on the device."""
        self.images.pixels.ready(step)

    def parts(self, step: Tensor, n: int) -> Iterator[LabelledPart]:
        """Batch number `step` in `n` parts; `step` is (1,) int64 on the device."""
        cuts = self.cuts.index_select(0, step)[0].tensor_split(n)
        labels = self.labels.index_select(0, step)[0].tensor_split(n)
        for part_cuts, part_labels in zip(cuts, labels, strict=True):
            pixels = self.images.pixels.crops.pixels(part_cuts)
            yield LabelledPart(self.normalisation(pixels), part_labels)
