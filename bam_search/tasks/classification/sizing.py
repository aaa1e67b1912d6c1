"""The working size of images, and the size at which they are stored. Arithmetic alone."""

from dataclasses import dataclass

import numpy as np

from bam_search.tasks.pictures.measured import ROOM
from bam_search.tasks.pictures.sizes import Size, size_of, text
from bam_search.tasks.reading import Reading

ROOMY = 64
"""The working side from which on pictures are stored larger, as crops of them are resized."""
TIMES = 2
"""How many times the working side they are stored at, if that is at most ENOUGH pixels.

Crops are then scaled down and stay as sharp as what is measured: stored at 8/7, they cost three
points of error (Imagenette, 64 px, 16 epochs).
"""
ENOUGH = 256


@dataclass(frozen=True)
class Sizing:
    """The working and the stored size, (H, W) in pixels, and why it is that."""

    working: Size
    stored: Size
    why: str

    @property
    def words(self) -> str:
        """As a first line says it."""
        return f"at {text(self.working)} px: {self.why}"


def sizing(sizes: np.ndarray, reading: Reading) -> Sizing:
    """The sizes for pictures of these `sizes`, (N, 2) integers: height and width of each."""
    if reading.size == "auto":
        working, why = _chosen(sizes, reading.largest)
    else:
        sides = reading.size
        working, why = (sides, sides) if isinstance(sides, int) else sides, "data.size"
    return Sizing(working, stored(working, sizes), why)


def stored(working: Size, sizes: np.ndarray) -> Size:
    """The size at which pictures of these sizes are stored.

    It is the working size, or TIMES that, but ENOUGH pixels or ROOM times where that is more, if
    most pictures have the pixels for it.
    """
    if min(working) < ROOMY:
        return working
    available = float(np.median((sizes / working).min(1)))
    wanted = max(ROOM, min(TIMES, ENOUGH / min(working)))
    room = min(wanted, max(1.0, available))
    return round(room * working[0]), round(room * working[1])


def _chosen(sizes: np.ndarray, largest: int) -> tuple[Size, str]:
    first, median = size_of(sizes[0]), round(float(np.median(sizes.min(1))))
    same = bool((sizes == sizes[0]).all())
    if same and max(first) <= largest:
        return first, "the pictures' own size"
    shorter = f"their shorter side is {median} px" if same else f"the median is {median} px"
    if median <= largest:
        return (median, median), shorter
    return (largest, largest), f'{shorter}, and data.size = "auto" takes at most {largest} here'
