"""Annotations in the form of COCO: one JSON file for many pictures.

FILE.json                           with the pictures beside it, or in images/
FOLDER/annotations/instances_*.json with train2017/* and val2017/*, also in images/
FOLDER/train/*.json                 beside the pictures, with valid/ and test/
FOLDER/train.json                   with val.json and test.json

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the form is described at
https://cocodataset.org/#format-data.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from bam_search.errors import UserError, first_line, nearest
from bam_search.tasks.detection.annotated import Annotated, Found, joined
from bam_search.tasks.detection.parts import NAMES, part_words, roles
from bam_search.tasks.detection.samples import offsets_of
from bam_search.tasks.pictures.walk import folders_in

ANNOTATIONS = "annotations"
INSTANCES = "instances_"
"""What COCO's own files of boxes begin with; it has others, of captions and of key points."""
FORM = "COCO's form is {'images': [...], 'annotations': [...], 'categories': [...]}"
MEND = "mend it, or take it out"
LOOKED_AT = 20
"""Pictures whose place is tried."""


def json_files(path: Path) -> dict[str, Path]:
    """The files of annotations below a folder, or the file, by the names of the parts.

    The name is empty where there is one part. Raises UserError if there are two files for a part.
    """
    if path.is_file():
        return {"": path}
    folders = [
        folder.name for folder in folders_in(path) if folder.name.lower() in (ANNOTATIONS, *NAMES)
    ]
    files = [file for name in (*folders, ".") for file in sorted((path / name).glob("*.json"))]
    instances = [file for file in files if file.name.startswith(INSTANCES)]
    parts: dict[str, Path] = {}
    for file in instances or files:
        name = _part_name(file, path)
        if name in parts:
            what = f"the part {name}" if name else "its annotations"
            raise UserError(
                f"{path} has two files of {what}: {parts[name].relative_to(path)} "
                f"and {file.relative_to(path)}",
                "give the path of one of them, or take the other away",
            )
        parts[name] = file
    return parts


def _part_name(file: Path, root: Path) -> str:
    """The part that a file is for, by its name or that of its folder; empty if none is meant."""
    words = re.split(r"[^a-z]+", file.stem.lower())
    if file.parent != root and file.parent.name.lower() in NAMES:
        words = [file.parent.name.lower()]
    return next((word for word in words if word in NAMES), "")


@dataclass(frozen=True, eq=False)
class _File:
    """A file of annotations and what it has; all errors begin with its path."""

    path: Path
    content: Mapping[str, list[Any]]

    @classmethod
    def of(cls, path: Path) -> "_File":
        """The file, read. Raises UserError if it is not of COCO's form."""
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is broken JSON: {first_line(error)}", MEND) from None
        for key in ("images", "annotations", "categories"):
            if not (isinstance(content, dict) and isinstance(content.get(key), list)):
                raise UserError(f"{path} has no list of {key}", FORM)
            odd = next((one for one in content[key] if not isinstance(one, dict)), None)
            if odd is not None:
                raise UserError(f"{path}: {odd!r} in {key} is no table", FORM)
        return cls(path, content)

    def categories(self) -> dict[int, str]:
        """The names of the categories by their ids."""
        found = self._by_id("categories")
        names = {one: self._text(entry, "name", f"category {one}") for one, entry in found.items()}
        twice = _twice(names.values())
        if twice is not None:
            raise UserError(f"{self.path} has two categories {twice!r}", "names are unique")
        if not names:
            raise UserError(f"{self.path} has no categories", FORM)
        return names

    def annotated(self, root: Path, classes: Sequence[str]) -> Annotated:
        """Its pictures, below `root`, and their objects in these classes."""
        images = self._by_id("images")
        paths = [self._text(entry, "file_name", f"image {one}") for one, entry in images.items()]
        twice = _twice(paths)
        if twice is not None:
            raise UserError(f"{self.path} has two images with the file {twice}", MEND)
        numbers = {one: number for number, one in enumerate(images)}
        labels = self._labels(classes)
        self._by_id("annotations")
        objects = [self._object(entry, numbers, labels) for entry in self.content["annotations"]]
        objects.sort(key=lambda one: one.image)
        return Annotated(
            paths=_placed(paths, root, self.path),
            places=[f"{self.path.name}, image {one}" for one in images],
            declared=np.array([self._size(entry, one) for one, entry in images.items()], np.int64),
            boxes=np.array([one.box for one in objects], np.float64).reshape(-1, 4),
            labels=np.array([one.label for one in objects], np.int64),
            ignore=np.array([one.is_crowd for one in objects], bool),
            names=[f"annotation {one.name}" for one in objects],
            offsets=offsets_of(
                np.bincount(np.array([one.image for one in objects], int), minlength=len(images))
            ),
        )

    def _labels(self, classes: Sequence[str]) -> dict[int, int]:
        """The label of each category. Raises UserError for one that the training part has not."""
        own = self.categories()
        foreign = next((name for name in own.values() if name not in classes), None)
        if foreign is not None:
            raise UserError(
                f"{self.path} has a category {foreign!r}, which the training part has not",
                nearest(foreign, classes),
            )
        label = {name: number for number, name in enumerate(classes, 1)}
        return {one: label[name] for one, name in own.items()}

    def _by_id(self, key: str) -> dict[Any, dict[str, Any]]:
        """The tables of a list by their ids. Raises UserError for ids that are missing or twice."""
        found: dict[Any, dict[str, Any]] = {}
        for number, entry in enumerate(self.content[key]):
            one = entry.get("id")
            if not isinstance(one, int | str):
                raise UserError(f"{self.path}: entry {number} of {key} has the id {one!r}", MEND)
            if one in found:
                raise UserError(f"{self.path}: the id {one!r} is twice in {key}", "ids are unique")
            found[one] = entry
        return found

    def _text(self, entry: Mapping[str, Any], key: str, where: str) -> str:
        text = entry.get(key)
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{self.path}, {where}: its {key} is {text!r}", "it is a text")
        return text

    def _size(self, entry: Mapping[str, Any], one: object) -> tuple[int, int]:
        """(height, width) as an image's table says; zeros where it does not."""
        sides = entry.get("height") or 0, entry.get("width") or 0
        if not all(isinstance(side, int | float) for side in sides):
            raise UserError(f"{self.path}, image {one}: its size is {sides}", "sides are numbers")
        return round(sides[0]), round(sides[1])

    def _object(
        self, entry: Mapping[str, Any], numbers: Mapping[Any, int], labels: Mapping[Any, int]
    ) -> "_Object":
        """An object. Raises UserError if it is none."""
        where = f"{self.path}, annotation {entry['id']}"
        for key, known in (("image_id", numbers), ("category_id", labels)):
            one = entry.get(key)
            if not isinstance(one, int | str) or one not in known:
                what = key.removesuffix("_id")
                raise UserError(f"{where}: there is no {what} {one!r}", MEND)
        box = entry.get("bbox")
        if not _is_box(box):
            raise UserError(
                f"{where}: its bbox is {box!r}", "it is [x, y, width, height] in pixels"
            )
        crowd = entry.get("iscrowd") or 0
        if crowd not in (0, 1):
            raise UserError(f"{where}: iscrowd is {crowd!r}", "it is 0 or 1")
        x, y, width, height = box
        return _Object(
            numbers[entry["image_id"]],
            labels[entry["category_id"]],
            (x, y, x + width, y + height),
            bool(crowd),
            entry["id"],
        )


def coco_annotated(path: Path, files: Mapping[str, Path]) -> tuple[Path, Found]:
    """The folder of the pictures, and the annotations of `files`, which `json_files(path)` gave.

    The classes are the categories of the training part, in the order of their ids. Raises UserError
    for annotations that are broken.
    """
    root = _root(path)
    train, test = roles(tuple(files)) if "" not in files else (("",), ())
    if not train:
        raise UserError(f"{path} has {next(iter(files.values())).name}, and no training part", FORM)
    used = [_File.of(files[name]) for name in (*train, *test)]
    categories = used[0].categories()
    classes = tuple(categories[one] for one in sorted(categories, key=_order))
    tables = [file.annotated(root, classes) for file in used]
    _check_once(used, tables)
    unused = [files[name].name for name in files if name not in (*train, *test)]
    return root, Found(
        joined(tables),
        sum(len(table) for table in tables[: len(train)]),
        classes,
        part_words([files[name].name for name in train], [files[name].name for name in test]),
        (f"not used: {', '.join(unused)}",) if unused else (),
    )


def _check_once(files: Sequence[_File], tables: Sequence[Annotated]) -> None:
    """Raise UserError for a picture that two files have."""
    owner: dict[str, _File] = {}
    for file, table in zip(files, tables, strict=True):
        for path in table.paths:
            if path in owner:
                where = f"{owner[path].path.name} and in {file.path.name}"
                raise UserError(f"{path} is in {where}", "what tests must not train")
        owner |= dict.fromkeys(table.paths, file)


def _root(path: Path) -> Path:
    """The folder below which the pictures lie."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name.lower() == ANNOTATIONS else path.parent


class _Object(NamedTuple):
    """An object as its file has it: the number of its image, its label, and its corners."""

    image: int
    label: int
    box: tuple[float, float, float, float]
    is_crowd: bool
    name: int | str


def _is_box(box: Any) -> TypeGuard[list[float]]:
    numbers = isinstance(box, list) and all(type(side) in (int, float) for side in box)
    return numbers and len(box) == 4


def _order(one: int | str) -> tuple[bool, int | str]:
    """What sorts ids: numbers first."""
    return isinstance(one, str), one


def _twice(texts: Iterable[str]) -> str | None:
    """The first text that is there twice."""
    counts = Counter(texts)
    return next((text for text, count in counts.items() if count > 1), None)


def _placed(names: Sequence[str], root: Path, file: Path) -> list[str]:
    """The paths of the pictures of a file below `root`: in the first folder that has one of them.

    Where no folder has them, their paths are as they would be beside the file.
    """
    bare = [name.replace("\\", "/").rpartition("/")[2] for name in names]
    folders = _folders(root, file)
    for some in (names, bare):
        for folder in folders:
            if any((root / folder / name).is_file() for name in some[:LOOKED_AT]):
                return [str(PurePath(folder, name)) for name in some]
    return [str(PurePath(folders[0], name)) for name in names]


def _folders(root: Path, file: Path) -> list[str]:
    """The folders, below `root`, in which the pictures of a file may lie."""
    beside = str(file.parent.relative_to(root))
    words = file.stem.removeprefix(INSTANCES), _part_name(file, root)
    inside = [folder for word in words if word for folder in (word, f"images/{word}")]
    return [beside, f"{beside}/images", *inside, ".", "images", "data"]
