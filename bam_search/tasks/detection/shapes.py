"""Generated pictures with shapes to find, to try things out without data.

The pictures are 96x128, generated in a second, the same on every machine. On a ground of smooth
noise lie one to five shapes of any colour, which may lie over one another.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from bam_search.model.load import Inputs
from bam_search.tasks.detection.samples import DetectionSamples, offsets_of
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.task import Dataset, Source

NAME = "generated shapes"
SHAPES = ("disc", "square", "triangle")
HEIGHT, WIDTH = 96, 128
TRAIN, TEST = 400, 100
SIDES = (14, 44)
"""Pixels of the least and of the largest shape."""
MOST = 5


def shapes_source() -> Source:
    """The source of generated pictures, in their own size."""
    return Source(
        f"{NAME}: {TRAIN} images to train and {TEST} to test, {len(SHAPES)} classes, "
        f"at {HEIGHT}x{WIDTH} px",
        TRAIN,
        TEST,
        _dataset,
        Inputs((3, HEIGHT, WIDTH), len(SHAPES) + 1),
        at_hand=True,
    )


def _dataset() -> Dataset:
    train, test = shapes(TRAIN, seed=0), shapes(TEST, seed=1)
    return Dataset(NAME, "generated, the same on every machine", train, test, classes=SHAPES)


def shapes(n: int, seed: int) -> DetectionSamples:
    """`n` pictures with their shapes; the later ones lie over the earlier ones."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, MOST + 1, n)
    total = int(counts.sum())
    labels = rng.integers(1, len(SHAPES) + 1, total)
    sides = rng.integers(*SIDES, total)
    left, top = (rng.integers(0, limit - sides + 1) for limit in (WIDTH, HEIGHT))
    boxes = np.stack([left, top, left + sides, top + sides], 1)
    colours = rng.integers(0, 256, (total, 3))
    offsets = offsets_of(counts)
    pixels = np.empty((n, HEIGHT, WIDTH, 3), np.uint8)
    for number in range(n):
        picture = _ground(rng)
        for one in range(offsets[number], offsets[number + 1]):
            _draw(picture, SHAPES[labels[one] - 1], boxes[one].tolist(), colours[one].tolist())
        pixels[number] = np.asarray(picture)
    return DetectionSamples(
        Pixels(pixels),
        boxes.astype(np.float32),
        labels,
        np.zeros(total, dtype=bool),
        offsets,
        np.tile([HEIGHT, WIDTH], (n, 1)),
    )


def _ground(rng: np.random.Generator) -> Image.Image:
    """Smooth random colour: few random pixels, enlarged."""
    few = Image.fromarray(rng.integers(40, 216, (6, 8, 3), dtype=np.uint8))
    return few.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def _draw(picture: Image.Image, shape: str, box: Sequence[int], colour: Sequence[int]) -> None:
    """Draw a shape that fills a box; its lower right corner is one pixel outside."""
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    draw, fill = ImageDraw.Draw(picture), tuple(colour)
    if shape == "disc":
        draw.ellipse((x1, y1, x2, y2), fill)
    elif shape == "square":
        draw.rectangle((x1, y1, x2, y2), fill)
    else:
        draw.polygon(((x1, y2), (x2, y2), ((x1 + x2) / 2, y1)), fill)
