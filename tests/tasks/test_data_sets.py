"""Data sets of torchvision's and of a user's, whose images have one size, several, or are files."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from photos import save

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.pictures import cache
from bam_search.tasks.reading import Reading

Item = tuple[object, object]


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def food(folder: Path) -> None:
    """Food-101 as torchvision unpacks it, of two classes."""
    meta = folder / "food-101" / "meta"
    meta.mkdir(parents=True)
    for part, first in (("train", 0), ("test", 40)):
        names = {
            name: [f"{name}/{first + 10 * i + j}" for j in range(4)]
            for i, name in enumerate(("apple_pie", "waffles"))
        }
        (meta / f"{part}.json").write_text(json.dumps(names))
        for name in itertools.chain(*names.values()):
            number = int(name.split("/")[1])
            save(folder / "food-101" / "images" / f"{name}.jpg", number, (40 + number, 40))


def test_files_of_torchvisions_are_packed_as_those_of_a_folder(tmp_path: Path) -> None:
    food(tmp_path / "data")
    source = locate("torchvision:Food101")
    assert source.inputs == Inputs((3, 40, 40), 2)
    assert "8 images to train and 8 to test (its own parts), 2 classes, at 40x40 px" in source.text
    data = source.load()
    assert (data.name, data.classes) == ("torchvision:Food101", ("apple_pie", "waffles"))
    assert data.train.y.tolist() == [0] * 4 + [1] * 4
    assert isinstance(data.train.stored, np.memmap)
    assert abs(data.test.x[:, 20, 20, 2].astype(int) - 3 * np.r_[40:44, 50:54]).max() < 4
    (tmp_path / "data" / "food-101" / "images" / "waffles" / "11.jpg").unlink()
    with pytest.raises(UserError, match=r"1 picture is unreadable: .*11\.jpg: No such file"):
        locate("torchvision:Food101").load()


def test_a_set_without_parts_is_split_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole:
        classes = ("ant", "bee")

        def __init__(self, root: str, loader: object = None) -> None:
            self.load = loader or np.zeros_like
            self.paths = [Path(root) / f"{number}.png" for number in range(20)]
            for number, path in enumerate(self.paths):
                save(path, number)

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, number: int) -> Item:
            return self.load(self.paths[number]), number % 2  # type: ignore[operator]

    class Hidden(Whole):
        def __init__(self, root: str) -> None:
            super().__init__(root)

    monkeypatch.setattr("torchvision.datasets.EuroSAT", Whole)
    source = locate("torchvision:EuroSAT")
    assert (source.train, source.test) == (16, 4)
    assert "one in 5 of each class" in source.text
    assert np.bincount(source.load().test.y).tolist() == [2, 2]
    monkeypatch.setattr("torchvision.datasets.EuroSAT", Hidden)
    with pytest.raises(UserError, match="torchvision:EuroSAT has no test part"):
        locate("torchvision:EuroSAT")


def test_the_parts_of_a_set_have_several_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Parts(list[Item]):
        def __init__(self, split: str, download: bool = False) -> None:
            asked.append((split, download))
            if split not in ("trainval", "valid"):
                raise ValueError(f"Unknown value {split!r}")
            if not download:
                raise RuntimeError("not found")
            super().__init__((np.full((8, 8), 9 * n, np.uint8), n % 2) for n in range(6))

    monkeypatch.setattr("torchvision.datasets.DTD", Parts)
    assert locate("torchvision:DTD").train == 6
    assert ("trainval", True) in asked
    assert ("valid", True) in asked
    assert ("train", True) not in asked


FUNCTIONS = """
import numpy as np, torch
from PIL import Image

def items(kind):
    for n in range(12):
        shape = (20, 30 + n) if kind != "same" else (20, 30)
        level = np.full((*shape, 3), 10 * n, np.uint8)
        picture = Image.fromarray(level)
        if kind == "palette":
            picture = picture.convert("P", palette=Image.Palette.ADAPTIVE)
        if kind == "array":
            picture = level
        if kind == "tensor":
            picture = torch.from_numpy(level).permute(2, 0, 1)
        if kind == "late" and n < 5:
            picture = picture.resize((30, 20))
        yield picture, n % 3

def of(kind):
    return lambda: (list(items(kind)), list(items(kind))[:6])

same, sizes, palette, array, tensor = map(of, ("same", "sizes", "palette", "array", "tensor"))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def test_pictures_of_one_size_stay_as_they_are(file: Path) -> None:
    source = locate(f"{file}:same")
    assert source.inputs == Inputs((3, 20, 30), 3)
    assert source.load().train.x[:, 0, 0, 0].tolist() == list(range(0, 120, 10))


@pytest.mark.parametrize("kind", ["sizes", "palette", "array", "tensor"])
def test_images_of_several_sizes_are_made_of_one(file: Path, kind: str) -> None:
    source = locate(f"{file}:{kind}")
    assert source.inputs == Inputs((3, 20, 20), 3)
    assert "at 20x20 px: the median is 20 px" in source.text
    data = source.load()
    assert data.train.x.shape == (12, 20, 20, 3)
    assert isinstance(data.train.stored, np.memmap)
    assert data.train.x[:, 9, 9, 1].tolist() == list(range(0, 120, 10))
    assert data.test.y.tolist() == [0, 1, 2] * 2


def test_a_size_that_comes_late_is_no_surprise(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bam_search.tasks.classification.data_sets.LOOKED_AT", 1)
    assert locate(f"{file}:sizes").load().train.x.shape == (12, 20, 20, 3)


def test_arrays_are_resized_where_the_study_says_so() -> None:
    x = np.zeros((6, 100, 80, 3), np.uint8)
    x[:, :, 40:] = 200
    y = np.arange(6) % 2
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    own = locate("mine.npz").load()
    assert own.train.x.shape == (6, 100, 80, 3)

    def at(size: int | tuple[int, int]) -> tuple[object, Sequence[int]]:
        source = locate("mine.npz", Reading(size))
        data = source.load()
        assert data.train.y.tolist() == y.tolist()
        assert (data.digest == own.digest) == (data.train.x.shape == own.train.x.shape)
        assert data.train.x[0, 0, 0, 0] == 0
        assert data.train.x[0, 0, -1, 0] == 200
        return source.inputs, data.train.x.shape[1:3]

    assert at(32) == (Inputs((3, 32, 32), 2), (32, 32))
    assert at(64) == (Inputs((3, 64, 64), 2), (80, 80))
    assert at(76) == (Inputs((3, 76, 76), 2), (80, 80))
    assert at(128) == (Inputs((3, 128, 128), 2), (128, 128))
    assert at((100, 80)) == (Inputs((3, 100, 80), 2), (100, 80))
    assert "mine.npz, at 32x32 px: data.size" in locate("mine.npz", Reading(32)).load().origin
