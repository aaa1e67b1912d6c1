"""Annotations in the form of Pascal VOC: read, checked and told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from annotated import save_picture, usual, write_voc, xml

from bam_search.errors import UserError
from bam_search.tasks.detection.sources import locate
from bam_search.tasks.pictures.cache import VARIABLE
from bam_search.tasks.reading import Reading

PARTS = {"train": range(5), "val": range(5, 7), "trainval": range(7), "test": range(7, 10)}


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_voc(tmp_path / "squares", PARTS)
    return tmp_path / "squares"


def annotate(root: Path, number: int, text: str) -> None:
    (root / f"Annotations/p{number:02}.xml").write_text(text)


def test_the_official_parts_are_taken_and_boxes_are_where_the_objects_are(root: Path) -> None:
    source = locate(str(root))
    assert (source.train, source.test) == (7, 3)
    assert "(trainval.txt, test.txt), 25 objects of 3 classes, at 48x64 px" in source.text
    assert source.inputs is not None
    assert (source.inputs.shape, source.inputs.classes) == ((3, 48, 64), 4)
    data = source.load()
    assert data.classes == ("blue", "green", "red")
    for number in range(7):
        objects = slice(*data.train.offsets[number : number + 2])
        names = [data.classes[label - 1] for label in data.train.labels[objects]]
        boxes = [tuple(box) for box in data.train.boxes[objects].tolist()]
        assert list(zip(names, boxes, strict=True)) == usual(number)
    assert not data.train.ignore.any()


def test_boxes_are_scaled_with_their_picture(root: Path) -> None:
    half = locate(str(root), Reading(size=(24, 48))).load().train
    whole = locate(str(root)).load().train
    assert half.x.shape == (7, 24, 48, 3)
    assert half.boxes.tolist() == (whole.boxes / 2).tolist()
    assert half.content[0].tolist() == [24, 32]


def test_a_large_picture_is_scaled_down_to_what_auto_takes_and_keeps_its_form(root: Path) -> None:
    source = locate(str(root), Reading(largest=16))
    assert source.inputs is not None
    assert source.inputs.shape == (3, 30, 40)
    assert "48x64, scaled down" in source.text


@pytest.mark.parametrize(
    ("lists", "sizes", "words"),
    [
        (("train", "val", "test"), (7, 3), "(train.txt + val.txt, test.txt)"),
        (("train", "val"), (5, 2), "(train.txt, val.txt)"),
        (("trainval",), (6, 1), "(one in 5 to test, chosen by its contents"),
        ((), (8, 2), "(one in 5 to test, chosen by its contents"),
    ],
)
def test_parts_are_what_the_lists_say(
    root: Path, lists: tuple[str, ...], sizes: tuple[int, int], words: str
) -> None:
    for name in set(PARTS) - set(lists):
        (root / f"ImageSets/Main/{name}.txt").unlink()
    source = locate(str(root))
    assert (source.train, source.test) == sizes
    assert words in source.text


def test_without_parts_each_class_is_in_both_and_names_do_not_matter(tmp_path: Path) -> None:
    write_voc(tmp_path / "one", {}, 12)
    write_voc(tmp_path / "two", {}, 12)
    for folder, ending in (("Annotations", "xml"), ("JPEGImages", "png")):
        for path in sorted((tmp_path / "two" / folder).iterdir()):
            path.rename(path.with_name(f"{99 - int(path.stem[1:])}.{ending}"))
    one, two = (locate(str(tmp_path / name)).load() for name in ("one", "two"))
    assert set(one.train.labels) == set(one.test.labels) == {1, 2, 3}
    assert len(one.test) == len(two.test)
    pixels = [sorted(picture.tobytes() for picture in data.test.x) for data in (one, two)]
    assert pixels[0] == pixels[1]


def test_an_xml_file_beside_each_picture_in_folders_of_parts(tmp_path: Path) -> None:
    write_voc(tmp_path / "all", {}, 10)
    for part, numbers in (("train", range(6)), ("valid", range(6, 8)), ("test", range(8, 10))):
        (tmp_path / "parts" / part).mkdir(parents=True)
        for number in numbers:
            for file in (f"JPEGImages/p{number:02}.png", f"Annotations/p{number:02}.xml"):
                shutil.copy(tmp_path / "all" / file, tmp_path / "parts" / part)
    source = locate(str(tmp_path / "parts"))
    assert (source.train, source.test) == (8, 2)
    assert "(train/ + valid/, test/)" in source.text
    assert len(source.load().train.labels) == sum(len(usual(number)) for number in range(8))


def test_an_xml_file_beside_each_picture_in_one_folder(tmp_path: Path) -> None:
    write_voc(tmp_path / "all", {}, 10)
    for path in [*(tmp_path / "all/JPEGImages").iterdir(), *(tmp_path / "all").glob("*/*.xml")]:
        path.rename(tmp_path / path.name)
    assert locate(str(tmp_path)).train == 8


def test_what_is_odd_is_told(root: Path) -> None:
    degenerate, over = ("red", (5, 5, 5, 20)), ("red", (50, 30, 90, 60))
    annotate(root, 0, xml([*usual(0), degenerate, over]))
    annotate(root, 1, xml([]))
    annotate(root, 2, xml(usual(2), more="<difficult>1</difficult>"))
    source = locate(str(root))
    notes = "\n".join(source.notes)
    assert (
        "dropped: 1 box that has no width or no height, such as 5 5 5 20 in Annotations/p00.xml, "
        "object 3"
    ) in notes
    assert (
        "clipped: 1 box that reaches over the border of the picture, such as 50 30 90 60 in "
        "Annotations/p00.xml, object 4"
    ) in notes
    assert "1 training picture without objects" in notes
    assert "2 training objects marked as difficult or a crowd" in notes
    assert "classes are uneven: red has 6 training objects, blue has 2" in notes
    data = source.load()
    assert data.train.offsets[:4].tolist() == [0, 3, 3, 5]
    assert data.train.boxes[2].tolist() == [50, 30, 64, 48]
    assert data.train.ignore.tolist() == [False] * 3 + [True] * 2 + [False] * 10


def test_a_box_that_is_over_by_a_rounded_pixel_is_nothing_to_tell(root: Path) -> None:
    annotate(root, 0, xml([("red", (-1, 0, 20, 20))]))
    source = locate(str(root))
    assert "clipped" not in "\n".join(source.notes)
    assert source.load().train.boxes[0].tolist() == [0, 0, 20, 20]


def test_equal_annotations_have_one_digest_and_others_another(root: Path) -> None:
    before = locate(str(root)).load()
    assert locate(str(root)).load().digest == before.digest
    annotate(root, 0, xml([("red", (0, 2, 13, 14)), *usual(0)[1:]]))
    assert locate(str(root)).load().digest != before.digest


def broken(text: str) -> Callable[[Path], None]:
    return lambda root: annotate(root, 3, text)


def removed(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def listed(name: str, line: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / f"ImageSets/Main/{name}.txt"
        path.write_text(path.read_text() + line)

    return change


def swapped(root: Path) -> None:
    save_picture(root / "JPEGImages/p03.png", [], (64, 48))


ONE = xml([("red", (1, 2, 3, 4))])
MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no picture": (
        removed("JPEGImages/p03.png"),
        r"1 picture is missing or unreadable: JPEGImages/p03 of Annotations/p03.xml: No such file",
    ),
    "no annotation": (
        removed("Annotations/p03.xml"),
        r"trainval.txt names p03, and there is no Annotations/p03.xml",
    ),
    "broken XML": (broken(ONE[:-20]), r"Annotations/p03.xml is broken XML: .*column"),
    "empty file": (broken(""), r"Annotations/p03.xml is broken XML: no element found"),
    "not an annotation": (broken("<svg/>"), r"Annotations/p03.xml .*<svg>"),
    "no class": (
        broken(ONE.replace("<name>red</name>", "")),
        r"Annotations/p03.xml, object 1 has no name of a class",
    ),
    "no corner": (
        broken(ONE.replace("<ymax>4</ymax>", "")),
        r"Annotations/p03.xml, object 1 \(red\) has no ymax",
    ),
    "no number": (
        broken(ONE.replace(">4<", ">four<")),
        r"object 1 \(red\): its box is xmin=1 ymin=2 xmax=3 ymax=four",
    ),
    "not finite": (broken(xml([("red", (1, 2, 3, float("nan")))])), r"its box is 1 2 3 nan"),
    "no flag": (
        broken(xml([("red", (1, 2, 3, 4))], more="<difficult>maybe</difficult>")),
        r"object 1 \(red\): difficult is 'maybe'",
    ),
    "outside": (
        broken(xml([("red", (70, 2, 90, 14))])),
        r"Annotations/p03.xml, object 1: its box 70 2 90 14 .* lies outside of JPEGImages/p03.png",
    ),
    "another size": (
        broken(xml([("red", (1, 2, 3, 4))], (96, 128))),
        r"Annotations/p03.xml says that JPEGImages/p03.png is 96x128 px, .* it is 48x64",
    ),
    "turned": (swapped, r"Annotations/p03.xml says that .* is 48x64 px, .* it is 64x48"),
    "unknown class": (
        lambda root: annotate(root, 8, xml([("reed", (1, 2, 3, 4))])),
        r"Annotations/p08.xml, object 1: class 'reed' is unknown, .*\ndid you mean 'red'\?",
    ),
    "named twice": (listed("trainval", "p00\n"), r"trainval.txt has p00 twice"),
    "in both parts": (listed("test", "p00\n"), r"p00 is in trainval.txt and in test.txt"),
    "no picture of that name": (
        listed("test", "p77\n"),
        r"test.txt names p77, and there is no Annotations/p77.xml",
    ),
    "empty list": (
        lambda root: (root / "ImageSets/Main/test.txt").write_text("\n") and None,
        r"test.txt is empty",
    ),
    "nothing annotated": (
        lambda root: [annotate(root, number, xml([])) for number in range(10)] and None,
        r"no training picture has an object to find",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence_with_the_file_and_the_value(root: Path, mistake: str) -> None:
    make, sentence = MISTAKES[mistake]
    make(root)
    with pytest.raises(UserError, match=sentence):
        locate(str(root)).load()


def test_missing_and_broken_pictures_are_left_out_if_one_says_so(root: Path) -> None:
    (root / "JPEGImages/p03.png").unlink()
    path = root / "JPEGImages/p08.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"set data.skip_unreadable=true"):
        locate(str(root)).load()
    data = locate(str(root), Reading(skip_unreadable=True)).load()
    assert (len(data.train), len(data.test)) == (6, 2)
    assert len(data.train.labels) == sum(len(usual(number)) for number in range(7) if number != 3)
    assert "2 pictures are missing or unreadable and left out" in data.notes[0]


def test_it_is_said_where_the_annotations_may_be(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit/VOC2007", PARTS)
    with pytest.raises(UserError, match=r"did you mean .*VOCdevkit/VOC2007\?"):
        locate(str(tmp_path / "VOCdevkit"))
    (tmp_path / "yolo/labels").mkdir(parents=True)
    (tmp_path / "yolo/labels/p.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(UserError, match=r"YOLO's labels/\*.txt are not read"):
        locate(str(tmp_path / "yolo"))
    with pytest.raises(UserError, match="there is no such file or folder"):
        locate(str(tmp_path / "nowhere"))
