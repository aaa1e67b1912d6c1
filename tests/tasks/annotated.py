"""Small data sets of annotated pictures, for tests: squares of three colours, on disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
Objects = Sequence[tuple[str, tuple[float, ...]]]


def save_picture(path: Path, objects: Objects, size: tuple[int, int] = (48, 64)) -> None:
    """A grey picture of (height, width) with a square where each object is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path.name)) + sum(map(ord, path.stem)))
    pixels = noise.integers(100, 140, (*size, 3), dtype=np.uint8)
    for name, (x1, y1, x2, y2) in objects:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = COLOURS.get(name, (0, 0, 0))
    Image.fromarray(pixels).save(path)


def xml(objects: Objects, size: tuple[int, int] = (48, 64), more: str = "") -> str:
    """An annotation of Pascal VOC's; `more` is added to each object."""
    found = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation>{sides}{found}</annotation>"


def usual(number: int) -> Objects:
    """Two or three objects, by the number of a picture."""
    at = 4 * (number % 5)
    every = [("red", (at, 2, at + 12, 14)), ("green", (30, at, 44, at + 16))]
    return [*every, ("blue", (10, 26, 30, 40))] if number % 2 else every


def write_voc(root: Path, lists: Mapping[str, Sequence[int]], count: int = 10) -> None:
    """A data set in the form of Pascal VOC, with these lists of the numbers of its pictures."""
    (root / "Annotations").mkdir(parents=True)
    for number in range(count):
        save_picture(root / f"JPEGImages/p{number:02}.png", usual(number))
        (root / f"Annotations/p{number:02}.xml").write_text(xml(usual(number)))
    for name, numbers in lists.items():
        path = root / f"ImageSets/Main/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"p{number:02}\n" for number in numbers))


def coco(numbers: Sequence[int], folder: str = "") -> dict[str, list[dict[str, object]]]:
    """Annotations in the form of COCO's, of the usual objects in pictures of these numbers."""
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(COLOURS)]
    ids = {name: 10 * (i + 1) for i, name in enumerate(COLOURS)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in numbers:
        path = f"{folder}p{number:02}.png"
        images.append({"id": 100 + number, "file_name": path, "height": 48, "width": 64})
        for name, (x1, y1, x2, y2) in usual(number):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + number,
                    "category_id": ids[name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, parts: Mapping[str, Sequence[int]]) -> None:
    """A data set in the form of COCO's, with these numbers of pictures in each part."""
    for name, numbers in parts.items():
        for number in numbers:
            save_picture(root / f"{name}/p{number:02}.png", usual(number))
        path = root / f"annotations/instances_{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco(numbers)))
