"""Data sets of torchvision's by name, and what a user's function gives.

The items of a data set are pairs of an image and a label. An image is Pillow's, an array, a tensor,
or the path of a file. Files are packed as those of a folder are; images of one size stay as they
are, and others are made of one size while they are read.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image

from bam_search.errors import UserError, first_line, nearest
from bam_search.space.user_file import function_of
from bam_search.tasks.classification.array_source import array_source, fitted, named
from bam_search.tasks.classification.arrays import Classes, Layout, labels_of, pixels_of
from bam_search.tasks.classification.cifar100 import BROKEN, DATA_FOLDER
from bam_search.tasks.classification.npz import KEYS
from bam_search.tasks.classification.picture_source import (
    SPLIT,
    Labelled,
    Part,
    picture_source,
    split,
)
from bam_search.tasks.classification.sizing import sizing
from bam_search.tasks.pictures.decode import scaled, upright_size
from bam_search.tasks.pictures.encoded import File, pictures_in
from bam_search.tasks.pictures.pack import pack_rows
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.pictures.threads import in_order
from bam_search.tasks.reading import Progress, Reading
from bam_search.tasks.task import Source

TORCHVISION = "torchvision:"
PARTS = {"train": ("train", "trainval"), "test": ("test", "val", "valid")}
"""What data sets of torchvision's call their parts, the one to take first."""
LOOKED_AT = 100
"""Items whose size says whether all have one, and which one suits them otherwise."""
RETURNS = f"it returns a dict with {', '.join(KEYS)}, or two data sets: (train, test)"


def torchvision_source(wanted: str, reading: Reading) -> Source:
    """The source of a data set of torchvision's, which lies under `data/` or is downloaded.

    Raises UserError if there is no such data set, or it cannot be had.
    """
    name = wanted.removeprefix(TORCHVISION)
    known = list(torchvision.datasets.__all__)
    if name not in known:
        raise UserError(f"torchvision has no data set {name!r}", nearest(name, known))
    make = getattr(torchvision.datasets, name)
    try:
        parts = _parts(make)
        return _source_of(wanted, parts, reading)
    except (*BROKEN, TypeError) as error:
        raise UserError(
            f"{wanted} cannot be had from {DATA_FOLDER}/, nor downloaded: {first_line(error)}",
            f"unpack it under {DATA_FOLDER}/; or make it in a function, and give file.py:function",
        ) from None


def _parts(make: Callable[..., Any]) -> list[Any]:
    """The training and the test set, or one set where torchvision has no parts of it."""
    if make is torchvision.datasets.FakeData:
        return [make(1000, (3, 32, 32)), make(200, (3, 32, 32), random_offset=1)]
    parameters = inspect.signature(make).parameters
    # Where it can give the paths of its files, these are read as those of a folder are.
    common = {"root": str(DATA_FOLDER), "loader": str}
    usual = {key: value for key, value in common.items() if key in parameters}
    if "train" in parameters:
        return [_made(make, {**usual, "train": train}) for train in (True, False)]
    if "split" in parameters:
        return [_first(make, usual, names) for names in PARTS.values()]
    return [_made(make, usual)]


def _first(make: Callable[..., Any], usual: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The part of the first of these names that the data set has. Raises as `make` does."""
    *others, last = names
    for name in others:
        try:
            return _made(make, {**usual, "split": name})
        except ValueError:  # torchvision's word for a part that is not there
            continue
    return _made(make, {**usual, "split": last})


def _made(make: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The data set as it lies on the disk, or else downloaded. Raises as `make` does."""
    try:
        return make(**arguments)
    except (RuntimeError, OSError):
        if "download" not in inspect.signature(make).parameters:
            raise
        return make(**arguments, download=True)


def function_source(path: Path, function: str, reading: Reading) -> Source:
    """The source of what a user's function gives: a mapping with KEYS, or two data sets of torch's.

    Raises UserError if it gives anything else.
    """
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}", "give file.py:function")
    make, name = function_of(path, function), f"{path}:{function}"
    try:
        made = make()
        if isinstance(made, tuple) and len(made) == 2:
            return _source_of(name, made, reading)
    except UserError:
        raise
    except Exception as error:  # a user's function can raise anything; the user has to read it
        raise UserError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, Mapping):
        raise UserError(f"{name} returned a {type(made).__name__}", RETURNS)
    if missing := [key for key in KEYS if key not in made]:
        raise UserError(f"{name} returned a dict without {missing[0]}", RETURNS)
    return fitted(array_source(name, [np.asarray(made[key]) for key in KEYS]), reading)


def _source_of(name: str, parts: Sequence[Any], reading: Reading) -> Source:
    """The source of a training and a test set, or of one set of files. Raises UserError."""
    for part in parts:
        if not len(part):
            raise UserError(f"{name} has an empty part", "each part needs an image of each class")
    names = tuple(_text(one) for one in getattr(parts[0], "classes", ()))
    if isinstance(parts[0][0][0], str | os.PathLike):
        return _of_files(name, parts, names, reading)
    if len(parts) == 1:
        raise UserError(
            f"{name} has no test part", "split it in a function, and give file.py:function"
        )
    sizes = np.array([_size(part[row][0]) for part in parts for row in _some(len(part))])
    if (sizes == sizes[0]).all():
        try:
            title = f"reading {name}"
            arrays = [array for part in parts for array in _arrays(part, title, reading.progress)]
            return fitted(array_source(name, arrays, names), reading)
        except _SeveralSizes as odd:
            sizes = np.concatenate([sizes, [odd.size]])
    return _of_sizes(name, parts, names, sizes, reading)


def _some(count: int) -> Iterator[int]:
    """The numbers of at most LOOKED_AT items, evenly spread."""
    yield from np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int)).tolist()


def _text(name: object) -> str:
    """A class's name, the first one of several."""
    return str(name[0] if isinstance(name, tuple | list) and name else name)


class _SeveralSizes(Exception):
    """An item has another size, (H, W), than the first one."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.size = size


def _size(image: Any) -> Size:
    """(H, W) of an item's image."""
    if isinstance(image, Image.Image):
        return upright_size(image)
    layout = Layout.of("an image", (1, *np.shape(image)))
    return layout.height, layout.width


def _arrays(part: Any, title: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of a set of images of one size. Raises _SeveralSizes."""
    images: list[np.ndarray] = []
    labels: list[Any] = []
    size = _size(part[0][0])
    with progress(title, len(part)) as advance:
        for number in range(len(part)):
            image, label = part[number]
            if _size(image) != size:
                raise _SeveralSizes(_size(image))
            is_picture = isinstance(image, Image.Image)
            images.append(scaled(image, *size) if is_picture else np.asarray(image))
            labels.append(np.asarray(label).item())
            advance(1)
    return np.stack(images), np.asarray(labels)


def _of_sizes(
    name: str, parts: Sequence[Any], names: Sequence[str], sizes: np.ndarray, reading: Reading
) -> Source:
    """The source of images of several sizes, which are made of one size and packed."""
    found = sizing(sizes, reading)
    arrays: list[np.ndarray] = []
    for part in parts:
        labels: list[Any] = []
        with reading.progress(f"reading {name}", len(part)) as advance:
            rows = _rows(part, found.stored, labels, advance)
            arrays.append(pack_rows(rows, (len(part), *found.stored, 3)))
        arrays.append(np.asarray(labels))
    return array_source(name, arrays, names, found)


def _rows(
    part: Any, size: Size, labels: list[Any], advance: Callable[[int], None]
) -> Iterator[np.ndarray]:
    """Yield the images of a set, some at a time, each scaled to cover `size`; append the labels.

    The set is read in this thread alone, as what it does is the user's; threads scale.
    """

    def items() -> Iterator[Image.Image]:
        for number in range(len(part)):
            image, label = part[number]
            labels.append(np.asarray(label).item())
            yield _picture(image)

    for pixels in in_order(lambda image: scaled(image, *size), items()):
        yield pixels[None]
        advance(1)


def _picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    return Image.fromarray(pixels_of("an image", np.asarray(image)[None])[0])


def _of_files(name: str, parts: Sequence[Any], names: Sequence[str], reading: Reading) -> Source:
    """The source of sets whose images are the paths of files. Raises UserError."""
    items = [[part[number] for number in range(len(part))] for part in parts]
    paths = [os.fspath(path) for part in items for path, _ in part]
    root = Path(os.path.commonpath([Path(path).parent for path in paths]))
    pictures = pictures_in(root, [_file(path, root) for path in paths], reading.progress)
    labels = [np.array([label for _, label in part]) for part in items]
    classes = Classes.of(f"{name}: labels", labels_of(f"{name}: labels", labels[0], len(labels[0])))
    y = [classes.numbers(f"{name}: labels", part) for part in labels]
    whole = Part(np.arange(len(y[0])), y[0])
    called = named(classes.names, names)
    if len(parts) == 1:
        train, test = split(whole, pictures.facts, called)
        words = SPLIT
    else:
        train, test = whole, Part(len(y[0]) + np.arange(len(y[1])), y[1])
        words = "its own parts"
    return picture_source(Labelled(name, name, words, pictures, train, test, called, ()), reading)


def _file(path: str, root: Path) -> File:
    """The file at a path, or one that is not there, which reading it will tell."""
    try:
        stat = Path(path).stat()
    except OSError:
        return File(os.path.relpath(path, root), 0, 0)
    return File(os.path.relpath(path, root), stat.st_size, stat.st_mtime_ns)
