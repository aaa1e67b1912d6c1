"""Data come from where they are said to, broken files are one sentence, and the split is fair."""

import urllib.error
from pathlib import Path

import numpy as np
import pytest

from bam_search.errors import UserError
from bam_search.tasks.classification import cifar100, sources
from bam_search.tasks.classification.cifar100 import SYNTHETIC
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.classification.stratified import split_stratified
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Split


def save(path: Path) -> Path:
    labels, pixels = np.arange(200) % 100, np.zeros((200, 32, 32, 3), dtype=np.uint8)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:100], y_test=labels[:100])
    return path


def test_a_changed_torchvision_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for path in (folder, tmp_path):
        with pytest.raises(UserError, match="cannot be read as CIFAR-100"):
            locate(str(path)).load()


@pytest.mark.parametrize("path", ["nowhere.npz", "."])
def test_a_path_without_data_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such file or folder|\. has no images"):
        locate(path)


def _no_network(*_args: object, download: bool, **_options: object) -> None:
    assert download
    Path("data").mkdir()
    raise urllib.error.URLError("no network")


def test_without_a_network_only_auto_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar100, "CIFAR100", _no_network)
    monkeypatch.setattr(cifar100, "generate_images", lambda: generate_images(200, 100))
    fallen = locate("auto").load()
    assert fallen.name == SYNTHETIC
    assert "no network" in fallen.origin
    with pytest.raises(UserError, match="the download failed: <urlopen error no network>"):
        locate("cifar100").load()
    assert list(tmp_path.iterdir()) == []


def test_the_data_folder_comes_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    save(Path("data/cifar100.npz"))
    assert locate("auto").load().origin == locate("cifar100").load().origin == "data/cifar100.npz"


def test_a_broken_file_in_the_data_folder_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/cifar100.npz").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"is no \.npz"):
        locate("auto")


def test_generated_images_are_the_same_every_time_and_balanced() -> None:
    x, y, x_test, y_test = generate_images(1200, 400)
    again = generate_images(400, 0)
    assert x.shape == (1200, 32, 32, 3)
    assert x_test.shape == (400, 32, 32, 3)
    assert x.dtype == np.uint8
    assert set(np.bincount(y)) == {12}
    assert set(np.bincount(y_test)) == {4}
    assert np.array_equal(x[:400], again[0])
    assert len(np.unique(x.reshape(1200, -1), axis=0)) == 1200


def tagged(n: int, classes: int = 100) -> Dataset:
    """Images whose first two bytes are their number, so that a split can be traced."""
    x = np.zeros((n, 32, 32, 3), np.uint8)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = np.arange(n) % 256, np.arange(n) // 256
    images = Images(x, np.random.default_rng(0).permutation(np.arange(n) % classes))
    return Dataset("tagged", "", images, images)


def numbers(images: Images) -> list[int]:
    return [int(a) + 256 * int(b) for a, b in images.x[:, 0, 0, :2]]


def split(images: int | None, validation: float, seed: int = 1, total: int = 5000) -> Split:
    return sources.task().split(tagged(total), SplitSizes.of(total, images, validation), seed)


@pytest.mark.parametrize(
    ("images", "validation", "fit", "held_out"),
    [
        (2000, 0.1, 2000, 500),  # there are enough others
        (4500, 0.1, 4500, 500),
        (4700, 0.1, 4500, 500),  # 200 of the 500 would train
        (None, 0.1, 4500, 500),
        (2000, 1050, 2000, 1050),
        (4000, 1050, 3950, 1050),
    ],
)
def test_the_search_is_validated_on_images_that_train_nobody_as_far_as_there_are_any(
    images: int | None, validation: float, fit: int, held_out: int
) -> None:
    parts = split(images, validation)
    assert (len(parts.fit), len(parts.validation)) == (fit, held_out)
    fits, held, trains = map(numbers, (parts.fit, parts.validation, parts.train))
    assert len(set(trains)) == (images or 5000)
    assert not set(fits) & set(held)
    # What trains finalists is what trains the search, and what validation had to take of it.
    assert trains[:fit] == fits
    assert set(trains[fit:]) <= set(held)
    for part in (parts.fit, parts.validation, parts.train):
        assert np.ptp(np.bincount(part.y, minlength=100)) <= 2


def test_nothing_is_copied_where_finalists_train_as_the_search_does() -> None:
    same, shared = split(2000, 0.1), split(None, 0.1)
    assert same.train is same.fit
    assert np.shares_memory(shared.train.x, shared.fit.x)


def test_the_split_is_fixed_by_the_seed_and_more_images_contain_fewer() -> None:
    parts = split(2000, 0.1)
    assert numbers(split(2000, 0.1).fit) == numbers(parts.fit)
    assert numbers(split(2000, 0.1, seed=2).fit) != numbers(parts.fit)
    more = split(3000, 0.1)
    assert numbers(more.fit)[:2000] == numbers(parts.fit)
    assert numbers(more.validation) == numbers(parts.validation)
    whole = tagged(5000).train
    assert list(parts.fit.y) == [whole.y[number] for number in numbers(parts.fit)]


def test_classes_of_different_sizes_have_their_share_of_each_part() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    images = Images(np.zeros((1000, 2, 2, 3), np.uint8), labels)
    sizes = SplitSizes.of(1000, 500, 0.2)
    parts = split_stratified(Dataset("uneven", "", images, images), 3, sizes, seed=0)
    for part in (parts.fit, parts.validation):
        expected = np.array([0.6, 0.3, 0.1]) * len(part)
        assert np.abs(np.bincount(part.y) - expected).max() <= 1


@pytest.mark.parametrize(
    ("images", "validation", "message"),
    [
        (5001, 0.1, "data.images = 5001, but the training set has 5000"),
        (None, 4950, "50 to train in the search and 4950 to validate"),
        (90, 0.1, "90 to train in the search and 500 to validate"),
        (1000, 0.01, "1000 to train in the search and 50 to validate"),
        (1000, 5000, " 0 to train"),
        (1000, 6000, " 0 to train in the search and 6000 to validate"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    images: int | None, validation: float, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        split(images, validation)


def test_the_real_cifar100(real_cifar: Path) -> None:
    dataset = locate(str(real_cifar)).load()
    assert dataset.name == "cifar100"  # a part of it, which is not the data set
    assert dataset.test.x.shape == (10_000, 32, 32, 3)
    assert set(np.bincount(dataset.test.y)) == {100}
    assert 100 < dataset.train.x.mean() < 140
