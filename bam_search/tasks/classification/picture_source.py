"""The source of pictures of any sizes, wherever they come from: packed when they are loaded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.notes import class_notes
from bam_search.tasks.classification.sizing import Sizing, sizing
from bam_search.tasks.pictures.encoded import Facts, Pictures
from bam_search.tasks.pictures.pack import Pack, key_of, pack
from bam_search.tasks.pictures.sizes import sizes_words, twice_notes
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Dataset, Source
from bam_search.words import counted

SHARE = 5
"""One of so many images of a class is for the test, where there is no test part."""
SPLIT = f"one in {SHARE} of each class, chosen by its contents, as there is no test part"
MEND = "mend or remove them"
NAMED = 3
"""How many unreadable pictures an error names."""


@dataclass(frozen=True, eq=False)
class Part:
    """The pictures of the training or of the test set: their numbers, and their classes."""

    index: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> "Part":
        """Those at `rows`."""
        return Part(self.index[rows], self.y[rows])

    def but(self, problems: Sequence[str]) -> "Part":
        """Those that have no problem, of which there is one text for each picture."""
        return self.take(np.array([not problems[number] for number in self.index], dtype=bool))


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures with their classes, in a training and a test part.

    `name` is that of the data set, `origin` where it lies, and `parts` says what the two parts are.
    """

    name: str
    origin: str
    parts: str
    pictures: Pictures
    train: Part
    test: Part
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def without(self, problems: Sequence[str]) -> "Labelled":
        """Them without those pictures that have a problem."""
        return replace(self, train=self.train.but(problems), test=self.test.but(problems))


def split(whole: Part, facts: Facts, classes: Sequence[str]) -> tuple[Part, Part]:
    """Training and test parts: one in SHARE of the different pictures of each class is a test's.

    They are chosen by their hashes, so that the choice does not depend on names, and equal pictures
    of a class lie in one part. Raises UserError for a class with one picture.
    """
    is_test = np.zeros(len(whole.y), dtype=bool)
    for number, name in enumerate(classes):
        rows = np.flatnonzero(whole.y == number)
        hashes = [facts.hashes[whole.index[row]].tobytes() for row in rows]
        different = sorted(set(hashes))
        if len(different) < 2:
            raise UserError(
                f"class {name} has one image, and there is no test part",
                "each class needs an image to train and one to test",
            )
        chosen = set(different[: max(1, round(len(different) / SHARE))])
        is_test[rows] = [one in chosen for one in hashes]
    return whole.take(~is_test), whole.take(is_test)


def picture_source(data: Labelled, reading: Reading) -> Source:
    """The source of labelled pictures. Raises UserError if none can be read."""
    facts = data.pictures.facts
    readable = data.without(facts.problems)
    if not len(readable.train.y) or not len(readable.test.y):
        raise _unreadable(data.pictures, facts.problems)
    _check_classes(readable)
    found = sizing(facts.sizes[readable.train.index], reading)
    train, test = len(readable.train.y), len(readable.test.y)
    count = f"{counted(train, 'image')} to train and {test:,} to test"
    return Source(
        f"{data.origin}: {count} ({data.parts}), {len(data.classes)} classes, {found.words}",
        train,
        test,
        lambda: _load(data, found, reading),
        Inputs((3, *found.working), len(data.classes)),
        (*data.notes, *_notes(readable)),
        at_hand=True,
    )


def _load(data: Labelled, found: Sizing, reading: Reading) -> Dataset:
    """The data set, packed. Raises UserError for unreadable pictures unless they are skipped."""
    pictures = data.pictures
    readable = data.without(pictures.facts.problems)
    problems = list(pictures.facts.problems)
    images = []
    for part in (readable.train, readable.test):
        packed = pack(pictures, part.index, found.stored, reading.progress)
        images.append(_images(packed, part))
        for row, why in packed.problems.items():
            problems[part.index[row]] = why
    skipped = sum(bool(problem) for problem in problems)
    if skipped and not reading.skip_unreadable:
        raise _unreadable(pictures, problems)
    _check_classes(data.without(problems))
    note = f"{_counted(skipped)} unreadable and left out, such as {_first(pictures, problems)}"
    return Dataset(
        data.name,
        f"{data.origin}, {found.words}" + (f"; {note}" if skipped else ""),
        images[0],
        images[1],
        classes=data.classes,
        notes=(note,) if skipped else (),
        known_digest=_digest(data.without(problems), found),
    )


def _check_classes(readable: Labelled) -> None:
    """Raise UserError for a class of which no training picture can be read."""
    counts = np.bincount(readable.train.y, minlength=len(readable.classes))
    if not counts.all():
        name = readable.classes[int(counts.argmin())]
        raise UserError(f"{readable.origin}: no training picture of {name} can be read", MEND)


def _images(packed: Pack, part: Part) -> Images:
    images = Images(packed.x, part.y)
    if not packed.problems:
        return images
    return images.take(np.setdiff1d(np.arange(len(part.y)), list(packed.problems)))


def _digest(data: Labelled, found: Sizing) -> str:
    """Twelve hexadecimal digits of the pictures, their stored size and their classes."""
    sha = hashlib.sha256()
    for part in (data.train, data.test):
        sha.update(key_of(data.pictures.facts.hashes[part.index], found.stored).encode())
        sha.update(np.ascontiguousarray(part.y).data)
    return sha.hexdigest()[:12]


def _unreadable(pictures: Pictures, problems: Sequence[str]) -> UserError:
    numbers = [number for number, problem in enumerate(problems) if problem]
    named = "; ".join(f"{pictures.names[i]}: {problems[i]}" for i in numbers[:NAMED])
    more = ", ..." if len(numbers) > NAMED else ""
    return UserError(
        f"{_counted(len(numbers))} unreadable: {named}{more}",
        f"{MEND}, or leave them out with --set data.skip_unreadable=true",
    )


def _counted(pictures: int) -> str:
    return f"{counted(pictures, 'picture')} {'is' if pictures == 1 else 'are'}"


def _first(pictures: Pictures, problems: Sequence[str]) -> str:
    number = next((number for number, problem in enumerate(problems) if problem), None)
    return "" if number is None else f"{pictures.names[number]} ({problems[number]})"


def _notes(data: Labelled) -> tuple[str, ...]:
    """Lines about the pictures' sizes, their classes, and pictures in both parts."""
    facts, names = data.pictures.facts, data.pictures.names
    train, test = data.train.index, data.test.index
    both = np.concatenate([train, test])
    return (
        sizes_words(facts.sizes[both]),
        *class_notes(data.train.y, data.test.y, data.classes),
        *twice_notes(facts.hashes, names, train, test),
    )
