"""Encoded pictures, and what is known of each one: the hash of its contents, and its size.

Files are read once: a manifest in the cache keeps what is known of a file by its path, length and
time of change, as git's index does. A file that changed just before the manifest was written is
read again, since it may have changed again within the clock's resolution.
"""

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bam_search.errors import first_line
from bam_search.files import atomic_write
from bam_search.tasks.pictures.cache import cache_folder
from bam_search.tasks.pictures.decode import UnreadableImage, size_of
from bam_search.tasks.pictures.threads import chunks, in_order
from bam_search.tasks.reading import Progress

AT_A_TIME = 64
"""Pictures that a thread reads before it reports."""
CLOCK = 2_000_000_000
"""Nanoseconds within which a file may change twice and show one time: some disks' resolution."""
HASH = 32
"""Bytes of a SHA-256."""


@dataclass(frozen=True)
class File:
    """A file in a folder: its path below it, its length in bytes, and its time of change in ns."""

    path: str
    length: int
    changed: int


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of N pictures.

    `hashes` is (N, 32) uint8. `sizes` is (N, 2) int32, height and width, zeros where `problems`
    says why a picture is unreadable; it is empty for the others.
    """

    hashes: np.ndarray
    sizes: np.ndarray
    problems: tuple[str, ...]

    @classmethod
    def joined(cls, parts: Sequence["Facts"]) -> "Facts":
        """The facts of several runs of pictures, one after the other."""
        hashes = [part.hashes for part in parts]
        sizes = [part.sizes for part in parts]
        return cls(
            np.concatenate([np.zeros((0, HASH), np.uint8), *hashes]),
            np.concatenate([np.zeros((0, 2), np.int32), *sizes]),
            tuple(problem for part in parts for problem in part.problems),
        )

    def take(self, rows: Sequence[int]) -> "Facts":
        """The facts of the pictures at `rows`."""
        index = np.asarray(rows, dtype=np.int64)
        return Facts(
            self.hashes[index], self.sizes[index], tuple(self.problems[row] for row in rows)
        )


@dataclass(frozen=True, eq=False)
class Pictures:
    """Encoded pictures: their names, as sentences have them, and the contents of each by number.

    `read` raises OSError if it cannot.
    """

    names: Sequence[str]
    read: Callable[[int], bytes]
    facts: Facts


def pictures_in(root: Path, files: Sequence[File], progress: Progress) -> Pictures:
    """The pictures in files below `root`; those that changed since the last time are read."""

    below = str(root)

    def read(number: int) -> bytes:
        # A Path for each file would take three times as long.
        with open(f"{below}/{files[number].path}", "rb") as file:  # noqa: PTH123
            return file.read()

    return known_pictures(root, files, read, progress)


def known_pictures(
    root: Path, files: Sequence[File], read: Callable[[int], bytes], progress: Progress
) -> Pictures:
    """The pictures that `read` gives by number; those whose file changed are read.

    Raises OSError if what is known of them cannot be kept.
    """
    started = time.time_ns()
    manifest = Manifest.of(root)
    new = [number for number, file in enumerate(files) if not manifest.knows(file)]
    found = facts_of(lambda i: read(new[i]), len(new), progress)
    facts = _merged(files, new, found, manifest)
    if new:
        manifest.write(started, files, facts)
    return Pictures([file.path for file in files], read, facts)


def _merged(files: Sequence[File], new: Sequence[int], found: Facts, manifest: "Manifest") -> Facts:
    """The facts of all files: of the `new` ones as they were `found`, else as they were known."""
    both = Facts.joined([manifest.facts, found])
    rows = [manifest.rows.get(file.path, 0) for file in files]
    for place, number in enumerate(new):
        rows[number] = len(manifest.facts.problems) + place
    return both.take(rows)


def facts_of(read: Callable[[int], bytes], count: int, progress: Progress) -> Facts:
    """What the first `count` pictures are; all of them are read."""
    if not count:
        return Facts.joined([])
    found = []
    with progress("reading pictures", count) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of broken EXIF data and the like
        for part in in_order(lambda numbers: _facts(read, numbers), chunks(count, AT_A_TIME)):
            found.append(part)
            advance(len(part.problems))
    return Facts.joined(found)


def _facts(read: Callable[[int], bytes], numbers: Sequence[int]) -> Facts:
    hashes = np.zeros((len(numbers), HASH), np.uint8)
    sizes = np.zeros((len(numbers), 2), np.int32)
    problems = [""] * len(numbers)
    for row, number in enumerate(numbers):
        try:
            content = read(number)
            hashes[row] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
            sizes[row] = size_of(content)
        except (OSError, UnreadableImage) as error:
            problems[row] = (getattr(error, "strerror", None) or first_line(error)).strip()
    return Facts(hashes, sizes, tuple(problems))


@dataclass(frozen=True, eq=False)
class Manifest:
    """What was known of the files below a folder when they were last read.

    `files` are known by their paths in `rows`, which are those of `facts`; those that changed
    after `certain`, in ns, are not.
    """

    path: Path
    certain: int
    files: Mapping[str, File]
    rows: Mapping[str, int]
    facts: Facts

    @classmethod
    def of(cls, root: Path) -> "Manifest":
        """The manifest of a folder; it knows nothing if there is none that can be read."""
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:24]
        path = cache_folder() / f"manifest-{name}.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as table:
                return cls._of_table(path, table)
        except Exception:  # whatever numpy raises for a file that is missing, cut off or no npz
            return cls(path, 0, {}, {}, Facts.joined([]))

    @classmethod
    def _of_table(cls, path: Path, table: Mapping[str, np.ndarray]) -> "Manifest":
        paths, problems = _texts(table["paths"]), _texts(table["problems"])
        stamps = zip(paths, table["lengths"].tolist(), table["changed"].tolist(), strict=True)
        files = {name: File(name, length, changed) for name, length, changed in stamps}
        facts = Facts(table["hashes"], table["sizes"], tuple(problems))
        if not len(paths) == len(facts.hashes) == len(facts.sizes) == len(problems):
            raise ValueError("its columns are not of one length")
        rows = {name: row for row, name in enumerate(paths)}
        return cls(path, int(table["started"]) - CLOCK, files, rows, facts)

    def knows(self, file: File) -> bool:
        """Whether the file is as it was."""
        return file.changed < self.certain and self.files.get(file.path) == file

    def write(self, started: int, files: Sequence[File], facts: Facts) -> None:
        """Keep what is known of `files` now, read after `started`, in ns. Raises OSError."""
        with atomic_write(self.path) as out:
            np.savez(
                out,
                started=np.int64(started),
                paths=_bytes([file.path for file in files]),
                lengths=np.array([file.length for file in files], np.int64),
                changed=np.array([file.changed for file in files], np.int64),
                hashes=facts.hashes,
                sizes=facts.sizes,
                problems=_bytes(facts.problems),
            )


def _bytes(texts: Sequence[str]) -> np.ndarray:
    """Texts as one array, each with a zero byte at its end: no path has one."""
    joined = "".join(f"{text}\0" for text in texts)
    return np.frombuffer(joined.encode("utf-8", "surrogateescape"), np.uint8)


def _texts(array: np.ndarray) -> list[str]:
    return array.tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
