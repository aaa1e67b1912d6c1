"""What an epoch does with the images: their order, and what is cut out of each. Knows no pixels."""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bam_search.tasks.recipe import Recipe

SCALE = (0.35, 1.0)
"""The share of an image's area that a resized crop has.

More than the 0.08 of ImageNet's long trainings: those of a search are short.
"""
ASPECT = (3 / 4, 4 / 3)
"""The width of a resized crop, divided by its height."""
TRIES = 10
"""Boxes that are drawn for each image; the first that fits is taken."""


@dataclass(frozen=True)
class Frame:
    """Crops of `crop`, (H, W), are cut out of images of `source`, (h, w)."""

    source: tuple[int, int]
    crop: tuple[int, int]

    @property
    def centre(self) -> tuple[int, int]:
        """The top and left of the crop in the middle."""
        return (self.source[0] - self.crop[0]) // 2, (self.source[1] - self.crop[1]) // 2


@dataclass(frozen=True, eq=False)
class Boxes:
    """What is cut out of each of N images: (N,) int64 each, in pixels of the source."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def shifted(n: int, frame: Frame, generator: torch.Generator) -> Boxes:
    """Crops of their size in any place."""
    high, wide = (a - b for a, b in zip(frame.source, frame.crop, strict=True))
    top = torch.randint(0, high + 1, (n,), generator=generator)
    left = torch.randint(0, wide + 1, (n,), generator=generator)
    return _of_size(top, left, frame.crop)


def centred(n: int, frame: Frame, generator: torch.Generator) -> Boxes:
    """Crops of their size in the middle."""
    # The same draws as those of `shifted`: the flips that are drawn next are the same then.
    boxes = shifted(n, frame, generator)
    top, left = frame.centre
    return _of_size(torch.full_like(boxes.top, top), torch.full_like(boxes.left, left), frame.crop)


def _of_size(top: Tensor, left: Tensor, size: tuple[int, int]) -> Boxes:
    height, width = size
    return Boxes(top, left, torch.full_like(top, height), torch.full_like(left, width))


def resized(n: int, frame: Frame, generator: torch.Generator) -> Boxes:
    """Boxes of SCALE and ASPECT in any place, that are then resized to the crop.

    They are drawn as "Inception" crops are (Christian Szegedy et al., "Going Deeper with
    Convolutions", 2015): area evenly, aspect evenly in its logarithm. Of TRIES boxes an image takes
    the first that lies within it, else the last as far as it does.
    """
    high, wide = frame.source
    low, up = (math.log(aspect) for aspect in ASPECT)
    area = torch.empty(TRIES, n).uniform_(*SCALE, generator=generator) * (high * wide)
    aspect = torch.empty(TRIES, n).uniform_(low, up, generator=generator).exp()
    height, width = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (height <= high) & (width <= wide)
    fits[-1] = True
    chosen = fits.int().argmax(0, keepdim=True)
    height = height.gather(0, chosen)[0].clamp(1, high)
    width = width.gather(0, chosen)[0].clamp(1, wide)
    top = (torch.rand(n, generator=generator) * (high - height + 1)).floor()
    left = (torch.rand(n, generator=generator) * (wide - width + 1)).floor()
    return Boxes(top.long(), left.long(), height.long(), width.long())


@dataclass(frozen=True)
class Augmentation:
    """How the boxes of an epoch are drawn, and whether half of the crops are mirrored."""

    boxes: Callable[[int, Frame, torch.Generator], Boxes]
    flips: bool


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": Augmentation(centred, flips=False),
    "flip": Augmentation(centred, flips=True),
    "crop-flip": Augmentation(shifted, flips=True),
    "resized-crop-flip": Augmentation(resized, flips=True),
}
"""Those of `recipe.augment`, but for "auto", which means one of them."""


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """What an epoch does with N images.

    `index`, (N,), is their order; `boxes` says what is cut out of each, and `flipped`, (N,), which
    of the crops are mirrored.
    """

    index: Tensor
    boxes: Boxes
    flipped: Tensor

    @classmethod
    def of(cls, n: int, frame: Frame, seed: int, epoch: int, recipe: Recipe) -> "EpochPlan":
        """The plan for (seed, epoch); it depends on no model."""
        # The order of the draws is part of the plan: another order would change every training.
        augmentation = AUGMENTATIONS[recipe.augment]
        generator = _generator(f"{seed}:{epoch}")
        index = torch.randperm(n, generator=generator)
        boxes = augmentation.boxes(n, frame, generator)
        flipped = torch.rand(n, generator=generator) < 0.5
        if recipe.alternate:
            flipped_first = torch.rand(n, generator=_generator(f"{seed}:flips")) < 0.5
            flipped = (flipped_first ^ bool(epoch % 2))[index]
        return cls(index, boxes, flipped & augmentation.flips)


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))
