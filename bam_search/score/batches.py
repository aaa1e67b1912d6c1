"""The batches of a training, from uint8 images on the device.

Images are cropped and flipped as they are gathered. Knows no model.
"""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bam_search.score.data import Images
from bam_search.score.recipe import Recipe

SIDE, CHANNELS, PAD = 32, 3, 4
WIDE = SIDE + 2 * PAD
LINE = SIDE * CHANNELS


@dataclass(frozen=True, eq=False)
class DeviceImages:
    """The training images on their device.

    `labels` is (N,) int64; `lines` is (M, 96) uint8, rows that overlap in memory. The memory holds
    the padded images, then the same images mirrored, and a line begins at each of its bytes. So
    each row of a crop, flipped or not, is one line. Gathering lines is forty times as fast on a CPU
    as gathering pixels.
    """

    lines: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Images, device: str) -> "DeviceImages":
        """The images, as they are."""
        padded = functional.pad(torch.from_numpy(images.x), (0, 0, PAD, PAD, PAD, PAD))
        memory = torch.stack([padded, padded.flip(2)]).flatten().to(device)
        lines = memory.as_strided((memory.numel() - LINE + 1, LINE), (1, 1))
        return cls(lines, torch.from_numpy(images.y).to(device))

    def __len__(self) -> int:
        return len(self.labels)


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
    def of(cls, n: int, seed: int, epoch: int, recipe: Recipe) -> "EpochPlan":
        """The plan for (seed, epoch), which depends on no model."""
        # The order of the draws is part of the plan: another order would change every training.
        generator = _generator(f"{seed}:{epoch}")
        index = torch.randperm(n, generator=generator)
        top = torch.randint(0, 2 * PAD + 1, (n,), generator=generator)
        left = torch.randint(0, 2 * PAD + 1, (n,), generator=generator)
        flipped = torch.rand(n, generator=generator) < 0.5
        if recipe.alternate:
            flipped_first = torch.rand(n, generator=_generator(f"{seed}:flips")) < 0.5
            flipped = (flipped_first ^ bool(epoch % 2))[index]
        if recipe.augment != "crop-flip":
            top, left = torch.full_like(top, PAD), torch.full_like(left, PAD)
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

    def lines(self) -> Tensor:
        """(N, 32): the line of the device images that is each row of each crop."""
        image = self.flipped * len(self.index) + self.index
        row = image[:, None] * WIDE + self.top[:, None] + torch.arange(SIDE, device=image.device)
        left = torch.where(self.flipped, 2 * PAD - self.left, self.left)
        return (row * WIDE + left[:, None]) * CHANNELS


@dataclass(frozen=True, eq=False)
class Batches:
    """The full batches of one epoch, in tensors that stay where they are on the device.

    `lines` is (steps, B, 32) and `labels` is (steps, B). Images that fill no further batch are left
    out of the epoch.
    """

    images: DeviceImages
    lines: Tensor
    labels: Tensor

    @classmethod
    def of(cls, device_images: DeviceImages, batch: int) -> "Batches":
        """Empty batches; `load` fills them."""
        steps = len(device_images) // batch
        device = device_images.labels.device
        lines = torch.empty(steps, batch, SIDE, dtype=torch.int64, device=device)
        return cls(device_images, lines, torch.empty_like(lines[:, :, 0]))

    def __len__(self) -> int:
        return len(self.lines)

    def load(self, plan: EpochPlan) -> None:
        """Fill the batches with the images of an epoch."""
        plan = plan.on(self.labels.device)
        taken = self.labels.numel()
        self.lines.copy_(plan.lines()[:taken].view_as(self.lines))
        self.labels.copy_(self.images.labels[plan.index[:taken]].view_as(self.labels))

    def parts(self, step: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
        """Batch number `step` in `n` parts: pixels (b, 32, 32, 3) uint8 and labels (b,) of each.

        `step` is (1,) int64 on the device, so that choosing a batch does not wait for the host.
        """
        lines = self.lines.index_select(0, step)[0]
        labels = self.labels.index_select(0, step)[0]
        pixels = [self._pixels(part) for part in lines.tensor_split(n)]
        return list(zip(pixels, labels.tensor_split(n), strict=True))

    def _pixels(self, lines: Tensor) -> Tensor:
        rows = self.images.lines.index_select(0, lines.flatten())
        return rows.view(-1, SIDE, SIDE, CHANNELS)


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))
