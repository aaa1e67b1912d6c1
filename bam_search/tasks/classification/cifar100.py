"""CIFAR-100, from a Keras-style npz or torchvision's folder, or the generated stand-in.

CIFAR-100: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
downloaded through torchvision.
"""

import contextlib
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR100

from bam_search.errors import UserError, first_line
from bam_search.model.load import Inputs
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.classification.task import Classification, top1_error
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


def task() -> Classification:
    """Classification on CIFAR-100."""
    return Classification(CIFAR_INPUTS, locate, metric=top1_error(CLASSES))


def locate(wanted: str) -> Source:
    """The source for `--data`: a path, 'auto', 'cifar100' (CIFAR-100 or an error) or 'generated'.

    'auto' and 'cifar100' look for `data/cifar100.npz` and `data/cifar-100-python/`, then download;
    only 'auto' falls back on the generated images. Raises UserError for a path that is neither
    kind.
    """
    if wanted == "generated":
        return _source(SYNTHETIC, lambda: synthetic("asked for"))
    if wanted not in ("auto", "cifar100"):
        return _at(Path(wanted))
    for path in (DATA_FOLDER / "cifar100.npz", DATA_FOLDER / FOLDER):
        if path.exists():
            return _at(path)
    if wanted == "cifar100":
        return _source(f"{CIFAR}, to be downloaded to {DATA_FOLDER}/", _download)
    return _source(
        f"{CIFAR}, to be downloaded to {DATA_FOLDER}/, or else {SYNTHETIC}", _download_or_generate
    )


def synthetic(reason: str) -> Dataset:
    """The stand-in data set, for a machine without CIFAR-100 and without a network."""
    train_x, train_y, test_x, test_y = generate_images()
    train, test = Images(train_x, train_y), Images(test_x, test_y)
    return Dataset(SYNTHETIC, reason, train, test, stands_in_for=CIFAR)


def _source(text: str, load: Callable[[], Dataset]) -> Source:
    return Source(text, TRAIN, TEST, load)


def _at(path: Path) -> Source:
    if path.is_dir():
        root = path.parent if path.name == FOLDER else path
        if (root / FOLDER).is_dir():
            return _source(f"{CIFAR} from {root / FOLDER}", lambda: _torchvision(root))
        raise UserError(
            f"--data {str(path)!r} is a folder without {FOLDER}/",
            f"give {FOLDER}/ itself, its parent, or a cifar100.npz",
        )
    if path.is_file():
        return _source(f"{CIFAR} from {path}", lambda: _keras(path))
    raise UserError(
        f"--data {str(path)!r}: there is no such file or folder", "or: auto, cifar100, generated"
    )


def _keras(path: Path) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # numpy does not look at the checksums
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")
        with np.load(path, allow_pickle=False) as arrays:
            x_train, y_train = arrays["x_train"], arrays["y_train"]
            x_test, y_test = arrays["x_test"], arrays["y_test"]
    except BROKEN as error:
        raise UserError(
            f"{path} cannot be read as a CIFAR-100 npz: {first_line(error)}",
            "it needs x_train, y_train, x_test, y_test, as Keras has them",
        ) from None
    train = _checked(path, "train", x_train, y_train)
    test = _checked(path, "test", x_test, y_test)
    return Dataset(CIFAR, str(path), train, test)


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
    return Dataset(CIFAR, str(root / FOLDER), train_images, test_images)


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


def _checked(path: Path, part: str, x: np.ndarray, y: np.ndarray) -> Images:
    """The images if they are what CIFAR-100 must be. Raises UserError with what is wrong."""
    hint = f"CIFAR-100 has (N, 32, 32, 3) uint8 images and labels 0 to {CLASSES - 1}"
    if x.shape[1:] != (32, 32, 3) or x.dtype != np.uint8:
        raise UserError(f"{path}: x_{part} is {x.dtype} of shape {x.shape}", hint)
    if y.shape not in ((len(x),), (len(x), 1)) or not np.issubdtype(y.dtype, np.integer):
        raise UserError(
            f"{path}: y_{part} is {y.dtype} of shape {y.shape} for {len(x)} images", hint
        )
    if len(x) == 0:
        raise UserError(f"{path}: x_{part} is empty", hint)
    classes = np.unique(y)
    lowest, highest = classes[0], classes[-1]
    incomplete = part == "train" and len(classes) < CLASSES
    if lowest < 0 or highest >= CLASSES or incomplete:
        raise UserError(
            f"{path}: y_{part} has {len(classes)} classes, from {lowest} to {highest}", hint
        )
    return Images(x, y.reshape(-1).astype(np.int64))
