"""Packed pictures: decoded once to one array of one size, in a file that is mapped into memory.

A pack is named after the contents of its pictures and their stored size, so that equal pictures
have one pack, wherever they lie. Beside it lies a list of the pictures that cannot be decoded;
their rows are black. A pack that is missing, cut off or of another shape is made again.
"""

import contextlib
import hashlib
import json
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bam_search.files import atomic_write, write
from bam_search.tasks.pictures.cache import cache_folder, check_space
from bam_search.tasks.pictures.decode import UnreadableImage, pixels_of
from bam_search.tasks.pictures.encoded import Pictures
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.pictures.threads import chunks, in_order
from bam_search.tasks.reading import Progress

VERSION = 1
"""Of the way in which pictures become pixels: a pack of another version is another pack."""
AT_A_TIME = 32
"""Pictures that a thread decodes before they are written."""


@dataclass(frozen=True, eq=False)
class Pack:
    """Pictures of one size: `x` is (N, h, w, 3) uint8, a read-only map of a file.

    `problems` says why a picture is unreadable, by its number here.
    """

    x: np.ndarray
    problems: Mapping[int, str]


def key_of(hashes: np.ndarray, size: Size, whole: bool = False) -> str:
    """The name of the pack of pictures with these hashes, (N, 32) uint8, at a stored size."""
    sha = hashlib.sha256(f"{VERSION} {size[0]}x{size[1]} {'whole ' if whole else ''}".encode())
    sha.update(np.ascontiguousarray(hashes).data)
    return sha.hexdigest()[:24]


def pack(
    pictures: Pictures, index: np.ndarray, size: Size, progress: Progress, whole: bool = False
) -> Pack:
    """The pack of the pictures at `index`, at a stored size; it is made if there is none.

    They are cut to their middle, or kept `whole` with padding beside them. Raises UserError if the
    disk has no room for it, and OSError if it cannot be written.
    """
    folder = cache_folder()
    path = folder / f"{key_of(pictures.facts.hashes[index], size, whole)}.npy"
    shape = (len(index), *size, 3)
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError):
        return _opened(path, shape)
    check_space(folder, int(np.prod(shape, dtype=np.int64)))
    _make(path, shape, pictures, index, progress, whole)
    return _opened(path, shape)


def pack_rows(rows: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """A read-only map of the arrays `rows`, which together are uint8 of this shape.

    Its file is named after the pixels, as `rows` can only be read. Raises UserError if the disk has
    no room for it, and OSError if it cannot be written.
    """
    folder = cache_folder()
    check_space(folder, int(np.prod(shape, dtype=np.int64)))
    sha = hashlib.sha256(str(shape).encode())
    begun = folder / f".{uuid.uuid4().hex}"
    with atomic_write(begun) as file:
        _write_header(file, shape)
        for row in rows:
            pixels = np.ascontiguousarray(row).data
            sha.update(pixels)
            file.write(pixels)
    path = folder / f"{sha.hexdigest()[:24]}.npy"
    begun.replace(path)
    return np.asanyarray(np.load(path, mmap_mode="r"))


def _opened(path: Path, shape: tuple[int, ...]) -> Pack:
    """The pack in a file. Raises OSError, ValueError, KeyError or EOFError if there is none."""
    problems = json.loads(_list(path).read_text(encoding="utf-8"))["unreadable"]
    x = np.load(path, mmap_mode="r", allow_pickle=False)
    if x.shape != shape or x.dtype != np.uint8:
        raise ValueError(f"{path} is of {x.dtype} and of shape {x.shape}")
    return Pack(x, {int(number): str(why) for number, why in problems.items()})


def _list(path: Path) -> Path:
    """The file beside a pack that lists what is unreadable."""
    return path.with_suffix(".json")


def _make(
    path: Path,
    shape: tuple[int, ...],
    pictures: Pictures,
    index: np.ndarray,
    progress: Progress,
    whole: bool,
) -> None:
    size = (shape[1], shape[2])
    problems: dict[int, str] = {}
    with progress("packing pictures", len(index)) as advance, atomic_write(path) as file:
        _write_header(file, shape)
        first = 0
        for x, unreadable in _rows(pictures, index, size, whole):
            file.write(x.data)
            problems |= {first + row: why for row, why in unreadable.items()}
            first += len(x)
            advance(len(x))
        # The list comes first: a pack without one is no pack.
        write(_list(path), json.dumps({"unreadable": problems}))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _rows(
    pictures: Pictures, index: np.ndarray, size: Size, whole: bool
) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
    """Yield the pixels of some pictures after the other, and which of them are unreadable."""

    def decoded(numbers: Sequence[int]) -> tuple[np.ndarray, dict[int, str]]:
        x = np.zeros((len(numbers), *size, 3), np.uint8)
        unreadable = {}
        for row, number in enumerate(numbers):
            try:
                x[row] = pixels_of(pictures.read(int(index[number])), *size, whole)
            except (OSError, UnreadableImage) as error:
                unreadable[row] = str(error)
        return x, unreadable

    with warnings.catch_warnings():
        # Pillow warns of broken EXIF data and the like, a picture at a time.
        warnings.simplefilter("ignore")
        yield from in_order(decoded, chunks(len(index), AT_A_TIME))
