"""`--data` in its forms: what is read, how it is called, and what is refused in which words."""

import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bam_search.errors import UserError
from bam_search.model.load import Inputs, load
from bam_search.tasks.classification import array_source
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.load_task import load_task
from bam_search.tasks.task import Dataset, digests

Arrays = dict[str, np.ndarray]
CLASSES = 4


def arrays(n: int = 40, shape: tuple[int, ...] = (12, 10, 3)) -> Arrays:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    x[0].flat[0], x[0].flat[1] = 0, 255
    y = np.arange(n) % CLASSES
    return {"x_train": x, "y_train": y, "x_test": x[:8], "y_test": y[:8]}


def save(path: Path, **changes: np.ndarray) -> str:
    np.savez(path, **{**arrays(), **changes})
    return str(path)


def both(
    change: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...] = (12, 10, 3)
) -> Arrays:
    made = arrays(shape=shape)
    return {key: change(made[key]) for key in ("x_train", "x_test")}


FORMS: dict[str, Arrays] = {
    "plain": {},
    "channels first": both(lambda x: x.transpose(0, 3, 1, 2)),
    "floats to 1": both(lambda x: x.astype(np.float32) / 255),
    "floats to 255": both(lambda x: x.astype(np.float64)),
    "long integers": both(lambda x: x.astype(np.int64)),
    "labels in a column": {"y_train": arrays()["y_train"][:, None]},
    "labels from 1": {key: arrays()[key] + 1 for key in ("y_train", "y_test")},
    "labels with gaps": {key: arrays()[key] * 10 - 3 for key in ("y_train", "y_test")},
    "one-hot labels": {key: np.eye(CLASSES)[arrays()[key]] for key in ("y_train", "y_test")},
    "names": {key: np.array(list("abcd"))[arrays()[key]] for key in ("y_train", "y_test")},
}


@pytest.mark.parametrize("form", FORMS)
def test_an_npz_of_any_form_is_the_same_images(tmp_path: Path, form: str) -> None:
    source = locate(save(tmp_path / "mine.npz", **FORMS[form]))
    assert source.inputs == Inputs((3, 12, 10), CLASSES)
    assert (source.train, source.test) == (40, 8)
    data = source.load()
    assert data.name == "mine"
    assert np.array_equal(data.train.x, arrays()["x_train"])
    assert np.array_equal(data.test.y, arrays()["y_test"])


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (1, 28, 28)])
def test_grey_images_have_three_equal_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    source = locate(save(tmp_path / "grey.npz", **both(lambda x: x, shape)))
    assert "28x28 grey" in source.text
    assert ("channels first" in source.text) == (shape == (1, 28, 28))
    x = source.load().train.x
    assert x.shape == (40, 28, 28, 3)
    assert np.array_equal(x[..., 0], arrays(shape=shape)["x_train"].reshape(40, 28, 28))
    assert np.array_equal(x[..., 0], x[..., 2])


WRONG: dict[str, tuple[Arrays, str]] = {
    "four channels": (both(lambda x: np.repeat(x, 4, 3)[..., :4]), r"shape \(40, 12, 10, 4\)"),
    "vectors": (both(lambda x: x.reshape(len(x), -1)), r"shape \(40, 360\)"),
    "normalised": (both(lambda x: (x - 120.0) / 60), r"x_train has values from -2 to 2\.25"),
    "sixteen bits": (both(lambda x: x.astype(np.uint16) * 257), "from 0 to 65535"),
    "not a number": (both(lambda x: np.where(x == 255, np.nan, x)), "from nan to nan"),
    "truth values": (both(lambda x: x > 9), "x_train is of bool"),
    "no test": (
        {"x_test": np.zeros((0, 12, 10, 3), np.uint8), "y_test": np.zeros(0, int)},
        "x_test is empty",
    ),
    "too few labels": ({"y_train": np.zeros(39, int)}, r"shape \(39,\) for 40 images"),
    "labels of floats": ({"y_test": np.zeros(8)}, "y_test is float64"),
    "one class": ({"y_train": np.zeros(40, int)}, "y_train has 1 class"),
    "a foreign label": ({"y_test": np.arange(8)}, "y_test has label 4"),
    "coarse labels": ({"y_test": np.zeros(8, int)}, "y_test has only 1 of .* 4 classes"),
    "objects": ({"y_train": np.array([None] * 40)}, "allow_pickle"),
    "two sizes": ({"x_test": np.zeros((8, 9, 9, 3), np.uint8)}, "12x10, test images 9x9"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_npz_is_one_sentence(tmp_path: Path, what: str) -> None:
    changes, message = WRONG[what]
    with pytest.raises(UserError, match=message) as caught:
        locate(save(tmp_path / "a.npz", **changes)).load()
    assert "a.npz" in caught.value.message
    assert "\n" not in caught.value.message


def _archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO())


def _truncated(path: Path) -> None:
    path.write_bytes(Path(save(path.with_name("b.npz"))).read_bytes()[:-5000])


def _corrupted(path: Path) -> None:
    content = bytearray(Path(save(path.with_name("b.npz"))).read_bytes())
    content[5000:5100] = bytes(range(100))
    path.write_bytes(content)


def _images(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train/ant/1.jpeg", b"")


def _of(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


BROKEN: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "empty": ("a.npz", _of(b""), r"is no \.npz", "it is empty"),
    "text": ("a.npz", _of(b"not a zip"), r"is no \.npz", "cut off or broken"),
    "an archive": ("a.tar.gz", _archive, r"is no \.npz", "unpack it, and give the folder"),
    "images": ("a.zip", _images, "is an archive of images", "unpack it, and give the folder"),
    "an image": ("a.JPG", _of(b"JPEG"), r"is no \.npz", "that is one image: give the folder"),
    "matlab's": ("a.mat", _of(b"MATLAB 5.0"), r"is no \.npz", "write a function that reads it"),
    "hdf5": ("a.h5", _of(b"HDF"), r"is no \.npz", "write a function that reads it"),
    "a pickle": ("a.pkl", _of(b"\x80"), r"is no \.npz", "write a function that reads it"),
    "a table": ("a.csv", _of(b"1.png,a"), r"is no \.npz", "a folder of its own"),
    "one array": ("a.npy", _of(b"\x93NUMPY"), r"is no \.npz", "np.savez.* x_train"),
    "other keys": (
        "a.npz",
        lambda path: np.savez(path, x=np.zeros(3)),
        "no x_train; it has x",
        "x_train",
    ),
    "truncated": ("a.npz", _truncated, r"is no \.npz", "cut off or broken"),
    "corrupted": ("a.npz", _corrupted, "cannot be read: the checksum of x_train", "x_train"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_one_sentence(tmp_path: Path, what: str) -> None:
    name, make, message, hint = BROKEN[what]
    make(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        locate(str(tmp_path / name)).load()
    assert re.search(hint, caught.value.hint)


def test_uneven_classes_of_an_npz_are_told(tmp_path: Path) -> None:
    y = np.array([0] * 20 + [1] * 9 + [2] * 6 + [3] * 5)
    source = locate(save(tmp_path / "mine.npz", y_train=y, y_test=np.array([0, 1, 2] * 2 + [0, 0])))
    assert source.notes == (
        "classes are uneven: 0 has 20 training images, 3 has 5",
        "the test set has no image of 3",
    )
    assert not locate(save(tmp_path / "even.npz")).notes


def test_a_data_set_is_called_cifar_100_only_if_it_is_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = np.zeros((50_000, 32, 32, 3), np.uint8), np.arange(50_000) % 100
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])
    data = locate(str(path)).load()
    assert data.name == "mine"
    assert data.digest == Dataset("", "", data.train, data.test).digest
    monkeypatch.setattr(array_source, "CIFAR_TRAIN", digests(data.train)[0])
    assert locate(str(path)).load().name == "CIFAR-100"


def test_the_task_and_the_spaces_follow_the_data(tmp_path: Path) -> None:
    source = locate(save(tmp_path / "mine.npz"))
    task = load_task("classification", source.inputs)
    assert task.inputs == source.inputs
    assert task.metric.chance == 75
    space = load("small", task.inputs)
    assert (space.input_shape, space.classes) == ((3, 12, 10), CLASSES)
    net = space.backbone(space.classes).eval()
    assert net(torch.zeros(1, 3, 12, 10)).shape == (1, CLASSES)
    with pytest.raises(UserError, match="for images of 224x224 pixels, and these have 12x10"):
        load("imagenet_resnet50", task.inputs)


FUNCTIONS = """
import numpy as np
from torch.utils.data import TensorDataset
import torch

def table():
    x = np.arange(6 * 8 * 8 * 3).reshape(6, 8, 8, 3) % 256
    y = np.arange(6) % 2
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y}

def sets():
    x = torch.arange(6 * 3 * 8 * 8).reshape(6, 3, 8, 8) % 256
    part = TensorDataset(x, torch.arange(6) % 2)
    return part, part

def nothing():
    return None

def less():
    return {"x_train": 1}

def broken():
    return 1 / 0

def mixed():
    class Sizes:
        def __len__(self):
            return 2
        def __getitem__(self, n):
            return np.zeros((4 + n, 4, 3)), n
    return Sizes(), Sizes()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.mark.parametrize("function", ["table", "sets"])
def test_a_function_gives_arrays_or_data_sets(file: Path, function: str) -> None:
    source = locate(f"{file}:{function}")
    assert source.inputs == Inputs((3, 8, 8), 2)
    assert source.load().train.y.tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "returned a NoneType"),
        ("less", "a dict without y_train"),
        ("broken", "failed: ZeroDivisionError"),
        ("tabel", "no function 'tabel'"),
    ],
)
def test_what_a_function_may_not_give_is_said(file: Path, function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        locate(f"{file}:{function}")


def test_torchvisions_data_sets_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = locate("torchvision:FakeData")
    assert source.inputs == Inputs((3, 32, 32), 10)
    assert source.load().name == "torchvision:FakeData"
    with pytest.raises(UserError, match="no data set 'FakeDat'") as caught:
        locate("torchvision:FakeDat")
    assert "FakeData" in caught.value.hint
    for name in ("ImageFolder", "EMNIST"):
        with pytest.raises(UserError, match=f"torchvision:{name} cannot be had"):
            locate(f"torchvision:{name}")
