"""Folders of small pictures, one folder a class, as several tests read them."""

import os
from pathlib import Path

from PIL import Image

CLASSES = ("ant", "bee", "cat")


def save(path: Path, number: int, size: tuple[int, int] = (24, 20)) -> None:
    """A picture of one colour, which the number says; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number, 2 * number, 3 * number)).save(path)
    old = 1_600_000_000 + number
    os.utime(path, (old, old))


def fill(folder: Path, images: int, first: int = 0, classes: tuple[str, ...] = CLASSES) -> None:
    for i, name in enumerate(classes):
        for j in range(images):
            number = first + i * images + j
            save(folder / name / f"{number:03}.png", number)
