"""Parquet files as Hugging Face has them are read as a folder of images is."""

import builtins
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.pictures import cache

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


def encoded(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30 + number, 20), (number, 0, 0)).save(out, "PNG")
    return out.getvalue()


def save(
    path: Path,
    numbers: Sequence[int],
    image: str = "image",
    label: str = "label",
    names: Sequence[str] = ("ant", "bee"),
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        image: [{"bytes": encoded(number), "path": f"{number}.png"} for number in numbers],
        label: [number % 2 for number in numbers],
        "coarse_label": [0 for _ in numbers],
    }
    table = pa.table(columns)
    if names:
        features = {label: {"names": list(names), "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    parquet.write_table(table, path, row_group_size=3)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "test-00000.parquet"),
        (["data/train-0.parquet", "data/train-1.parquet"], "data/validation-0.parquet"),
        (["train/0000.parquet", "train/0001.parquet"], "valid/0000.parquet"),
    ],
)
def test_files_are_parts_by_their_names(tmp_path: Path, train: list[str], test: str) -> None:
    folder = tmp_path / "birds"
    save(folder / train[0], range(8), image="img", label="fine_label")
    save(folder / train[1], range(8, 16), image="img", label="fine_label")
    save(folder / test, range(20, 24), image="img", label="fine_label")
    for _ in range(2):  # read, and from the cache
        source = locate(str(folder))
        assert source.inputs == Inputs((3, 20, 20), 2)
        data = source.load()
        assert (data.name, data.classes) == ("birds", ("ant", "bee"))
        assert data.train.x[:, 9, 9, 0].tolist() == list(range(16))
        assert data.train.y.tolist() == [0, 1] * 8
        assert data.test.x[:, 9, 9, 0].tolist() == list(range(20, 24))


def test_one_file_without_a_part_is_split(tmp_path: Path) -> None:
    path = tmp_path / "birds.parquet"
    save(path, range(20), names=())
    source = locate(str(path))
    assert (source.train, source.test) == (16, 4)
    assert "one in 5 of each class" in source.text
    data = source.load()
    assert (data.name, data.classes) == ("birds", ("0", "1"))


def test_rows_without_an_image_are_named(tmp_path: Path) -> None:
    table = pa.table({"image": [encoded(0), None, b"no", encoded(3)], "label": [0, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "train.parquet")
    save(tmp_path / "test.parquet", range(4))
    with pytest.raises(UserError, match=r"2 pictures are unreadable: train.*, row 1: the row"):
        locate(str(tmp_path)).load()


WRONG: dict[str, tuple[dict[str, list[object]], str]] = {
    "no image": ({"text": ["a"], "label": [0]}, "has no column image; it has text, label"),
    "no label": ({"image": [b""], "caption": ["a"]}, "has no column label; it has image, caption"),
}


@pytest.mark.parametrize("what", WRONG)
def test_other_tables_are_one_sentence(tmp_path: Path, what: str) -> None:
    columns, message = WRONG[what]
    parquet.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=message):
        locate(str(tmp_path))


def test_a_broken_file_or_a_test_part_alone_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read"):
        locate(str(tmp_path))
    (tmp_path / "train.parquet").unlink()
    save(tmp_path / "test.parquet", range(4))
    with pytest.raises(UserError, match="has no training part, only test"):
        locate(str(tmp_path))


def test_without_pyarrow_a_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "train.parquet", range(4))
    usual = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="need pyarrow") as caught:
        locate(str(tmp_path))
    assert "[parquet]" in caught.value.hint


def test_pixels_are_the_same_as_those_of_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "table" / "train.parquet", range(8))
    save(tmp_path / "table" / "test.parquet", range(20, 24))
    for part, numbers in (("train", range(8)), ("test", range(20, 24))):
        for number in numbers:
            path = tmp_path / "files" / part / ("ant", "bee")[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(number))
    table, files = (locate(str(tmp_path / name)).load() for name in ("table", "files"))
    order = np.argsort(table.train.y, kind="stable")
    assert np.array_equal(table.train.x[order], files.train.x)
    assert table.classes == files.classes
