"""Annotations in the form of Pascal VOC: read, checked and told."""

from pathlib import Path

import pytest
from annotated import usual, write_voc

from bam_search.tasks.detection.sources import locate
from bam_search.tasks.pictures.cache import VARIABLE

PARTS = {"train": range(5), "val": range(5, 7), "trainval": range(7), "test": range(7, 10)}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    write_voc(tmp_path / "squares", PARTS)
    return tmp_path / "squares"


def test_the_official_parts_are_taken_and_boxes_are_where_the_objects_are(root: Path) -> None:
    source = locate(str(root))
    assert (source.train, source.test) == (7, 3)
    assert "(trainval.txt, test.txt), 25 objects of 3 classes, at 48x64 px" in source.text
    assert source.inputs is not None
    assert (source.inputs.shape, source.inputs.classes) == ((3, 48, 64), 3)
    data = source.load()
    assert data.classes == ("blue", "green", "red")
    for number in range(7):
        objects = slice(*data.train.offsets[number : number + 2])
        names = [data.classes[label - 1] for label in data.train.labels[objects]]
        boxes = [tuple(box) for box in data.train.boxes[objects].tolist()]
        assert list(zip(names, boxes, strict=True)) == usual(number)
    assert not data.train.ignore.any()
