"""Where classification gets its data: `--data` in each of its forms.

An npz, a folder of images, CIFAR-100's folder, a data set of torchvision's by name, or a function
in a user's file.
"""

import inspect
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torchvision

from bam_search.errors import UserError, first_line, nearest
from bam_search.model.load import Inputs
from bam_search.space.user_file import function_of
from bam_search.tasks.classification import cifar100
from bam_search.tasks.classification.arrays import (
    Classes,
    LabelledImages,
    Layout,
    images_of,
    labels_of,
)
from bam_search.tasks.classification.cifar100 import BROKEN, CIFAR, CIFAR_INPUTS, DATA_FOLDER
from bam_search.tasks.classification.folders import PICTURES, folder_source
from bam_search.tasks.classification.task import Classification, top1_error
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Dataset, Source, digests

KEYS = ("x_train", "y_train", "x_test", "y_test")
NAMES = ("auto", "cifar100", "generated")
TORCHVISION = "torchvision:"
FORMS = (
    "an .npz with x_train, y_train, x_test, y_test; a folder of images; cifar-100-python/; "
    "torchvision:NAME; "
    "file.py:function; auto, cifar100, generated"
)
FUNCTION = "write a function that reads it, and give file.py:function"
ADVICE: Mapping[tuple[str, ...], str] = {
    (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".rar", ".7z", ".gz"): (
        "unpack it, and give the folder"
    ),
    PICTURES: "that is one image: give the folder of a training and a test part",
    (".npz", ".zip"): "it is cut off or broken: copy or download it again",
    (".npy",): f"np.savez(path, ...) writes an .npz of {', '.join(KEYS)}",
    (".csv", ".tsv", ".json", ".txt"): (
        "where it lists images and labels, put the images of each class into a folder of its own; "
        "or read it in a function, and give file.py:function"
    ),
    (".arrow",): "dataset.to_parquet(path) writes what is read here",
}
"""What to do with files that are no .npz, by the ends of their names."""
CIFAR_TRAIN = "f062ca493c4d"
"""The digest of CIFAR-100's training set, in its official order with its fine labels."""


AS_IT_IS = Reading()
"""How data are read unless a study says otherwise."""


def task() -> Classification:
    """Classification, on CIFAR-100 until its data are known to be others."""
    return Classification(CIFAR_INPUTS, locate, metric=top1_error(CIFAR_INPUTS.classes))


def locate(wanted: str, reading: Reading = AS_IT_IS) -> Source:
    """The source for `--data`; FORMS has what it may be.

    'auto' and 'cifar100' look for `data/cifar100.npz` and `data/cifar-100-python/`, then download;
    only 'auto' falls back on the generated images. Raises UserError for anything else.
    """
    if wanted in NAMES:
        return cifar100.named(wanted) or _at(cifar100.at_hand() or DATA_FOLDER, reading)
    if wanted.startswith(TORCHVISION):
        return _loaded(wanted, _of_torchvision(wanted.removeprefix(TORCHVISION)))
    path, colon, function = wanted.rpartition(":")
    if colon and path.endswith(".py"):
        return _loaded(wanted, _of_function(Path(path), function))
    return _at(Path(wanted), reading)


def _at(path: Path, reading: Reading) -> Source:
    if path.is_dir():
        return cifar100.folder(path) or folder_source(path, reading)
    if not path.is_file():
        raise UserError(f"--data {str(path)!r}: there is no such file or folder", FORMS)
    if not zipfile.is_zipfile(path):
        raise UserError(f"--data {str(path)!r} is no .npz", _advice(path))
    return _npz(path)


def _advice(path: Path) -> str:
    """What to do with a file that is no .npz, by the end of its name."""
    if not path.stat().st_size:
        return "it is empty: copy or download it again"
    known = (hint for ends, hint in ADVICE.items() if path.name.lower().endswith(ends))
    return next(known, f"{FUNCTION}. Or: {FORMS}")


def _npz(path: Path) -> Source:
    """The source of an npz: its headers and labels are read, its images later."""
    try:
        shapes = _shapes(path)
        with np.load(path, allow_pickle=False) as arrays:
            labels = {key: arrays[key] for key in ("y_train", "y_test")}
    except BROKEN as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}", FORMS) from None
    layout = Layout.of(f"{path}: x_train", shapes["x_train"])
    n_train, n_test = shapes["x_train"][0], shapes["x_test"][0]
    classes = Classes.of(
        f"{path}: y_train", labels_of(f"{path}: y_train", labels["y_train"], n_train)
    )
    inputs = Inputs((3, layout.height, layout.width), len(classes))
    text = f"{path}: {n_train:,} images to train and {n_test:,} to test, {layout.words}"
    text = f"{text}, {len(classes)} classes"
    return Source(text, n_train, n_test, lambda: _read(path), inputs, at_hand=True)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each array of KEYS, from its header. Raises UserError if one is not there."""
    with zipfile.ZipFile(path) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist()]
        if any(name.lower().endswith(PICTURES) for name in there):
            raise UserError(f"{path} is an archive of images", "unpack it, and give the folder")
        missing = [key for key in KEYS if key not in there]
        if missing:
            raise UserError(
                f"{path} has no {missing[0]}; it has {', '.join(there) or 'nothing'}",
                f"it needs {', '.join(KEYS)}, as Keras has them",
            )
        shapes = {}
        for key in KEYS:
            with archive.open(f"{key}.npy") as file:
                version = np.lib.format.read_magic(file)
                read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                shapes[key] = read(file)[0]
    return shapes


def _read(path: Path) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # numpy does not look at the checksums
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")
        with np.load(path, allow_pickle=False) as arrays:
            found = [arrays[key] for key in KEYS]
    except BROKEN as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}", FORMS) from None
    return _dataset(path.stem, str(path), _said_of(path, found))


def _said_of(where: object, arrays: list[np.ndarray]) -> LabelledImages:
    """`images_of`, whose errors say where the arrays are from."""
    try:
        return images_of(*arrays)
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None


def _dataset(name: str, origin: str, found: LabelledImages) -> Dataset:
    """The data set of images; it is called CIFAR-100 only if its training set is that, hashed."""
    data = Dataset(name, origin, found.train, found.test, classes=found.classes)
    if found.train.x.shape != (cifar100.TRAIN, 32, 32, 3):
        return data
    of_train, digest = digests(found.train, found.test)
    return replace(data, name=CIFAR if of_train == CIFAR_TRAIN else name, known_digest=digest)


def _loaded(wanted: str, arrays: list[np.ndarray]) -> Source:
    """The source of data that are read already."""
    found = _said_of(wanted, arrays)
    train, test, inputs = len(found.train), len(found.test), found.inputs
    text = (
        f"{wanted}: {train:,} images to train and {test:,} to test, "
        f"{inputs.shape[1]}x{inputs.shape[2]}, {inputs.classes} classes"
    )
    data = _dataset(wanted, wanted, found)
    return Source(text, train, test, lambda: data, inputs, at_hand=True)


def _of_torchvision(name: str) -> list[np.ndarray]:
    """The arrays of a data set of torchvision's, which lies under `data/` or is downloaded."""
    known = list(torchvision.datasets.__all__)
    if name not in known:
        raise UserError(f"torchvision has no data set {name!r}", nearest(name, known))
    make = getattr(torchvision.datasets, name)
    try:
        parts = [make(**_arguments(make, train)) for train in (True, False)]
    except (*BROKEN, TypeError) as error:
        raise UserError(
            f"torchvision:{name} cannot be had from {DATA_FOLDER}/, nor downloaded: "
            f"{first_line(error)}",
            f"unpack it under {DATA_FOLDER}/; or make it in a function, and give file.py:function",
        ) from None
    return [array for part in parts for array in _arrays(f"torchvision:{name}", part)]


def _arguments(make: Callable[..., Any], train: bool) -> dict[str, Any]:
    """How to ask for a part of a data set of torchvision's."""
    parameters = inspect.signature(make).parameters
    wanted = {"root": str(DATA_FOLDER), "train": train, "split": "train" if train else "test"}
    if "download" in parameters:
        wanted["download"] = True
    if make is torchvision.datasets.FakeData:
        return {"size": 1000 if train else 200, "image_size": (3, 32, 32), "random_offset": train}
    return {key: value for key, value in wanted.items() if key in parameters}


def _of_function(path: Path, function: str) -> list[np.ndarray]:
    """The arrays that a user's function gives: a mapping with KEYS, or two data sets of torch's."""
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}", FORMS)
    make = function_of(path, function)
    try:
        made = make()
    except UserError:
        raise
    except Exception as error:  # a user's function can raise anything; the user has to read it
        raise UserError(f"{path}:{function} failed: {type(error).__name__}: {error}") from error
    return _arrays_made(f"{path}:{function}", made)


def _arrays_made(name: str, made: object) -> list[np.ndarray]:
    hint = f"it returns a dict with {', '.join(KEYS)}, or two data sets: (train, test)"
    if isinstance(made, Mapping):
        if missing := [key for key in KEYS if key not in made]:
            raise UserError(f"{name} returned a dict without {missing[0]}", hint)
        return [np.asarray(made[key]) for key in KEYS]
    if isinstance(made, tuple) and len(made) == 2:
        return [array for part in made for array in _arrays(name, part)]
    raise UserError(f"{name} returned a {type(made).__name__}", hint)


def _arrays(name: str, part: Any) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of a data set whose items are (image, label). Raises UserError."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    for number in range(len(part)):
        image, label = part[number]
        image = np.asarray(image)
        if images and image.shape != images[0].shape:
            raise UserError(
                f"{name}: image {number} is {image.shape}, and the first one {images[0].shape}",
                "give it a transform that makes all of one size",
            )
        images.append(image)
        labels.append(np.asarray(label).item())
    return np.stack(images), np.asarray(labels)
