"""The working size of pictures for a detector. Arithmetic alone."""

from dataclasses import dataclass

import numpy as np

from bam_search.tasks.pictures.sizes import Size, text
from bam_search.tasks.reading import Reading

TIMES = 2.5
"""How many times as long as for classification the longer side is: objects are parts of a picture.

That is 160 px on a CPU and 560 px on a GPU, with the largest sizes that "auto" takes there.
"""


@dataclass(frozen=True)
class Sizing:
    """The working size, (H, W) in pixels, and why it is that."""

    size: Size
    why: str

    @property
    def words(self) -> str:
        """As a first line says it."""
        return f"at {text(self.size)} px: {self.why}"


def sizing(sizes: np.ndarray, reading: Reading) -> Sizing:
    """The working size for pictures of these `sizes`, (N, 2) integers: height and width of each."""
    if reading.size != "auto":
        sides = reading.size
        return Sizing((sides, sides) if isinstance(sides, int) else sides, "data.size")
    median = np.median(sizes, axis=0)
    same = bool((sizes == sizes[0]).all())
    whose = "the pictures' own size" if same else "their median height and width"
    longest = round(TIMES * reading.largest)
    if median.max() <= longest:
        return Sizing(_size(median), whose)
    scaled = _size(median * longest / median.max())
    limit = f'data.size = "auto" takes at most {longest} px a side here'
    return Sizing(scaled, f"{whose} {text(_size(median))}, scaled down, as {limit}")


def _size(sides: np.ndarray) -> Size:
    height, width = (max(1, round(float(side))) for side in sides)
    return height, width
