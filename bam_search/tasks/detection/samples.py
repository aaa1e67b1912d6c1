"""Pictures of one size with their boxes, on the host. Knows no file of annotations."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.pictures.sizes import whole_sizes


@dataclass(frozen=True, eq=False)
class DetectionSamples:
    """N pictures of one size, in which M objects are annotated.

    Each picture is kept whole and in its form: scaled to fill one side, it lies in the upper left
    of its pixels, and what is left is padding. So an object is as wide for its height as in the
    photograph, boxes are scaled and not moved, and padding is where torchvision's detectors put it.

    Args:
        pixels: the pictures, (N, h, w, 3) uint8 in `x`.
        boxes: (M, 4) float32: x1, y1, x2, y2 in pixels of `x`, the corners of each object.
        labels: (M,) int64: its class, from 1, as 0 is the background.
        ignore: (M,) bool: it is a crowd or difficult, which is neither learned nor missed.
        offsets: (N + 1,) int64: the objects of picture i are those from `offsets[i]` on, up to
            `offsets[i + 1]`.
        sizes: (N, 2) int64: the height and width of each picture before it was scaled.
    """

    pixels: Pixels
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def x(self) -> np.ndarray:
        """(N, h, w, 3) uint8: all pixels, in memory."""
        return self.pixels.x

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, 3) of the pixels of a picture."""
        return self.pixels.shape

    @property
    def content(self) -> np.ndarray:
        """(N, 2) int64: the height and width of `x` that each picture fills."""
        return whole_sizes(self.sizes, self.shape[:2])

    @property
    def scales(self) -> np.ndarray:
        """(N, 2) float64: pixels of each picture a pixel of `x`, along x and along y.

        Multiplied by them, corners are in the picture's own pixels.
        """
        return (self.sizes / self.content)[:, ::-1]

    def first(self, n: int) -> "DetectionSamples":
        """The first `n` samples, or as many as there are; they share the memory."""
        offsets = self.offsets[: n + 1]
        return self._with(self.pixels.first(n), slice(offsets[-1]), offsets, self.sizes[:n])

    def take(self, index: np.ndarray) -> "DetectionSamples":
        """The samples at `index`, (n,) integers."""
        objects, offsets = objects_of(self.offsets, index)
        return self._with(self.pixels.take(index), objects, offsets, self.sizes[index])

    def arrays(self) -> Iterable[np.ndarray]:
        """Pixels, piece by piece, and what is annotated."""
        yield from self.pixels.chunks()
        yield from (self.boxes, self.labels, self.ignore, self.offsets, self.sizes)

    def _with(
        self, pixels: Pixels, objects: np.ndarray | slice, offsets: np.ndarray, sizes: np.ndarray
    ) -> "DetectionSamples":
        boxes, labels, ignore = self.boxes[objects], self.labels[objects], self.ignore[objects]
        return DetectionSamples(pixels, boxes, labels, ignore, offsets, sizes)


def pictures_of(offsets: np.ndarray) -> np.ndarray:
    """(M,) int64: the number of the picture of each object."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """(N + 1,) int64: where the objects of each picture begin, of which there are `counts`."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def objects_of(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The objects of the pictures at `index`, (m,) int64, and the offsets of these pictures."""
    counts = np.diff(offsets)[index]
    taken = offsets_of(counts)
    # Within each picture's run the objects follow one another.
    return np.repeat(offsets[:-1][index] - taken[:-1], counts) + np.arange(taken[-1]), taken
