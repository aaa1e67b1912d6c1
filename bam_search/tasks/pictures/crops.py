"""Images as they lie on a device, and how an epoch's crops are taken out of them.

Each kind of memory has `slots` for images. It writes images into slots, turns a plan into `cuts`,
a few integers for each crop, and takes the crops of a batch's cuts: the host decides nothing there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from bam_search.tasks.pictures.measured import as_measured, scaled
from bam_search.tasks.pictures.plan import EpochPlan, Frame
from bam_search.tasks.pictures.sizes import Size

SHARE_PADDED = 1 / 8
"""By this share of its shorter side an image is padded on each side, before it is cropped.

That is 4 pixels of 32 (as for CIFAR since Kaiming He et al., 2016).
"""

Shape = tuple[int, int, int]


class Crops(Protocol):
    """Images in the memory of a device, of which crops of one size are taken."""

    @property
    def memory(self) -> Tensor: ...

    @property
    def frame(self) -> Frame:
        """What a plan draws boxes for."""
        ...

    @property
    def integers(self) -> int:
        """Of how many a cut consists."""
        ...

    @classmethod
    def of(cls, stored: Shape, crop: Size, slots: int, device: str) -> Self:
        """Empty memory for so many images of (h, w, C), of which crops of (H, W) are taken."""
        ...

    @staticmethod
    def bytes_each(stored: Shape, crop: Size) -> int:
        """The bytes of memory that an image takes."""
        ...

    def write(self, first: int, images: Tensor) -> None:
        """Put (n, h, w, C) uint8 images into the slots from `first` on."""
        ...

    def cuts(self, slots: Tensor, plan: EpochPlan) -> Tensor:
        """(n, k) int64 on the device: the crops of the plan's first n images, in these slots."""
        ...

    def pixels(self, cuts: Tensor) -> Tensor:
        """(B, H, W, C) uint8, or float32 from 0 to 255: the crops of (B, k) cuts."""
        ...


@dataclass(frozen=True, eq=False)
class Lines:
    """Padded images, of which crops are taken as they are.

    `memory` is (2, slots, tall, wide, C) uint8: the padded images, then the same images mirrored;
    a stored image that is larger than padded crops is scaled and cut to them. `lines` is
    (M, W * C) uint8, rows that overlap in it: a line begins at each of its bytes. So each row of a
    crop, flipped or not, is one line, and a crop's cut is the numbers of its lines, (H,). Gathering
    lines is forty times as fast on a CPU as gathering pixels.
    """

    memory: Tensor
    lines: Tensor
    frame: Frame

    @classmethod
    def of(cls, stored: Shape, crop: Size, slots: int, device: str) -> "Lines":
        """Empty memory."""
        height, width, channels = *crop, stored[2]
        tall, wide = cls._padded(crop)
        memory = torch.empty(2, slots, tall, wide, channels, dtype=torch.uint8, device=device)
        line = width * channels
        lines = memory.flatten().as_strided((memory.numel() - line + 1, line), (1, 1))
        return cls(memory, lines, Frame((tall, wide), (height, width)))

    @property
    def integers(self) -> int:
        """The lines of a crop."""
        return self.frame.crop[0]

    @staticmethod
    def _padded(crop: Size) -> Size:
        pad = max(1, round(SHARE_PADDED * min(crop)))
        return crop[0] + 2 * pad, crop[1] + 2 * pad

    @staticmethod
    def bytes_each(stored: Shape, crop: Size) -> int:
        """Those of a padded image, and of the same image mirrored."""
        tall, wide = Lines._padded(crop)
        return 2 * tall * wide * stored[2]

    def write(self, first: int, images: Tensor) -> None:
        """Pad the images, and mirror them."""
        tall, wide = self.frame.source
        images = scaled(images.to(self.memory.device, non_blocking=True), self.frame.crop)
        height, width = images.shape[1:3]
        # The middle of what is stored becomes the middle of the padded image.
        inner = Frame((height, width), self.frame.crop).centre
        top, left = (a - b for a, b in zip(self.frame.centre, inner, strict=True))
        sides = (0, 0, left, wide - width - left, top, tall - height - top)
        padded = functional.pad(images, sides)
        slots = slice(first, first + len(images))
        self.memory[0, slots] = padded
        self.memory[1, slots] = padded.flip(2)

    def cuts(self, slots: Tensor, plan: EpochPlan) -> Tensor:
        """(n, H): the line that is each row of each crop."""
        device, n = self.memory.device, len(slots)
        (tall, wide), (height, width) = self.frame.source, self.frame.crop
        flipped, top, left = (
            x[:n].to(device) for x in (plan.flipped, plan.boxes.top, plan.boxes.left)
        )
        image = flipped * self.memory.shape[1] + slots.to(device)
        row = image[:, None] * tall + top[:, None] + torch.arange(height, device=device)
        left = torch.where(flipped, wide - width - left, left)
        return (row * wide + left[:, None]) * self.memory.shape[4]

    def pixels(self, cuts: Tensor) -> Tensor:
        """(B, H, W, C) uint8: the crops that consist of these lines."""
        rows = self.lines.index_select(0, cuts.flatten())
        return rows.view(-1, *self.frame.crop, self.memory.shape[4])


@dataclass(frozen=True, eq=False)
class Resized:
    """Images as they are stored, of which boxes are resized to crops.

    `memory` is (slots, h, w, C) uint8. A crop's cut is its slot, the top, left, height and width of
    its box, and whether it is flipped. The resizing is bilinear and antialiased.
    """

    memory: Tensor
    frame: Frame

    @classmethod
    def of(cls, stored: Shape, crop: Size, slots: int, device: str) -> "Resized":
        """Empty memory."""
        memory = torch.empty(slots, *stored, dtype=torch.uint8, device=device)
        return cls(memory, Frame(stored[:2], crop))

    @property
    def integers(self) -> int:
        """The slot, the box and the flip."""
        return 6

    @staticmethod
    def bytes_each(stored: Shape, crop: Size) -> int:
        """Those of its pixels."""
        del crop
        return stored[0] * stored[1] * stored[2]

    def write(self, first: int, images: Tensor) -> None:
        """Copy the images."""
        self.memory[first : first + len(images)].copy_(images, non_blocking=True)

    def cuts(self, slots: Tensor, plan: EpochPlan) -> Tensor:
        """(n, 6)."""
        boxes, n = plan.boxes, len(slots)
        columns = (boxes.top, boxes.left, boxes.height, boxes.width, plan.flipped.long())
        drawn = torch.stack([column[:n] for column in columns], 1)
        return torch.cat([slots[:, None], drawn], 1).to(self.memory.device)

    def pixels(self, cuts: Tensor) -> Tensor:
        """(B, H, W, C): uint8 on a CPU, float32 on a GPU."""
        images = self.memory.permute(0, 3, 1, 2)
        resize = resize_each if images.device.type == "cpu" else resize_all
        return resize(images, cuts, self.frame.crop).permute(0, 2, 3, 1)


def resize_each(images: Tensor, cuts: Tensor, size: Size) -> Tensor:
    """(B, C, H, W) uint8, from (slots, C, h, w) channels-last in memory: box by box.

    A CPU has code of its own for uint8, four times as fast as that of `resize_all`.
    """
    return torch.cat([_resized(images, cut, size) for cut in cuts.tolist()])


def _resized(images: Tensor, cut: list[int], size: Size) -> Tensor:
    slot, top, left, height, width, flip = cut
    box = images[slot : slot + 1, :, top : top + height, left : left + width]
    box = box.flip(3) if flip else box
    return functional.interpolate(box, size, mode="bilinear", antialias=True)


def resize_all(images: Tensor, cuts: Tensor, size: Size) -> Tensor:
    """(B, C, H, W) float32, from (slots, C, h, w): all boxes at once, nothing waits for the host.

    What `resize_each` gives, but for rounding: one product of matrices for each axis.
    """
    slot, top, left, height, width, flip = cuts.unbind(1)
    taken = images.index_select(0, slot).float()
    rows = _weights(top, height, torch.zeros_like(flip), size[0], images.shape[2])
    columns = _weights(left, width, flip, size[1], images.shape[3])
    return rows[:, None] @ taken @ columns[:, None].transpose(2, 3)


def _weights(first: Tensor, extent: Tensor, flip: Tensor, n: int, whole: int) -> Tensor:
    """(B, n, whole): how much each pixel of an image's axis counts for each of a crop's n.

    A triangle about the place of the crop's pixel, as wide as what is scaled down needs; only
    pixels of the box count.
    """
    device = first.device
    scale = extent[:, None] / n
    place = (torch.arange(n, device=device) + 0.5) * scale
    place = torch.where(flip[:, None] > 0, extent[:, None] - place, place)
    pixel = torch.arange(whole, device=device) + 0.5 - first[:, None]
    inside = (pixel > 0) & (pixel < extent[:, None])
    distance = (pixel[:, None, :] - place[:, :, None]).abs()
    triangle = (1 - distance / scale.clamp(min=1)[:, :, None]).clamp(min=0) * inside[:, None]
    return triangle / triangle.sum(2, keepdim=True)


@dataclass(frozen=True, eq=False)
class Middles:
    """Images as they are measured: `memory` is (slots, H, W, C) uint8."""

    memory: Tensor

    @classmethod
    def of(cls, stored: Shape, crop: Size, slots: int, device: str) -> "Middles":
        """Memory of black images."""
        return cls(torch.zeros(slots, *crop, stored[2], dtype=torch.uint8, device=device))

    @staticmethod
    def bytes_each(stored: Shape, crop: Size) -> int:
        """Those of the pixels in the middle."""
        return crop[0] * crop[1] * stored[2]

    def write(self, first: int, images: Tensor) -> None:
        """Copy the middle of the images."""
        height, width = self.memory.shape[1:3]
        middle = as_measured(images.to(self.memory.device, non_blocking=True), (height, width))
        self.memory[first : first + len(images)] = middle


KINDS: Mapping[str, type[Lines] | type[Resized]] = {
    "none": Lines,
    "flip": Lines,
    "crop-flip": Lines,
    "resized-crop-flip": Resized,
}
"""The memory for each augmentation."""
