"""The batches of a training, from uint8 images on the device.

Images are cropped and flipped as they are gathered. Knows no model.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.normalisation import Normalisation
from bam_search.tasks.recipe import Recipe

SHARE_PADDED = 1 / 8
"""By this share of its shorter side an image is padded on each side, before it is cropped.

That is 4 pixels of 32 (as for CIFAR since Kaiming He et al., 2016).
"""


def padding(shape: Sequence[int]) -> int:
    """Pixels on each side, for images of (H, W, C)."""
    return max(1, round(SHARE_PADDED * min(shape[:2])))


@dataclass(frozen=True, eq=False)
class DeviceImages:
    """The training images on their device.

    `shape` is (H, W, C) of an image. `labels` is (N,) int64; `lines` is (M, W * C) uint8, rows that
    overlap in memory. The memory holds the padded images, then the same images mirrored, and a line
    begins at each of its bytes. So each row of a crop, flipped or not, is one line. Gathering lines
    is forty times as fast on a CPU as gathering pixels.
    """

    shape: tuple[int, int, int]
    lines: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Images, device: str) -> "DeviceImages":
        """The images, as they are."""
        height, width, channels = images.x.shape[1:]
        pad = padding(images.x.shape[1:])
        padded = functional.pad(torch.from_numpy(images.x), (0, 0, pad, pad, pad, pad))
        memory = torch.stack([padded, padded.flip(2)]).flatten().to(device)
        line = width * channels
        lines = memory.as_strided((memory.numel() - line + 1, line), (1, 1))
        return cls((height, width, channels), lines, torch.from_numpy(images.y).to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def lines_of(self, plan: "EpochPlan") -> Tensor:
        """(N, H): the line that is each row of each crop of an epoch."""
        height, width, channels = self.shape
        pad = padding(self.shape)
        wide, tall = width + 2 * pad, height + 2 * pad
        image = plan.flipped * len(plan.index) + plan.index
        row = image[:, None] * tall + plan.top[:, None] + torch.arange(height, device=image.device)
        left = torch.where(plan.flipped, 2 * pad - plan.left, plan.left)
        return (row * wide + left[:, None]) * channels

    def pixels(self, lines: Tensor) -> Tensor:
        """(B, H, W, C) uint8: the crops that consist of `lines`, (B, H)."""
        rows = self.lines.index_select(0, lines.flatten())
        return rows.view(-1, *self.shape)


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """What an epoch does with N images; all tensors are (N,).

    `index` is the order of the images. `top` and `left` are where each crop begins in the padded
    image, and `flipped` says whether it is mirrored.
    """

    index: Tensor
    top: Tensor
    left: Tensor
    flipped: Tensor

    @classmethod
    def of(cls, n: int, pad: int, seed: int, epoch: int, recipe: Recipe) -> "EpochPlan":
        """The plan for (seed, epoch) with images that are padded so; it depends on no model."""
        # The order of the draws is part of the plan: another order would change every training.
        generator = _generator(f"{seed}:{epoch}")
        index = torch.randperm(n, generator=generator)
        top = torch.randint(0, 2 * pad + 1, (n,), generator=generator)
        left = torch.randint(0, 2 * pad + 1, (n,), generator=generator)
        flipped = torch.rand(n, generator=generator) < 0.5
        if recipe.alternate:
            flipped_first = torch.rand(n, generator=_generator(f"{seed}:flips")) < 0.5
            flipped = (flipped_first ^ bool(epoch % 2))[index]
        if recipe.augment != "crop-flip":
            top, left = torch.full_like(top, pad), torch.full_like(left, pad)
        if recipe.augment == "none":
            flipped = torch.zeros_like(flipped)
        return cls(index, top, left, flipped)

    def on(self, device: torch.device) -> "EpochPlan":
        """The same plan on `device`."""
        return EpochPlan(
            self.index.to(device),
            self.top.to(device),
            self.left.to(device),
            self.flipped.to(device),
        )


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

    `lines` is (steps, B, H) and `labels` is (steps, B). Images that fill no further batch are left
    out of the epoch.
    """

    images: DeviceImages
    normalisation: Normalisation
    recipe: Recipe
    lines: Tensor
    labels: Tensor

    @classmethod
    def of(
        cls, images: DeviceImages, normalisation: Normalisation, recipe: Recipe, batch: int
    ) -> "ImageBatches":
        """Empty batches; `load` fills them."""
        steps = len(images) // batch
        device = images.labels.device
        lines = torch.empty(steps, batch, images.shape[0], dtype=torch.int64, device=device)
        return cls(images, normalisation, recipe, lines, torch.empty_like(lines[:, :, 0]))

    def __len__(self) -> int:
        return len(self.lines)

    def load(self, seed: int, epoch: int) -> None:
        """Fill the batches with the images of an epoch."""
        images, pad = self.images, padding(self.images.shape)
        plan = EpochPlan.of(len(images), pad, seed, epoch, self.recipe).on(self.labels.device)
        taken = self.labels.numel()
        self.lines.copy_(self.images.lines_of(plan)[:taken].view_as(self.lines))
        self.labels.copy_(self.images.labels[plan.index[:taken]].view_as(self.labels))

    def parts(self, step: Tensor, n: int) -> Iterator[LabelledPart]:
        """Batch number `step` in `n` parts; `step` is (1,) int64 on the device."""
        lines = self.lines.index_select(0, step)[0].tensor_split(n)
        labels = self.labels.index_select(0, step)[0].tensor_split(n)
        for part_lines, part_labels in zip(lines, labels, strict=True):
            yield LabelledPart(self.normalisation(self.images.pixels(part_lines)), part_labels)


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))
