"""CIFAR-100, from torchvision's folder or its download, or the generated stand-in.

CIFAR-100: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
downloaded through torchvision.
"""

import contextlib
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR100

from bam_search.errors import UserError, first_line
from bam_search.model.load import Inputs
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.task import Dataset, Source

CLASSES = 100
CIFAR_INPUTS = Inputs((3, 32, 32), CLASSES)
TRAIN, TEST = 50_000, 10_000
"""How many images CIFAR-100 has."""
FOLDER = "cifar-100-python"
DATA_FOLDER = Path("data")
CIFAR = "CIFAR-100"
SYNTHETIC = "generated images, NOT CIFAR-100"
BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def named(wanted: str) -> Source:
    """The source of a name, where CIFAR-100 is not at hand.

    'cifar100' is CIFAR-100 or an error; 'auto' falls back on the generated images.
    """
    if wanted == "generated":
        return _source(SYNTHETIC, lambda: synthetic("asked for"))
    if wanted == "cifar100":
        return _source(f"{CIFAR}, to be downloaded to {DATA_FOLDER}/", _download)
    return _source(
        f"{CIFAR}, to be downloaded to {DATA_FOLDER}/, or else {SYNTHETIC}", _download_or_generate
    )


def at_hand() -> Path | None:
    """Where CIFAR-100 lies: `data/cifar100.npz` or `data/cifar-100-python/`."""
    places = (DATA_FOLDER / "cifar100.npz", DATA_FOLDER / FOLDER)
    return next((path for path in places if path.exists()), None)


def synthetic(reason: str) -> Dataset:
    """The stand-in data set, for a machine without CIFAR-100 and without a network."""
    train_x, train_y, test_x, test_y = generate_images()
    train, test = Images(train_x, train_y), Images(test_x, test_y)
    classes = tuple(map(str, range(CLASSES)))
    return Dataset(SYNTHETIC, reason, train, test, stands_in_for=CIFAR, classes=classes)


def _source(text: str, load: Callable[[], Dataset]) -> Source:
    return Source(text, TRAIN, TEST, load)


def folder(path: Path) -> Source | None:
    """The source of CIFAR-100 as torchvision unpacks it; None for another folder."""
    root = path.parent if path.name == FOLDER else path
    if not (root / FOLDER).is_dir():
        return None
    found = _source(f"{CIFAR} from {root / FOLDER}", lambda: _torchvision(root))
    return replace(found, at_hand=True)


def _torchvision(root: Path, download: bool = False) -> Dataset:
    try:
        train = CIFAR100(root, train=True, download=download)
        test = CIFAR100(root, train=False, download=download)
        train_images = Images(train.data, np.asarray(train.targets, dtype=np.int64))
        test_images = Images(test.data, np.asarray(test.targets, dtype=np.int64))
    except BROKEN as error:
        if download:
            raise
        raise UserError(
            f"{root / FOLDER} cannot be read as CIFAR-100: {first_line(error)}",
            "it must be the unchanged folder of the archive (md5-checked)",
        ) from None
    classes = tuple(train.classes)
    return Dataset(CIFAR, str(root / FOLDER), train_images, test_images, classes=classes)


def _download() -> Dataset:
    try:
        return _torchvision_download()
    except BROKEN as error:
        raise UserError(
            f"CIFAR-100 is not under {DATA_FOLDER}/ and the download failed: {first_line(error)}",
            f"put cifar100.npz or {FOLDER}/ under {DATA_FOLDER}/, or give its path with --data",
        ) from None


def _download_or_generate() -> Dataset:
    try:
        return _torchvision_download()
    except BROKEN as error:
        return synthetic(
            f"no cifar100.npz or {FOLDER}/ under {DATA_FOLDER}/, "
            f"and the download failed: {first_line(error)}"
        )


def _torchvision_download() -> Dataset:
    try:
        with _socket_timeout(20):
            return _torchvision(DATA_FOLDER, download=True)
    except BROKEN:
        # torchvision makes the folder before it asks the network; if it is not empty, it stays.
        with contextlib.suppress(OSError):
            DATA_FOLDER.rmdir()
        raise


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # torchvision downloads without a time-out: a network that drops packets would hang the run.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
