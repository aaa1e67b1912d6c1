"""The source of annotated pictures, in whatever form they were: packed when they are loaded."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.detection.annotated import Annotated, Found, checked
from bam_search.tasks.detection.notes import object_notes, scale_notes
from bam_search.tasks.detection.samples import DetectionSamples, objects_of
from bam_search.tasks.detection.sizing import Sizing, sizing
from bam_search.tasks.detection.unlisted import split
from bam_search.tasks.pictures.encoded import File, Pictures, pictures_in
from bam_search.tasks.pictures.pack import key_of, pack
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.pictures.sizes import sizes_words, twice_notes, whole_sizes
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Dataset, Source
from bam_search.words import counted

NAMED = 3
"""How many unreadable pictures an error names."""


@dataclass(frozen=True, eq=False)
class _Ready:
    """A data set whose boxes are checked: its pictures, and the numbers of those of each part."""

    path: Path
    data: Annotated
    pictures: Pictures
    train: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]

    def without(self, problems: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The training and the test pictures that have no problem."""
        fine = np.array([not problem for problem in problems], bool)
        return self.train[fine[self.train]], self.test[fine[self.test]]


def annotated_source(path: Path, root: Path, found: Found, reading: Reading) -> Source:
    """The source of annotated pictures, which lie below `root`; the user gave `path`.

    Raises UserError for boxes that do not belong to their picture, and if no picture can be read.
    """
    pictures = pictures_in(root, _files(root, found.data.paths), reading.progress)
    facts = pictures.facts
    data, notes = checked(found.data, facts.sizes.astype(np.int64))
    train, test = np.arange(found.train), np.arange(found.train, len(data))
    parts = found.parts
    if not len(test):
        train, test, parts = split(data, facts)
    ready = _Ready(path, data, pictures, train, test, found.classes)
    train, test = ready.without(facts.problems)
    if not len(train) or not len(test):
        raise _unreadable(ready, facts.problems)
    _check_objects(ready, train, "training")
    _check_objects(ready, test, "test")
    sized = sizing(facts.sizes[train], reading)
    count = f"{counted(len(train), 'image')} to train and {len(test):,} to test"
    return Source(
        f"{path}: {count} ({parts}), {counted(len(data.labels), 'object')} of "
        f"{counted(len(found.classes), 'class')}, {sized.words}",
        len(train),
        len(test),
        lambda: _load(ready, sized, reading),
        Inputs((3, *sized.size), len(found.classes) + 1),  # class 0 is the background
        (*found.notes, *notes, *_notes(ready, train, test, sized)),
        at_hand=True,
    )


def _files(root: Path, paths: Sequence[str]) -> list[File]:
    """The files at `paths`; one that is missing cannot be read, which is told with the others."""
    files = []
    for path in paths:
        try:
            stat = (root / path).stat()
            files.append(File(path, stat.st_size, stat.st_mtime_ns))
        except OSError:
            files.append(File(path, -1, 0))
    return files


def _check_objects(ready: _Ready, index: np.ndarray, part: str) -> None:
    objects = ready.data.objects(index)
    if not (~ready.data.ignore[objects]).any():
        raise UserError(
            f"{ready.path}: no {part} picture has an object to find",
            f"{counted(len(index), 'picture')}, {counted(len(objects), 'object')}, all of them "
            "difficult or crowds"
            if len(objects)
            else "all annotations are empty",
        )


def _load(ready: _Ready, sized: Sizing, reading: Reading) -> Dataset:
    """The data set, packed. Raises UserError for unreadable pictures unless they are skipped."""
    problems, path = list(ready.pictures.facts.problems), ready.path
    packs = []
    for index in ready.without(problems):
        packed = pack(ready.pictures, index, sized.size, reading.progress, whole=True)
        packs.append((index, packed))
        for row, why in packed.problems.items():
            problems[index[row]] = why
    skipped = [number for number, problem in enumerate(problems) if problem]
    if skipped and not reading.skip_unreadable:
        raise _unreadable(ready, problems)
    train, test = (_samples(ready, index, packed.x, problems) for index, packed in packs)
    note = f"{_unread(len(skipped))} and left out, such as {_named(ready, problems, skipped[:1])}"
    return Dataset(
        path.stem if path.is_file() else path.absolute().name or path.resolve().name,
        f"{path}, {sized.words}" + (f"; {note}" if skipped else ""),
        train,
        test,
        classes=ready.classes,
        notes=(note,) if skipped else (),
        known_digest=_digest(ready, (train, test), problems, sized),
    )


def _samples(
    ready: _Ready, index: np.ndarray, x: np.ndarray, problems: Sequence[str]
) -> DetectionSamples:
    """The samples of the pictures at `index`, whose pixels are `x`, without unreadable ones."""
    data, sizes = ready.data, ready.pictures.facts.sizes[index].astype(np.int64)
    objects, offsets = objects_of(data.offsets, index)
    scale = (whole_sizes(sizes, x.shape[1:3]) / sizes)[:, [1, 0, 1, 0]]
    samples = DetectionSamples(
        Pixels(x),
        (data.boxes[objects] * np.repeat(scale, np.diff(offsets), axis=0)).astype(np.float32),
        data.labels[objects],
        data.ignore[objects],
        offsets,
        sizes,
    )
    readable = np.flatnonzero([not problems[number] for number in index])
    return samples if len(readable) == len(index) else samples.take(readable)


def _digest(
    ready: _Ready, parts: Sequence[DetectionSamples], problems: Sequence[str], sized: Sizing
) -> str:
    """Twelve hexadecimal digits of the pictures, their size, and what is annotated in them."""
    sha = hashlib.sha256()
    for index, samples in zip(ready.without(problems), parts, strict=True):
        hashes = ready.pictures.facts.hashes[index]
        sha.update(key_of(hashes, sized.size, whole=True).encode())
        for array in (samples.boxes, samples.labels, samples.ignore, samples.offsets):
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:12]


def _unreadable(ready: _Ready, problems: Sequence[str]) -> UserError:
    numbers = [number for number, problem in enumerate(problems) if problem]
    more = ", ..." if len(numbers) > NAMED else ""
    return UserError(
        f"{_unread(len(numbers))}: {_named(ready, problems, numbers[:NAMED])}{more}",
        "mend or remove them with their annotations, or leave them out with "
        "--set data.skip_unreadable=true",
    )


def _unread(pictures: int) -> str:
    verb = "is" if pictures == 1 else "are"
    return f"{counted(pictures, 'picture')} {verb} missing or unreadable"


def _named(ready: _Ready, problems: Sequence[str], numbers: Sequence[int]) -> str:
    """'JPEGImages/a.jpg of Annotations/a.xml: No such file or directory; ...'."""
    data = ready.data
    return "; ".join(f"{data.paths[i]} of {data.places[i]}: {problems[i]}" for i in numbers)


def _notes(ready: _Ready, train: np.ndarray, test: np.ndarray, sized: Sizing) -> Iterator[str]:
    """Yield lines about the pictures, their objects, and pictures in both parts."""
    facts, data = ready.pictures.facts, ready.data
    both = np.concatenate([train, test])
    yield sizes_words(facts.sizes[both])
    yield from object_notes(data, train, test, ready.classes)
    yield from scale_notes(data, facts.sizes.astype(np.int64), both, sized.size)
    yield from twice_notes(facts.hashes, data.paths, train, test)
