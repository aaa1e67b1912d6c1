"""Pictures on their device: the crops of a training, and the middles that are measured."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bam_search.tasks.pictures.crops import KINDS, Crops, Middles
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.pictures.ring import Ring, fill, steps_a_window
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.recipe import Recipe


@dataclass(frozen=True, eq=False)
class CroppedPixels:
    """Training pictures on their device, of which crops are taken.

    The slots of `crops` hold all pictures, each in that of its number; or, with a `ring`, those of
    the next steps.
    """

    crops: Crops
    ring: Ring | None

    @classmethod
    def of(
        cls, pixels: Pixels, size: Size, recipe: Recipe, device: str, batch: int, room: int
    ) -> "CroppedPixels":
        """The pictures, of which the recipe takes crops of `size`, (H, W), in batches of `batch`.

        They take at most `room` bytes, but for the two batches that a ring has at least.
        """
        kind = KINDS[recipe.augment]
        each = kind.bytes_each(pixels.shape, size)
        steps = steps_a_window(len(pixels), batch, each, room)
        crops = kind.of(pixels.shape, size, 2 * steps * batch or len(pixels), device)
        if steps:
            return cls(crops, Ring(pixels, crops, batch, steps))
        fill(crops, pixels)
        return cls(crops, None)

    def begin(self, index: Tensor) -> Tensor:
        """The slots, (n,), in which the pictures at `index` lie, each when its step comes."""
        if self.ring is None:
            return index
        self.ring.begin(index.numpy())
        return torch.arange(len(index)) % self.ring.slots

    def ready(self, step: int) -> None:
        """Have the pictures of batch number `step` on the device."""
        if self.ring:
            self.ring.ready(step)


@dataclass(frozen=True, eq=False)
class MeasuredPixels:
    """`count` pictures as they are measured, in full batches on a device.

    `memory` is (batches, B, H, W, C) uint8, all of them or, with a `ring`, the next ones. There are
    `steps` batches; black pictures fill the last one.
    """

    memory: Tensor
    count: int
    steps: int
    ring: Ring | None

    @classmethod
    def of(cls, pixels: Pixels, size: Size, batch: int, device: str, room: int) -> "MeasuredPixels":
        """The pictures at (H, W), in batches of `batch`, in about `room` bytes at most."""
        steps, each = math.ceil(len(pixels) / batch), Middles.bytes_each(pixels.shape, size)
        window = steps_a_window(len(pixels), batch, each, room)
        middles = Middles.of(pixels.shape, size, (2 * window or steps) * batch, device)
        ring = Ring(pixels, middles, batch, window) if window else None
        if ring is None:
            fill(middles, pixels)
        return cls(middles.memory.unflatten(0, (-1, batch)), len(pixels), steps, ring)

    @property
    def missing(self) -> int:
        """How many pictures the last batch lacks."""
        return self.steps * self.memory.shape[1] - self.count

    def ready(self, step: int) -> None:
        """Have the pictures of batch number `step` on the device; batch 0 begins again."""
        if self.ring is None:
            return
        if step == 0:
            self.ring.begin(np.arange(self.count))
        self.ring.ready(step)

    def batch(self, step: Tensor) -> Tensor:
        """(B, H, W, C) uint8: batch number `step`, (1,) int64 on the device."""
        place = step % len(self.memory) if self.ring else step
        return self.memory.index_select(0, place)[0]
