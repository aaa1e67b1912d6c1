"""The batches of a training: crops of pictures, with their objects as the crops show them.

Both are made on the device as they are taken, from what the plan of an epoch says. Knows no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bam_search.model.detector import Target
from bam_search.tasks.detection.samples import DetectionSamples, pictures_of
from bam_search.tasks.pictures.normalisation import Normalisation
from bam_search.tasks.pictures.on_device import CroppedPixels
from bam_search.tasks.pictures.plan import EpochPlan, Frame
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.recipe import Recipe

LEAST = 1.0
"""Pixels that an object has each way; a smaller one in a crop is left out."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects to learn of each of some pictures, padded to as many: those to ignore are none.

    `boxes` is (N, M, 4) float32, x1 y1 x2 y2 in pixels; `labels` is (N, M) int64, 0 for no object.
    """

    boxes: Tensor
    labels: Tensor

    @classmethod
    def of(cls, samples: DetectionSamples, device: str) -> "Objects":
        """The objects of all pictures, on the device."""
        n, kept = len(samples), ~samples.ignore
        picture = pictures_of(samples.offsets)[kept]
        counts = np.bincount(picture, minlength=n)
        place = np.arange(len(picture)) - np.repeat(np.cumsum(counts) - counts, counts)
        most = max(1, int(counts.max()))
        boxes = np.zeros((n, most, 4), dtype=np.float32)
        labels = np.zeros((n, most), dtype=np.int64)
        boxes[picture, place] = samples.boxes[kept]
        labels[picture, place] = samples.labels[kept]
        return cls(torch.from_numpy(boxes).to(device), torch.from_numpy(labels).to(device))

    def take(self, index: Tensor) -> "Objects":
        """Those of the pictures at `index`, (n,) on the device."""
        return Objects(self.boxes.index_select(0, index), self.labels.index_select(0, index))

    def seen(self, windows: Tensor, size: Size) -> "Objects":
        """The objects as crops of (H, W) show them; `windows` is (N, 5), see `windows_of`.

        A crop has an object if it has its middle, and what it shows of it is large enough.
        """
        high, wide = size
        left, top, width, height, flipped = windows[:, :, None].unbind(1)
        x1, y1, x2, y2 = self.boxes.unbind(2)
        x1, x2 = _moved(x1, x2, left, width, wide)
        y1, y2 = _moved(y1, y2, top, height, high)
        is_flipped = flipped > 0
        x1, x2 = torch.where(is_flipped, wide - x2, x1), torch.where(is_flipped, wide - x1, x2)
        inside = _has_middle(x1, x2, wide) & _has_middle(y1, y2, high)
        x1, x2, y1, y2 = (*_clamped(x1, x2, wide), *_clamped(y1, y2, high))
        boxes = torch.stack([x1, y1, x2, y2], 2)
        inside &= (boxes[..., 2:] - boxes[..., :2] >= LEAST).all(2)
        return Objects(boxes, self.labels * inside)

    @property
    def targets(self) -> list[Target]:
        """What torchvision's detectors take: as many objects an image as it has.

        The host asks the device how many that are.
        """
        found = zip(self.boxes, self.labels, self.labels > 0, strict=True)
        return [{"boxes": boxes[some], "labels": labels[some]} for boxes, labels, some in found]


def _moved(
    low: Tensor, high: Tensor, first: Tensor, extent: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    """Two corners, along one axis, in a crop that begins at `first` and is scaled to `side`."""
    scale = side / extent
    return (low - first) * scale, (high - first) * scale


def _has_middle(low: Tensor, high: Tensor, side: int) -> Tensor:
    middle = (low + high) / 2
    return (middle > 0) & (middle < side)


def _clamped(low: Tensor, high: Tensor, side: int) -> tuple[Tensor, Tensor]:
    return low.clamp(0, side), high.clamp(0, side)


def windows_of(plan: EpochPlan, frame: Frame, stored: Size) -> Tensor:
    """(N, 5) float32: the left, top, width and height of each crop, in pixels of its picture.

    The fifth column is 1 where the crop is flipped. Pictures of `stored`, (h, w), lie in the middle
    of the frame's sources.
    """
    above, before = ((a - b) // 2 for a, b in zip(frame.source, stored, strict=True))
    boxes = plan.boxes
    columns = (boxes.left - before, boxes.top - above, boxes.width, boxes.height, plan.flipped)
    return torch.stack([column.float() for column in columns], 1)


@dataclass(frozen=True, eq=False)
class AnnotatedPart:
    """A part of a batch: `inputs` (b, C, H, W) float32, and the `objects` in them."""

    inputs: Tensor
    objects: Objects

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class AnnotatedBatches:
    """The full batches of one epoch, in tensors that stay where they are on the device.

    `objects` are those of all pictures. `cuts` is (steps, B, k) int64, the crops of each batch,
    `windows` (steps, B, 5) what they show of the pictures at `index`, (steps, B). Pictures that
    fill no further batch are left out of the epoch.
    """

    pixels: CroppedPixels
    objects: Objects
    stored: Size
    normalisation: Normalisation
    recipe: Recipe
    cuts: Tensor
    windows: Tensor
    index: Tensor

    @classmethod
    def of(
        cls,
        pixels: CroppedPixels,
        objects: Objects,
        stored: Size,
        normalisation: Normalisation,
        recipe: Recipe,
        batch: int,
    ) -> "AnnotatedBatches":
        """Empty batches; `load` fills them."""
        index = objects.labels.new_empty(len(objects.labels) // batch, batch)
        cuts = index.new_empty(*index.shape, pixels.crops.integers)
        windows = objects.boxes.new_empty(*index.shape, 5)
        return cls(pixels, objects, stored, normalisation, recipe, cuts, windows, index)

    def __len__(self) -> int:
        return len(self.index)

    def load(self, seed: int, epoch: int) -> None:
        """Fill the batches with the pictures of an epoch."""
        crops, n = self.pixels.crops, self.index.numel()
        plan = EpochPlan.of(len(self.objects.labels), crops.frame, seed, epoch, self.recipe)
        index = plan.index[:n]
        self.cuts.copy_(crops.cuts(self.pixels.begin(index), plan).view_as(self.cuts))
        self.windows.copy_(windows_of(plan, crops.frame, self.stored)[:n].view_as(self.windows))
        self.index.copy_(index.view_as(self.index))

    def ready(self, step: int) -> None:
        """Have the pictures of batch number `step` on the device."""
        self.pixels.ready(step)

    def parts(self, step: Tensor, n: int) -> Iterator[AnnotatedPart]:
        """Batch number `step` in `n` parts; `step` is (1,) int64 on the device."""
        drawn = (self.cuts, self.windows, self.index)
        parts = (each.index_select(0, step)[0].tensor_split(n) for each in drawn)
        crops = self.pixels.crops
        for cuts, windows, index in zip(*parts, strict=True):
            objects = self.objects.take(index).seen(windows, crops.frame.crop)
            yield AnnotatedPart(self.normalisation(crops.pixels(cuts)), objects)
