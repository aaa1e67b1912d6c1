"""Where classification gets its data: `--data` in each of its forms.

An npz, a folder of images, Parquet files, CIFAR-100's folder, a data set of torchvision's by name,
or a function in a user's file.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

from bam_search.errors import UserError
from bam_search.tasks.classification import cifar100
from bam_search.tasks.classification.array_source import fitted
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.data_sets import (
    TORCHVISION,
    function_source,
    torchvision_source,
)
from bam_search.tasks.classification.folders import folder_source
from bam_search.tasks.classification.npz import KEYS, npz_source
from bam_search.tasks.classification.parquet import parquet_files, parquet_source
from bam_search.tasks.classification.task import Classification, top1_error
from bam_search.tasks.pictures.walk import PICTURES
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Source

NAMES = ("auto", "cifar100", "generated")
FORMS = (
    "an .npz with x_train, y_train, x_test, y_test; a folder of images; Parquet files; "
    "cifar-100-python/; torchvision:NAME; file.py:function; auto, cifar100, generated"
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
        at_hand = cifar100.at_hand() if wanted != "generated" else None
        return _at(at_hand, reading) if at_hand else fitted(cifar100.named(wanted), reading)
    if wanted.startswith(TORCHVISION):
        return torchvision_source(wanted, reading)
    path, colon, function = wanted.rpartition(":")
    if colon and path.endswith(".py"):
        return function_source(Path(path), function, reading)
    return _at(Path(wanted), reading)


def _at(path: Path, reading: Reading) -> Source:
    if path.is_dir():
        cifar = cifar100.folder(path)
        if cifar:
            return fitted(cifar, reading)
    if files := parquet_files(path):
        return parquet_source(path, files, reading)
    if path.is_dir():
        return folder_source(path, reading)
    if not path.is_file():
        raise UserError(f"--data {str(path)!r}: there is no such file or folder", FORMS)
    if not zipfile.is_zipfile(path):
        raise UserError(f"--data {str(path)!r} is no .npz", _advice(path))
    return fitted(npz_source(path), reading)


def _advice(path: Path) -> str:
    """What to do with a file that is no .npz, by the end of its name."""
    if not path.stat().st_size:
        return "it is empty: copy or download it again"
    known = (hint for ends, hint in ADVICE.items() if path.name.lower().endswith(ends))
    return next(known, f"{FUNCTION}. Or: {FORMS}")
