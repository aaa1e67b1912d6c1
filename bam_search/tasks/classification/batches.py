"""The batches of a training, from uint8 images on the device.

Images are cropped and flipped as they are gathered. Knows no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bam_search.tasks.classification.crops import KINDS, Crops
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.normalisation import Normalisation
from bam_search.tasks.classification.plan import EpochPlan
from bam_search.tasks.classification.ring import Ring, fill, steps_a_window
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.recipe import Recipe


@dataclass(frozen=True, eq=False)
class DeviceImages:
    """The training images on their device: their pixels, and `labels`, (N,) int64.

    The slots of `crops` hold all images, each in that of its number; or, with a `ring`, those of
    the next steps.
    """

    crops: Crops
    labels: Tensor
    ring: Ring | None

    @classmethod
    def of(
        cls, images: Images, size: Size, recipe: Recipe, device: str, batch: int, room: int
    ) -> "DeviceImages":
        """The images, of which the recipe takes crops of `size`, (H, W), in batches of `batch`.

        They take at most `room` bytes, but for the two batches that a ring has at least.
        """
        kind, labels = KINDS[recipe.augment], torch.from_numpy(images.y).to(device)
        each = kind.bytes_each(images.shape, size)
        steps = steps_a_window(len(images), batch, each, room)
        crops = kind.of(images.shape, size, 2 * steps * batch or len(images), device)
        if steps:
            return cls(crops, labels, Ring(images, crops, batch, steps))
        fill(crops, images)
        return cls(crops, labels, None)

    def __len__(self) -> int:
        return len(self.labels)

    def begin(self, index: Tensor) -> Tensor:
        """The slots, (n,), in which the images at `index` lie, each when its step comes."""
        if self.ring is None:
            return index
        self.ring.begin(index.numpy())
        return torch.arange(len(index)) % self.ring.slots


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
        cuts = images.labels.new_empty(steps, batch, images.crops.integers)
        return cls(images, normalisation, recipe, cuts, torch.empty_like(cuts[:, :, 0]))

    def __len__(self) -> int:
        return len(self.cuts)

    def load(self, seed: int, epoch: int) -> None:
        """Fill the batches with the images of an epoch."""
        crops, labels = self.images.crops, self.images.labels
        plan = EpochPlan.of(len(labels), crops.frame, seed, epoch, self.recipe)
        index = plan.index[: self.labels.numel()]
        self.cuts.copy_(crops.cuts(self.images.begin(index), plan).view_as(self.cuts))
        self.labels.copy_(labels[index.to(labels.device)].view_as(self.labels))

    def ready(self, step: int) -> None:
        """Have the images of batch number `step` on the device."""
        if self.images.ring:
            self.images.ring.ready(step)

    def parts(self, step: Tensor, n: int) -> Iterator[LabelledPart]:
        """Batch number `step` in `n` parts; `step` is (1,) int64 on the device."""
        cuts = self.cuts.index_select(0, step)[0].tensor_split(n)
        labels = self.labels.index_select(0, step)[0].tensor_split(n)
        for part_cuts, part_labels in zip(cuts, labels, strict=True):
            pixels = self.images.crops.pixels(part_cuts)
            yield LabelledPart(self.normalisation(pixels), part_labels)
