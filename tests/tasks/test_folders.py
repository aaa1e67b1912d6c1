"""A folder of images becomes a data set: its parts, its classes, its size, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from photos import CLASSES, fill, save

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.pictures import cache
from bam_search.tasks.reading import Reading


@pytest.fixture(autouse=True)
def cache_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(cache.VARIABLE, str(folder))
    return folder


def test_a_training_and_a_test_part_are_read_in_the_order_of_their_classes(photos: Path) -> None:
    source = locate(str(photos))
    assert source.inputs == Inputs((3, 20, 24), 3)
    assert (source.train, source.test) == (12, 6)
    assert "12 images to train and 6 to test (train/ and val/), 3 classes, at 20x24" in source.text
    data = source.load()
    assert (data.name, data.classes) == ("photos", CLASSES)
    assert data.train.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.train.x[:, 0, 0].tolist() == [[n, 2 * n, 3 * n] for n in range(12)]
    assert data.test.x[:, 9, 9, 0].tolist() == list(range(40, 46))
    assert isinstance(data.train.stored, np.memmap)
    assert not data.train.stored.flags.writeable


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("training", "valid"), ("Train", "validation"), ("train", "VAL")],
)
def test_parts_have_several_names(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / train, 2)
    fill(tmp_path / test, 1, first=20)
    assert f"({train}/ and {test}/)" in locate(str(tmp_path)).text


def test_a_class_of_trains_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, 5, classes=("car", "train"))
    assert locate(str(tmp_path)).load().classes == ("car", "train")


def test_a_test_part_comes_before_a_validation_part_and_that_is_said(photos: Path) -> None:
    fill(photos / "test", 1, first=60)
    source = locate(str(photos))
    assert "train/ and test/" in source.text
    assert "not used: val/" in source.notes
    (photos / "test").rename(photos / "rest")
    (photos / "test").mkdir()
    save(photos / "test" / "unlabelled.png", 99)
    assert "train/ and val/" in locate(str(photos)).text


def test_one_folder_of_classes_is_split_by_contents_alone(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    fill(folder, 10)
    source = locate(str(folder))
    assert (source.train, source.test) == (24, 6)
    assert "one in 5 of each class" in source.text
    data = source.load()
    assert np.bincount(data.test.y).tolist() == [2, 2, 2]
    chosen = {int(pixel[0, 0, 0]) for pixel in data.test.x}
    for path in folder.glob("*/*.png"):
        path.rename(path.with_name(f"a{path.name[::-1]}.png"))
    again = locate(str(folder)).load()
    assert {int(pixel[0, 0, 0]) for pixel in again.test.x} == chosen


def test_equal_pictures_lie_in_one_part_of_a_split(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for copy in range(20):
        save(tmp_path / "ant" / f"copy{copy}.png", 0)
    data = locate(str(tmp_path)).load()
    train, test = ({tuple(pixel[0, 0]) for pixel in part.x} for part in (data.train, data.test))
    assert not train & test


def test_what_lies_about_is_told(photos: Path) -> None:
    (photos / "train" / "ant" / "notes.txt").write_text("an ant")
    (photos / "train" / "ant" / ".DS_Store").write_text("")
    save(photos / "train" / "bee" / ".thumbs" / "000.png", 0)
    save(photos / "train" / "bee" / "__MACOSX" / "000.png", 0)
    save(photos / "train" / ".git" / "000.png", 0)
    save(photos / "train" / "cat" / "night" / "deep.png", 30)
    save(photos / "train" / "stray.png", 31)
    source = locate(str(photos))
    assert source.train == 13
    left, nested = source.notes[:2]
    assert left.startswith("left out: 5 files that are no images (train/ant/")
    assert nested == "1 image in folders below that of a class count as that class's"


def test_a_link_to_a_folder_is_followed_but_not_in_circles(photos: Path, tmp_path: Path) -> None:
    fill(tmp_path / "more", 1, first=80)
    (photos / "train" / "ant" / "more").symlink_to(tmp_path / "more")
    (photos / "train" / "ant" / "up").symlink_to(photos / "train" / "ant")
    assert locate(str(photos)).train == 15


def test_uneven_classes_and_pictures_in_both_parts_are_told(photos: Path) -> None:
    for number in range(70, 79):
        save(photos / "train" / "bee" / f"{number}.png", number, size=(9 * (number - 60), 30))
    save(photos / "test" / "ant" / "001.png", 1)
    save(photos / "test" / "bee" / "005.png", 5)
    notes = "\n".join(locate(str(photos)).notes)
    assert "pictures are 20x24 to 30x162 px, height x width; the median is 20x24" in notes
    assert "bee has 13 training images, ant has 4" in notes
    assert "2 test pictures are training pictures too, byte for byte, such as test/ant/001" in notes
    assert "the test set has no image of cat" in notes


def empty(folder: Path) -> None:
    folder.mkdir()


def no_images(folder: Path) -> None:
    (folder / "train" / "ant").mkdir(parents=True)
    (folder / "train" / "ant" / "a.txt").write_text("")


def flat(folder: Path) -> None:
    save(folder / "1.png", 1)
    (folder / "labels.csv").write_text("1.png,ant")


def flat_parts(folder: Path) -> None:
    save(folder / "train" / "1.png", 1)
    save(folder / "val" / "2.png", 2)


def one_class(folder: Path) -> None:
    fill(folder / "train", 2, classes=("ant",))


def one_too_high(folder: Path) -> None:
    fill(folder / "photos" / "train", 2)
    fill(folder / "photos" / "val", 2, first=20)


def empty_class(folder: Path) -> None:
    fill(folder, 2)
    (folder / "dog").mkdir()


def foreign_class(folder: Path) -> None:
    fill(folder / "train", 2)
    fill(folder / "test", 1, first=20, classes=("ant", "dog"))


def few_classes(folder: Path) -> None:
    fill(folder / "train", 2)
    fill(folder / "test", 1, first=20, classes=("ant",))


def only_test(folder: Path) -> None:
    fill(folder / "test", 2)
    fill(folder / "val", 2)


def one_image(folder: Path) -> None:
    fill(folder, 2)
    save(folder / "dog" / "9.png", 9)


def boxes(folder: Path) -> None:
    fill(folder, 2, classes=("JPEGImages",))
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "0.xml").write_text("<annotation/>")


WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "empty": (empty, "has no images", "train/CLASS"),
    "no images": (no_images, "train has no images", "train/CLASS"),
    "no classes": (flat, "has 1 image, and no folder of a class", "function"),
    "parts without classes": (flat_parts, "train has no folder of a class", "function"),
    "one class": (one_class, "train has one class, ant", "folder for each class"),
    "boxes": (boxes, "has one class, JPEGImages", "--study detection"),
    "the folder above": (one_too_high, "has one class, photos", "did you mean .*photos"),
    "an empty class": (empty_class, "the folder .*dog of a class has no images", "remove it"),
    "a foreign class": (foreign_class, "test has a class dog", "ant to cat"),
    "few classes": (few_classes, "test has images of 1 of the 3 classes", "of each class"),
    "no training part": (only_test, "has test/, and no train/", "train/CLASS"),
    "one image": (one_image, "class dog has one image", "to train and one to test"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_folder_is_one_sentence(tmp_path: Path, what: str) -> None:
    make, message, hint = WRONG[what]
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message) as caught:
        locate(str(tmp_path / "data"))
    assert "\n" not in caught.value.message
    assert re.search(hint, caught.value.hint)


def test_the_size_is_the_datas_own_or_the_median_or_what_is_asked(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for number in range(20, 40):
        save(tmp_path / "ant" / f"{number}.png", number, size=(200, 100))

    def inputs(**reading: object) -> tuple[int, ...]:
        found = locate(str(tmp_path), Reading(**reading)).inputs  # type: ignore[arg-type]
        assert found is not None
        return found.shape[1:]

    assert inputs() == (64, 64)
    assert inputs(largest=224) == (100, 100)
    assert inputs(size=48) == (48, 48)
    assert inputs(size=(32, 96)) == (32, 96)
