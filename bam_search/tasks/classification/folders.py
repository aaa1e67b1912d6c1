"""A folder of images: a folder for each class, in a training and a test part, or in one to split.

FOLDER/train/CLASS/*   with FOLDER/test/CLASS/*, or val/ or validation/
FOLDER/CLASS/*         of which a fifth of each class is the test part
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.classification.picture_source import (
    SPLIT,
    Labelled,
    Part,
    picture_source,
    split,
)
from bam_search.tasks.pictures.encoded import File, pictures_in
from bam_search.tasks.pictures.parts import TEST, TRAIN
from bam_search.tasks.pictures.walk import folders_in, is_picture, walk
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Source
from bam_search.words import counted

LAYOUT = (
    "a folder has train/CLASS/* and val/CLASS/* or test/CLASS/*, or CLASS/*: "
    "a folder for each class"
)
OWN_FOLDERS = (
    "put the images of each class into a folder of its own; or read their labels in a function, "
    "and give file.py:function"
)


@dataclass(frozen=True, eq=False)
class Found:
    """The pictures below a folder of classes, by class, and what was left out."""

    files: Mapping[str, Sequence[File]]
    nested: int
    others: Sequence[str]

    @property
    def classes(self) -> list[str]:
        """The classes with pictures, sorted."""
        return sorted(name for name, files in self.files.items() if files)


def folder_source(path: Path, reading: Reading) -> Source:
    """The source of a folder of images. Raises UserError if it has no images in classes."""
    parts = _parts(path)
    found = {name: _found(path, name) for name in parts.values()}
    train = found[parts["train"]]
    _check(path, parts["train"], train)
    classes = tuple(train.classes)
    of_test = found.get(parts.get("test", ""))
    if of_test:
        _check_test(path / parts["test"], of_test, classes)
    files = [file for part in (train, of_test) if part for file in _files(part, classes)]
    pictures = pictures_in(path, files, reading.progress)
    whole = _part(train, classes)
    if of_test:
        test = _part(of_test, classes, first=len(whole.y))
        words = f"{parts['train']}/ and {parts['test']}/"
    else:
        whole, test = split(whole, pictures.facts, classes)
        words = SPLIT
    name = path.absolute().name or path.resolve().name
    notes = tuple(_notes(path, parts, found))
    data = Labelled(name, str(path), words, pictures, whole, test, classes, notes)
    return picture_source(data, reading)


def _parts(path: Path) -> dict[str, str]:
    """The names of the folders "train" and "test"; "." for the training part is the folder."""
    folders = {entry.name.lower(): entry.name for entry in folders_in(path)}
    parts = {name: folder for name, folder in folders.items() if name in (*TRAIN, *TEST)}
    with_classes = {name: folder for name, folder in parts.items() if folders_in(path / folder)}
    train = next((with_classes[name] for name in TRAIN if name in with_classes), None)
    test = next((with_classes[name] for name in TEST if name in with_classes), None)
    if test and not train:
        raise UserError(f"{path} has {test}/, and no train/ with a folder for each class", LAYOUT)
    if not train and parts and len(parts) == len(folders):  # else one may be a class of trains
        first = path / next(iter(parts.values()))
        raise UserError(f"{first} has no folder of a class", OWN_FOLDERS)
    if not train:
        return {"train": "."}
    return {"train": train} | ({"test": test} if test else {})


def _found(root: Path, part: str) -> Found:
    """The pictures below a folder of classes; their paths are those below `root`."""
    above = "" if part == "." else f"{part}/"
    files: dict[str, list[File]] = {}
    others: list[str] = []
    nested = 0
    for folder in folders_in(root / part):
        files[folder.name] = []
        for name, entry in walk(folder.path, f"{above}{folder.name}", frozenset()):
            if not is_picture(name):
                others.append(name)
                continue
            stat = entry.stat()
            files[folder.name].append(File(name, stat.st_size, stat.st_mtime_ns))
            nested += len(name) > len(above) + len(folder.name) + 1 + len(entry.name)
    with os.scandir(root / part) as entries:
        loose = [entry.name for entry in entries if entry.is_file() and is_picture(entry.name)]
    return Found(files, nested, [*others, *(f"{above}{name}" for name in sorted(loose))])


BOXES = "for boxes around objects there is --study detection"
"""A hint for a folder of annotated pictures."""


def _check(path: Path, part: str, found: Found) -> None:
    """Raise UserError for a training part that has not at least two classes with images."""
    where = path if part == "." else path / part
    if not found.classes:
        raise _no_classes(where, found)
    if len(found.classes) == 1:
        has_boxes = any(folder.name.lower() == "annotations" for folder in where.iterdir())
        hint = BOXES if has_boxes else _below(where, LAYOUT)
        raise UserError(f"{where} has one class, {found.classes[0]}", hint)
    empty = [name for name, files in found.files.items() if not files]
    if empty:
        raise UserError(
            f"the folder {where / empty[0]} of a class has no images",
            BOXES if empty[0].lower() == "annotations" else "put images into it, or remove it",
        )


def _no_classes(where: Path, found: Found) -> UserError:
    loose = [name for name in found.others if is_picture(name)]
    if loose:
        return UserError(
            f"{where} has {counted(len(loose), 'image')}, and no folder of a class",
            OWN_FOLDERS,
        )
    return UserError(f"{where} has no images", LAYOUT)


def _below(where: Path, hint: str) -> str:
    """A hint: a folder in `where` that looks like what is wanted, if there is one."""
    for entry in folders_in(where):
        inside = [below.name.lower() for below in folders_in(where / entry.name)]
        if any(name in TRAIN for name in inside) or len(inside) > 1:
            return f"did you mean {where / entry.name}?"
    return hint


def _check_test(where: Path, found: Found, classes: Sequence[str]) -> None:
    """Raise UserError for a test part that is not of the training part's classes."""
    foreign = sorted(set(found.classes) - set(classes))
    if foreign:
        raise UserError(
            f"{where} has a class {foreign[0]}, which the training part has not",
            f"its {len(classes)} classes are {classes[0]} to {classes[-1]}",
        )
    if 2 * len(found.classes) < len(classes):
        raise UserError(
            f"{where} has images of {len(found.classes)} of the {len(classes)} classes",
            "a test set has images of each class",
        )


def _files(found: Found, classes: Sequence[str]) -> list[File]:
    return [file for name in classes for file in found.files.get(name, ())]


def _part(found: Found, classes: Sequence[str], first: int = 0) -> Part:
    """The part of these files, of which the first one has the number `first`."""
    counts = [len(found.files.get(name, ())) for name in classes]
    y = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return Part(first + np.arange(len(y)), y)


def _notes(path: Path, parts: Mapping[str, str], found: Mapping[str, Found]) -> Iterator[str]:
    """Yield lines about what was left out or is unusual."""
    others = [name for part in found.values() for name in part.others]
    if others:
        more = ", ..." if len(others) > 1 else ""
        yield f"left out: {counted(len(others), 'file')} that are no images ({others[0]}{more})"
    nested = sum(part.nested for part in found.values())
    if nested:
        yield f"{counted(nested, 'image')} in folders below that of a class count as that class's"
    folders = [entry.name for entry in folders_in(path)]
    unused = [name for name in folders if name not in parts.values()]
    if parts["train"] != "." and unused:
        yield f"not used: {', '.join(f'{name}/' for name in unused)}"
