"""The batches of a training: uint8 images that live on their device, cropped and flipped as they
are gathered. Knows no model.
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
    """Training images on their device: `labels` (N,) int64, and `lines` (M, 96) uint8, which
    overlap in memory.

    The images lie there padded, and once more mirrored, and a line begins at each of their bytes:
    so each row of a crop, flipped or not, is one line. Gathering lines is forty times as fast on a
    CPU as gathering pixels.
    """

    lines: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Images, device: str) -> "DeviceImages":
        """The images, as they are."""
        padded = functional.pad(torch.from_numpy(images.x), (0, 0, PAD, PAD, PAD, PAD))
        memory = torch.stack([padded, padded.flip(2)]).flatten().to(device)
        return cls(
            memory.as_strided((memory.numel() - LINE + 1, LINE), (1, 1)),
            torch.from_numpy(images.y).to(device),
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """What an epoch does with N images: their order, where each crop begins in the padded image,
    and whether it is flipped; all (N,).
    """

    index: Tensor
    top: Tensor
    left: Tensor
    flipped: Tensor

    @classmethod
    def of(cls, n: int, seed: int, epoch: int, recipe: Recipe) -> "EpochPlan":
        """The order that (seed, epoch) draw, whatever is trained."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{epoch}".encode()))
        index = torch.randperm(n, generator=generator)
        top, left = (torch.randint(0, 2 * PAD + 1, (n,), generator=generator) for _ in range(2))
        flipped = torch.rand(n, generator=generator) < 0.5
        if recipe.alternate:
            first = torch.Generator().manual_seed(zlib.crc32(f"{seed}:flips".encode()))
            flipped = ((torch.rand(n, generator=first) < 0.5) ^ bool(epoch % 2))[index]
        if recipe.augment != "crop-flip":
            top, left = torch.full_like(top, PAD), torch.full_like(left, PAD)
        if recipe.augment == "none":
            flipped = torch.zeros_like(flipped)
        return cls(index, top, left, flipped)

    def on(self, device: torch.device) -> "EpochPlan":
        """The same order there."""
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
    """The full batches of one epoch, in tensors that stay where they are: `lines` (steps, B, 32)
    and `labels` (steps, B), on the device.

    What is left over when no further batch can be filled waits for the next epoch's order.
    """

    images: DeviceImages
    lines: Tensor
    labels: Tensor

    @classmethod
    def of(cls, device_images: DeviceImages, batch: int) -> "Batches":
        """Room for the batches; nothing is dealt yet."""
        steps = len(device_images) // batch
        lines = torch.empty(
            steps, batch, SIDE, dtype=torch.int64, device=device_images.labels.device
        )
        return cls(device_images, lines, torch.empty_like(lines[:, :, 0]))

    def __len__(self) -> int:
        return len(self.lines)

    def load(self, plan: EpochPlan) -> None:
        """Begin an epoch."""
        plan, taken = plan.on(self.labels.device), self.labels.numel()
        self.lines.copy_(plan.lines()[:taken].view_as(self.lines))
        self.labels.copy_(self.images.labels[plan.index[:taken]].view_as(self.labels))

    def parts(self, step: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
        """Batch number `step`, (1,) int64 on the device, in `n` parts: pixels (b, 32, 32, 3) uint8
        and labels (b,) of each.
        """
        lines, labels = self.lines.index_select(0, step)[0], self.labels.index_select(0, step)[0]
        return [
            (self._pixels(part), known)
            for part, known in zip(lines.tensor_split(n), labels.tensor_split(n), strict=True)
        ]

    def _pixels(self, lines: Tensor) -> Tensor:
        return self.images.lines.index_select(0, lines.flatten()).view(-1, SIDE, SIDE, CHANNELS)
