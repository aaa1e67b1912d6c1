"""Annotated pictures with the boxes of their objects drawn on them."""

import numpy as np
from PIL import Image, ImageDraw

from bam_search.tasks.detection.samples import DetectionSamples

COLOURS = ("#ffffff", "#ff5050", "#ffd000", "#40d0ff", "#ff70ff", "#70ff70")
"""Those of the classes, in turn; what a training ignores is grey."""
IGNORED = "#808080"


def drawn(samples: DetectionSamples) -> np.ndarray:
    """(N, h, w, 3) uint8: the pictures, with a line one pixel wide around each object."""
    return np.stack([_with_boxes(samples, number) for number in range(len(samples))])


def _with_boxes(samples: DetectionSamples, number: int) -> np.ndarray:
    picture = Image.fromarray(samples.pixels.read(np.array([number]))[0])
    draw = ImageDraw.Draw(picture)
    objects = slice(*samples.offsets[number : number + 2].tolist())
    found = zip(
        samples.boxes[objects], samples.labels[objects], samples.ignore[objects], strict=True
    )
    for (x1, y1, x2, y2), label, ignored in found:
        colour = IGNORED if ignored else COLOURS[(label - 1) % len(COLOURS)]
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour)
    return np.asarray(picture)
