"""An .npz of labelled images, as Keras has them. Headers and labels are read first."""

import zipfile
from pathlib import Path

import numpy as np

from bam_search.errors import UserError, first_line
from bam_search.model.load import Inputs
from bam_search.tasks.classification.array_source import dataset_of, labelled
from bam_search.tasks.classification.arrays import Classes, Layout, check_filled, labels_of
from bam_search.tasks.classification.cifar100 import BROKEN
from bam_search.tasks.classification.notes import class_notes
from bam_search.tasks.pictures.walk import PICTURES
from bam_search.tasks.task import Dataset, Source

KEYS = ("x_train", "y_train", "x_test", "y_test")
NPZ = f"an .npz has {', '.join(KEYS)}, as Keras has them"


def npz_source(path: Path) -> Source:
    """The source of an npz: its headers and labels are read, its images later."""
    try:
        shapes = _shapes(path)
        with np.load(path, allow_pickle=False) as arrays:
            labels = {key: arrays[key] for key in ("y_train", "y_test")}
    except BROKEN as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}", NPZ) from None
    layout = Layout.of(f"{path}: x_train", shapes["x_train"])
    n_train, n_test = shapes["x_train"][0], shapes["x_test"][0]
    for key, count in (("x_train", n_train), ("x_test", n_test)):
        check_filled(f"{path}: {key}", count)
    classes = Classes.of(
        f"{path}: y_train", labels_of(f"{path}: y_train", labels["y_train"], n_train)
    )
    y_train, y_test = (
        classes.numbers(f"{path}: {key}", labels_of(f"{path}: {key}", labels[key], count))
        for key, count in (("y_train", n_train), ("y_test", n_test))
    )
    inputs = Inputs((3, layout.height, layout.width), len(classes))
    text = (
        f"{path}: {n_train:,} images to train and {n_test:,} to test, {layout.words}, "
        f"{len(classes)} classes"
    )
    notes = tuple(class_notes(y_train, y_test, classes.names))
    return Source(text, n_train, n_test, lambda: _read(path), inputs, notes, at_hand=True)


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
        raise UserError(f"{path} cannot be read: {first_line(error)}", NPZ) from None
    return dataset_of(path.stem, str(path), labelled(path, found, ()))
