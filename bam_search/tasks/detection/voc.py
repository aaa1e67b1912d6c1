"""Annotations in the form of Pascal VOC: an XML file for each picture.

FOLDER/Annotations/*.xml  with FOLDER/JPEGImages/* or images/*, and the official parts in
                          FOLDER/ImageSets/Main/: trainval.txt, or train.txt and val.txt; test.txt
FOLDER/train/*.xml        beside the pictures, with valid/ and test/
FOLDER/*.xml              beside the pictures

M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010. Corners are
taken as they are written, as today's tools write edges; the challenge's own files count pixels
from 1, which moves a box by one pixel at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from bam_search.errors import UserError, first_line, nearest
from bam_search.tasks.detection.annotated import Annotated, Found
from bam_search.tasks.detection.parts import NAMES, part_words, roles
from bam_search.tasks.detection.samples import offsets_of
from bam_search.tasks.pictures.walk import folders_in, is_picture
from bam_search.words import counted

ANNOTATIONS = "annotations"
PICTURES = ("jpegimages", "images", "imgs")
"""What the folder of the pictures is called, in any case."""
LISTS = "ImageSets/Main"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"0": False, "1": True}
MEND = "mend it, or take it away together with its picture"
LAYOUT = (
    "a folder has Annotations/*.xml and JPEGImages/*, or train/ and test/ with an XML file beside "
    "each picture"
)


@dataclass(frozen=True)
class _Object:
    """An object as its file has it: the name of its class, its corners, whether it is difficult."""

    name: str
    box: tuple[float, ...]
    difficult: bool


@dataclass(frozen=True)
class _Picture:
    """What one file says: its path, the path of the picture, (height, width) or 0, the objects."""

    file: str
    path: str
    size: tuple[int, int]
    objects: tuple[_Object, ...]


@dataclass(frozen=True)
class _Parts:
    """The files of annotations that train and that test, below a folder, and what they are."""

    train: Sequence[str]
    test: Sequence[str]
    words: str
    notes: tuple[str, ...] = ()


def is_voc(root: Path) -> bool:
    """Whether a folder has XML files where VOC has them."""
    places = [_annotations(root) or ".", *_part_folders(root)]
    return any(True for place in places for _ in (root / place).glob("*.xml"))


def voc_annotated(root: Path) -> Found:
    """The annotations of a folder. Raises UserError if they are broken.

    The classes are those of the training part, sorted.
    """
    parts = _parts(root)
    files = [*parts.train, *parts.test]
    folders = {file.rpartition("/")[0] or "." for file in files}
    pictured = {entry.name for entry in folders_in(root) if entry.name.lower() in PICTURES}
    known = {folder: _pictures_in(root, folder) for folder in sorted(folders | pictured)}
    pictures = [_read(root, file, known) for file in files]
    trained = pictures[: len(parts.train)]
    classes = tuple(sorted({one.name for picture in trained for one in picture.objects}))
    _check_classes(pictures[len(trained) :], classes)
    return Found(_table(pictures, classes), len(trained), classes, parts.words, parts.notes)


def _annotations(root: Path) -> str:
    """The folder of annotations, or nothing."""
    names = (entry.name for entry in folders_in(root) if entry.name.lower() == ANNOTATIONS)
    return next(names, "")


def _part_folders(root: Path) -> tuple[str, ...]:
    """The folders that are called as parts are, and have XML files."""
    names = (entry.name for entry in folders_in(root) if entry.name.lower() in NAMES)
    return tuple(name for name in names if any((root / name).glob("*.xml")))


def _parts(root: Path) -> _Parts:
    if above := _annotations(root):
        return _parts_of_lists(root, above)
    if folders := _part_folders(root):
        return _parts_of_folders(root, folders)
    return _Parts(_files(root, "."), (), "")


def _parts_of_lists(root: Path, above: str) -> _Parts:
    """The parts that the lists of names say; all files are one part where there are none."""
    files = _files(root, above)
    lists = {path.stem: path for path in sorted((root / LISTS).glob("*.txt"))}
    train, test = roles(tuple(lists))
    if not train:
        return _Parts(files, (), "")
    named = {name: _listed(root, above, lists[name]) for name in (*train, *test)}
    trained = list(dict.fromkeys(file for name in train for file in named[name]))
    tested = [file for name in test for file in named[name]]
    if both := set(trained) & set(tested):
        raise UserError(
            f"{Path(min(both)).stem} is in {train[0]}.txt and in {test[0]}.txt of {root / LISTS}",
            "what tests must not train: take it from one of them",
        )
    unused = len(set(files) - set(trained) - set(tested))
    notes = (f"not used: {counted(unused, 'annotated picture')} in no list",) if unused else ()
    words = part_words([f"{name}.txt" for name in train], [f"{name}.txt" for name in test])
    return _Parts(trained, tested, words, notes)


def _parts_of_folders(root: Path, folders: Sequence[str]) -> _Parts:
    train, test = roles(folders)
    if not train:
        raise UserError(f"{root} has {folders[0]}/, and no train/ with annotations", LAYOUT)
    trained, tested = (
        [file for name in names for file in _files(root, name)] for names in (train, test)
    )
    words = part_words([f"{name}/" for name in train], [f"{name}/" for name in test])
    unused = [f"{name}/" for name in folders if name not in (*train, *test)]
    notes = (f"not used: {', '.join(unused)}",) if unused else ()
    return _Parts(trained, tested, words, notes)


def _files(root: Path, folder: str) -> list[str]:
    """The files of annotations in a folder, below `root`, sorted."""
    above = "" if folder == "." else f"{folder}/"
    return [f"{above}{path.name}" for path in sorted((root / folder).glob("*.xml"))]


def _listed(root: Path, above: str, path: Path) -> list[str]:
    """The files of annotations of the pictures that a list names. Raises UserError."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise UserError(f"{path} is empty", "it names a picture a line, without its ending")
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise UserError(f"{path} has {twice} twice", "leave one of them out")
    for name in names:
        if not (root / above / f"{name}.xml").is_file():
            raise UserError(
                f"{path} names {name}, and there is no {above}/{name}.xml",
                "a picture without objects has an annotation without objects",
            )
    return [f"{above}/{name}.xml" for name in names]


def _pictures_in(root: Path, folder: str) -> dict[str, str]:
    """The paths of the pictures in a folder, below `root`, by their names with and without end."""
    above = "" if folder == "." else f"{folder}/"
    known: dict[str, str] = {}
    for path in sorted((root / folder).iterdir()):
        if is_picture(path.name):
            known.setdefault(path.stem, f"{above}{path.name}")
            known[path.name] = f"{above}{path.name}"
    return known


def _read(root: Path, file: str, known: Mapping[str, Mapping[str, str]]) -> _Picture:
    """What a file of annotations says. Raises UserError if it is broken."""
    try:
        top = ElementTree.parse(root / file).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise UserError(f"{file} is broken XML: {first_line(error)}", MEND) from None
    if top.tag != "annotation":
        raise UserError(f"{file} is no annotation, but <{top.tag}>", MEND)
    name = (top.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    objects = [
        _object(element, f"{file}, object {number}")
        for number, element in enumerate(top.iter("object"), 1)
    ]
    return _Picture(file, _picture(file, name, known), _size(top, file), tuple(objects))


def _picture(file: str, name: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """The path of the picture of a file: it has the file's stem, or the `name` that is in it.

    If there is none, the path where it would be.
    """
    above, _, own = file.rpartition("/")
    stem = own.removesuffix(".xml")
    folders = [above or ".", *(folder for folder in known if folder.lower() in PICTURES)]
    there = (known[folder].get(key) for key in (stem, name) for folder in folders)
    missing = "/".join(part for part in (folders[-1].strip("."), name or stem) if part)
    return next(filter(None, there), missing)


def _size(top: Element, file: str) -> tuple[int, int]:
    """(height, width) as a file says; zeros where it does not."""
    sides = [top.findtext(f"size/{side}") or "0" for side in ("height", "width")]
    try:
        height, width = (round(float(side)) for side in sides)
    except (ValueError, OverflowError):
        raise UserError(f"{file}: its size is {' x '.join(sides)}, no numbers", MEND) from None
    return height, width


def _object(element: Element, where: str) -> _Object:
    """An object. Raises UserError, which begins with `where`, if it is none."""
    name = (element.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{where} has no name of a class", "its <name> is empty or missing")
    texts = {corner: element.findtext(f"bndbox/{corner}") for corner in CORNERS}
    for corner, text in texts.items():
        if text is None:
            raise UserError(f"{where} ({name}) has no {corner}", f"a <bndbox> has {CORNERS}")
    try:
        box = tuple(float(text or "") for text in texts.values())
    except ValueError:
        values = " ".join(f"{corner}={text}" for corner, text in texts.items())
        raise UserError(f"{where} ({name}): its box is {values}", "corners are numbers") from None
    flag = (element.findtext("difficult") or "0").strip()
    if flag not in FLAGS:
        raise UserError(f"{where} ({name}): difficult is {flag!r}", "it is 0 or 1")
    return _Object(name, box, FLAGS[flag])


def _check_classes(tested: Sequence[_Picture], classes: Sequence[str]) -> None:
    """Raise UserError for a class that only the test part has."""
    for picture in tested:
        for number, one in enumerate(picture.objects, 1):
            if one.name not in classes:
                raise UserError(
                    f"{picture.file}, object {number}: class {one.name!r} is unknown, "
                    "as no training picture has it",
                    nearest(one.name, classes),
                )


def _table(pictures: Sequence[_Picture], classes: Sequence[str]) -> Annotated:
    number = {name: label for label, name in enumerate(classes, 1)}
    objects = [one for picture in pictures for one in picture.objects]
    return Annotated(
        paths=[picture.path for picture in pictures],
        places=[picture.file for picture in pictures],
        declared=np.array([picture.size for picture in pictures], np.int64).reshape(-1, 2),
        boxes=np.array([one.box for one in objects], np.float64).reshape(-1, 4),
        labels=np.array([number[one.name] for one in objects], np.int64),
        ignore=np.array([one.difficult for one in objects], bool),
        names=[f"object {i}" for picture in pictures for i in range(1, len(picture.objects) + 1)],
        offsets=offsets_of(np.array([len(picture.objects) for picture in pictures], np.int64)),
    )
