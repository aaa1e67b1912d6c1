"""Annotations in the form of COCO: read, checked and told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import coco, save_picture, usual, write_coco, write_voc

from bam_search.errors import UserError
from bam_search.tasks.detection.sources import locate
from bam_search.tasks.pictures.cache import VARIABLE

NAMES = ("red", "green", "blue")
TRAIN = "annotations/instances_train.json"


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_coco(tmp_path / "squares", {"train": range(7), "val": range(7, 10)})
    return tmp_path / "squares"


def test_official_parts_and_categories_are_taken(root: Path) -> None:
    source = locate(str(root))
    assert (source.train, source.test) == (7, 3)
    assert "(instances_train.json, instances_val.json), 25 objects of 3 classes" in source.text
    data = source.load()
    assert data.classes == NAMES  # in the order of their ids
    for number in range(7):
        objects = slice(*data.train.offsets[number : number + 2])
        names = [data.classes[label - 1] for label in data.train.labels[objects]]
        boxes = [tuple(box) for box in data.train.boxes[objects].tolist()]
        assert list(zip(names, boxes, strict=True)) == usual(number)


def test_it_is_what_pascal_voc_says_of_the_same_pictures(root: Path, tmp_path: Path) -> None:
    write_voc(tmp_path / "voc", {"train": range(7), "test": range(7, 10)})
    coco_data, voc_data = locate(str(root)).load(), locate(str(tmp_path / "voc")).load()
    assert [NAMES[label - 1] for label in coco_data.train.labels] == [
        voc_data.classes[label - 1] for label in voc_data.train.labels
    ]
    for part in ("train", "test"):
        one, other = getattr(coco_data, part), getattr(voc_data, part)
        for name in ("x", "boxes", "offsets", "ignore", "sizes"):
            assert np.array_equal(getattr(one, name), getattr(other, name))


def beside(root: Path) -> tuple[str, tuple[int, int]]:
    """Each part's file beside its pictures, as some tools export it."""
    for part, name in (("train", "train"), ("val", "valid")):
        (root / part).rename(root / name)
        (root / f"annotations/instances_{part}.json").rename(root / name / "_annotations.coco.json")
    return str(root), (7, 3)


def years(root: Path) -> tuple[str, tuple[int, int]]:
    """As COCO itself: years, pictures in images/, and files of captions."""
    (root / "images").mkdir()
    for part in ("train", "val"):
        (root / part).rename(root / f"images/{part}2017")
        path = root / f"annotations/instances_{part}.json"
        path.rename(path.with_name(f"instances_{part}2017.json"))
        (root / f"annotations/captions_{part}2017.json").write_text("{}")
    return str(root), (7, 3)


def one_file(root: Path) -> tuple[str, tuple[int, int]]:
    """The path of a file, with its pictures in images/ beside it."""
    (root / "train").rename(root / "images")
    (root / TRAIN).rename(root / "all.json")
    return str(root / "all.json"), (6, 1)


def with_paths(root: Path) -> tuple[str, tuple[int, int]]:
    """Names of files that are paths on the machine of whoever annotated them."""
    for part in ("train", "val"):
        change(root, f"annotations/instances_{part}.json", _elsewhere)
    return str(root), (7, 3)


def _elsewhere(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["file_name"] = f"C:\\photos\\{image['file_name']}"


def three_parts(root: Path) -> tuple[str, tuple[int, int]]:
    """Where there is a test part, the others train."""
    for number in (10, 11):
        save_picture(root / f"test/p{number}.png", usual(number))
    (root / "annotations/instances_test.json").write_text(json.dumps(coco((10, 11))))
    return str(root), (10, 2)


@pytest.mark.parametrize("layout", [beside, years, one_file, with_paths, three_parts])
def test_annotations_and_pictures_are_found(
    root: Path, layout: Callable[[Path], tuple[str, tuple[int, int]]]
) -> None:
    path, sizes = layout(root)
    source = locate(path)
    assert (source.train, source.test) == sizes
    data = source.load()
    assert (len(data.train), len(data.test)) == sizes


def change(root: Path, file: str, how: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((root / file).read_text())
    how(content)
    (root / file).write_text(json.dumps(content))


def test_what_is_odd_is_told(root: Path) -> None:
    def odd(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = [5, 5, 0, 15]
        content["annotations"][1]["bbox"] = [50, 30, 40, 30]
        content["annotations"][2]["iscrowd"] = 1
        image = content["images"][3]["id"]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != image]
        content["categories"].append({"id": 99, "name": "violet"})
        del content["images"][0]["width"]

    change(root, TRAIN, odd)
    source = locate(str(root))
    notes = "\n".join(source.notes)
    assert (
        "dropped: 1 box that has no width or no height, such as 5 5 5 20 in "
        "instances_train.json, image 100, annotation 1"
    ) in notes
    assert "clipped: 1 box that reaches over the border" in notes
    assert "1 training object marked as difficult or a crowd" in notes
    assert "1 training picture without objects" in notes
    assert "no training picture has an object of violet" in notes
    data = source.load()
    assert data.classes == (*NAMES, "violet")
    assert data.train.offsets[:5].tolist() == [0, 1, 4, 6, 6]
    assert data.train.ignore.tolist()[:3] == [False, True, False]


def of(key: str, **values: Any) -> Callable[[Path], None]:
    """Change the fifth entry of a list in the training file; ... takes a value away."""

    def update(content: dict[str, Any]) -> None:
        entry = content[key][min(4, len(content[key]) - 1)]
        entry.update(values)
        for name in [name for name, value in values.items() if value is ...]:
            del entry[name]

    return lambda root: change(root, TRAIN, update)


def added(key: str, *others: dict[str, Any]) -> Callable[[Path], None]:
    return lambda root: change(root, TRAIN, lambda content: content[key].extend(others))


def without(key: str) -> Callable[[Path], None]:
    return lambda root: change(root, TRAIN, lambda content: content.pop(key))


def written(text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / TRAIN).write_text(text)

    return write


def one_folder(root: Path, then: Callable[[Path], None]) -> None:
    """The pictures of both parts in images/."""
    (root / "images").mkdir()
    for part in ("train", "val"):
        for path in (root / part).iterdir():
            path.rename(root / "images" / path.name)
    then(root)


MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no picture": (
        lambda root: (root / "train/p03.png").unlink(),
        r"train/p03.png of instances_train.json, image 103: No such file",
    ),
    "broken JSON": (
        written('{"images": ['),
        r"instances_train.json is broken JSON: Expecting value: line 1 column 13",
    ),
    "empty file": (written(""), r"instances_train.json is broken JSON: Expecting value"),
    "a list": (written("[]"), r"instances_train.json has no list of images"),
    "no annotations": (without("annotations"), r"has no list of annotations"),
    "no categories": (without("categories"), r"has no list of categories"),
    "no table": (
        lambda root: change(root, TRAIN, lambda content: content["images"].append("p.png")),
        r"'p.png' in images is no table",
    ),
    "unknown class": (of("annotations", category_id=77), r"annotation 5: there is no category 77"),
    "no class": (of("annotations", category_id=...), r"annotation 5: there is no category None"),
    "unknown image": (of("annotations", image_id=77), r"annotation 5: there is no image 77"),
    "odd image": (of("annotations", image_id=[1]), r"annotation 5: there is no image \[1\]"),
    "outside": (
        of("annotations", bbox=[70, 2, 20, 12]),
        r"image 101, annotation 5: its box 70 2 90 14 .* lies outside of train/p01.png",
    ),
    "no box": (of("annotations", bbox=...), r"annotation 5: its bbox is None"),
    "three numbers": (of("annotations", bbox=[1, 2, 3]), r"annotation 5: its bbox is \[1, 2, 3\]"),
    "no numbers": (
        of("annotations", bbox=[1, 2, "3", 4]),
        r"annotation 5: its bbox is \[1, 2, '3', 4\]",
    ),
    "not finite": (
        of("annotations", bbox=[1, 2, float("nan"), 4]),
        r"annotation 5: its box is 1 2 nan 6",
    ),
    "no flag": (of("annotations", iscrowd=7), r"annotation 5: iscrowd is 7"),
    "an annotation twice": (of("annotations", id=1), r"the id 1 is twice in annotations"),
    "no id": (of("images", id=...), r"entry 4 of images has the id None"),
    "an image twice": (of("images", id=100), r"the id 100 is twice in images"),
    "a file twice": (of("images", file_name="p00.png"), r"has two images with the file p00.png"),
    "no file": (of("images", file_name=None), r"image 104: its file_name is None"),
    "no size": (of("images", height="tall"), r"image 104: its size is \('tall', 64\)"),
    "another size": (
        of("images", height=96),
        r"image 104 says that train/p04.png is 96x64 px, .* it is 48x64",
    ),
    "a category twice": (
        added("categories", {"id": 99, "name": "red"}),
        r"has two categories 'red'",
    ),
    "a category of tests only": (
        lambda root: change(
            root,
            "annotations/instances_val.json",
            lambda content: content["categories"].append({"id": 7, "name": "reed"}),
        ),
        r"instances_val.json has a category 'reed', .*\ndid you mean 'red'\?",
    ),
    "a picture in both parts": (
        lambda root: one_folder(root, added("images", {"id": 9, "file_name": "p08.png"})),
        r"images/p08.png is in instances_train.json and in instances_val.json",
    ),
    "two files": (
        lambda root: (root / "annotations/instances_train2.json").write_text("{}") and None,
        r"two files of the part train: annotations/instances_train.json and annotations/inst",
    ),
    "nothing annotated": (
        lambda root: change(root, TRAIN, lambda content: content["annotations"].clear()),
        r"no training picture has an object to find",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence_with_the_file_and_the_value(root: Path, mistake: str) -> None:
    make, sentence = MISTAKES[mistake]
    make(root)
    with pytest.raises(UserError, match=sentence):
        locate(str(root)).load()


def test_another_file_is_no_file_of_annotations(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("p.png,1,2,3,4")
    with pytest.raises(UserError, match=r"boxes.csv' is no file of annotations\na folder in the"):
        locate(str(tmp_path / "boxes.csv"))
