"""Packs are made once, made again when they are broken, and never half-written."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photos import fill, save
from PIL import Image

from bam_search.errors import UserError
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.pictures import cache, encoded, pack
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Dataset


@pytest.fixture(autouse=True)
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, of each test its own."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Work:
    """Counts the pictures that are read and decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = self.decoded = 0
        size_of, pixels_of = encoded.size_of, pack.pixels_of

        def reading(content: bytes) -> tuple[int, int]:
            self.read += 1
            return size_of(content)

        def decoding(content: bytes, height: int, width: int, whole: bool) -> np.ndarray:
            self.decoded += 1
            return pixels_of(content, height, width, whole)

        monkeypatch.setattr(encoded, "size_of", reading)
        monkeypatch.setattr(pack, "pixels_of", decoding)

    def of(self, folder: Path, **reading: object) -> tuple[int, int]:
        """How many are read, and how many decoded, when the folder is loaded."""
        self.read = self.decoded = 0
        locate(str(folder), Reading(**reading)).load()  # type: ignore[arg-type]
        return self.read, self.decoded


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def test_an_unchanged_folder_is_neither_read_nor_decoded_again(photos: Path, work: Work) -> None:
    assert work.of(photos) == (18, 18)
    assert work.of(photos) == (0, 0)
    assert work.of(photos, size=16) == (0, 18)
    assert work.of(photos) == (0, 0)


def test_what_changed_is_read_again_and_equal_contents_have_one_pack(
    photos: Path, work: Work, tmp_path: Path
) -> None:
    work.of(photos)
    os.utime(photos / "train" / "ant" / "000.png", (5, 5))
    assert work.of(photos) == (1, 0)
    save(photos / "train" / "ant" / "000.png", 99)
    assert work.of(photos) == (1, 12)
    photos.rename(tmp_path / "moved")
    assert work.of(tmp_path / "moved") == (18, 0)


def test_a_file_that_changed_just_now_is_not_trusted(photos: Path, work: Work) -> None:
    """It may have changed again since, within the resolution of its time."""
    path = photos / "train" / "ant" / "000.png"
    os.utime(path)
    work.of(photos)
    assert work.of(photos)[0] == 1


def test_the_digest_is_of_contents_sizes_and_classes(photos: Path, tmp_path: Path) -> None:
    def digest(folder: Path, **reading: object) -> str:
        return locate(str(folder), Reading(**reading)).load().digest  # type: ignore[arg-type]

    first = digest(photos)
    assert digest(photos, size=16) != first
    photos = photos.rename(tmp_path / "moved")
    assert digest(photos) == first
    (photos / "train" / "ant" / "000.png").rename(photos / "train" / "bee" / "000.png")
    assert digest(photos) != first


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 500)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def other_shape(path: Path) -> None:
    np.save(path, np.zeros((3, 4), np.uint8))


@pytest.mark.parametrize("harm", [cut, garbage, emptied, Path.unlink, other_shape])
@pytest.mark.parametrize("kind", ["*.npy", "*.json", "manifest-*.npz"])
def test_a_broken_cache_is_made_again(
    photos: Path, packs: Path, harm: Callable[[Path], object], kind: str
) -> None:
    before = np.array(locate(str(photos)).load().train.x)
    for path in packs.glob(kind):
        harm(path)
    after = locate(str(photos)).load()
    assert np.array_equal(after.train.x, before)
    assert after.test.x.shape == (6, 20, 24, 3)


def test_a_disk_without_room_is_a_sentence_before_anything_is_written(
    photos: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _path: SimpleNamespace(free=10_000))
    with pytest.raises(UserError, match=r"images take 0 MB in .*cache, and 0 MB are free") as e:
        locate(str(photos)).load()
    assert cache.VARIABLE in e.value.hint
    assert not list(packs.glob("*.npy"))


def test_a_cache_that_cannot_be_made_is_a_sentence(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"no cache for images at .*file/cache"):
        locate(str(photos))


def test_the_cache_lies_where_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "bam_search"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "bam_search"


def test_what_a_killed_process_left_is_removed(photos: Path, packs: Path) -> None:
    packs.mkdir()
    old, new = packs / ".old.npy.abc", packs / ".new.npy.abc"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (5, 5))
    locate(str(photos)).load()
    assert not old.exists()
    assert new.exists()


@pytest.fixture
def broken(photos: Path) -> Path:
    (photos / "train" / "ant" / "000.png").write_bytes(b"")
    (photos / "train" / "bee" / "004.png").write_bytes(b"no picture")
    whole = photos / "train" / "cat" / "008.png"
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    whole.write_bytes(whole.read_bytes()[:700])  # its header is well
    (photos / "val" / "cat" / "044.png").write_bytes(b"\x89PNG\r\n")
    return photos


def test_every_unreadable_picture_is_counted_and_some_are_named(broken: Path) -> None:
    for _ in range(2):  # made, and from the cache
        with pytest.raises(UserError, match="4 pictures are unreadable: ") as caught:
            locate(str(broken)).load()
        message = caught.value.message
        assert "train/ant/000.png: it is empty; train/bee/004.png: Pillow knows no" in message
        assert message.endswith(", ...")
        assert "data.skip_unreadable=true" in caught.value.hint


def test_unreadable_pictures_are_skipped_if_one_wants_that(broken: Path) -> None:
    source = locate(str(broken), Reading(skip_unreadable=True))
    assert (source.train, source.test) == (10, 5)
    data = source.load()
    assert data.train.y.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert np.asarray(data.train.x[:, 0, 0, 0]).tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert len(data.test) == 5
    (note,) = data.notes
    assert note.startswith("4 pictures are unreadable and left out, such as train/ant/000.png (it")
    assert note in data.origin
    for path in ("train/ant/000", "train/bee/004", "train/cat/008", "val/cat/044"):
        (broken / f"{path}.png").unlink()
    assert locate(str(broken)).load().digest == data.digest


def test_a_folder_of_unreadable_pictures_alone_says_so(broken: Path) -> None:
    for path in broken.glob("val/*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="8 pictures are unreadable"):
        locate(str(broken), Reading(skip_unreadable=True))


def test_an_interruption_leaves_nothing_half_written(photos: Path, packs: Path) -> None:
    @contextlib.contextmanager
    def interrupted(title: str, total: int) -> Iterator[Callable[[int], None]]:
        assert total in (12, 18)
        yield lambda _steps: signal.raise_signal(signal.SIGINT) if "packing" in title else None

    with pytest.raises(KeyboardInterrupt):
        locate(str(photos), Reading(progress=interrupted)).load()
    assert {path.suffix for path in packs.iterdir()} == {".npz"}  # what was read is known
    assert len(locate(str(photos)).load().train) == 12


def test_another_study_may_pack_the_same_meanwhile(
    photos: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels_of, others = pack.pixels_of, [locate(str(photos))]

    def disturbed(content: bytes, height: int, width: int, whole: bool) -> np.ndarray:
        if others:
            others.pop().load()
        return pixels_of(content, height, width, whole)

    monkeypatch.setattr(pack, "pixels_of", disturbed)
    data = locate(str(photos)).load()
    assert data.train.x[:, 0, 0, 0].tolist() == list(range(12))
    assert not list(packs.glob(".*"))


def test_a_class_of_which_nothing_can_be_read_is_a_sentence(photos: Path) -> None:
    for path in photos.glob("train/bee/*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no training picture of bee can be read"):
        locate(str(photos), Reading(skip_unreadable=True))


SCRIPT = textwrap.dedent(
    """
    import sys, time
    from bam_search.tasks.pictures import pack
    from bam_search.tasks.classification.sources import locate
    pixels_of = pack.pixels_of
    def slow(*arguments):
        print("decoding", flush=True)
        time.sleep(float(sys.argv[2]))
        return pixels_of(*arguments)
    pack.pixels_of = slow
    print(locate(sys.argv[1]).load().digest)
    """
)


@pytest.fixture
def started(photos: Path) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", SCRIPT, str(photos), str(seconds)]
        running.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=-1, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(
    started: Callable[[float], subprocess.Popen[str]], packs: Path, photos: Path
) -> None:
    process = started(0.3)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    left = {path.suffix for path in packs.iterdir()}
    assert left == {".npz"}  # what was read so far is known
    assert len(locate(str(photos)).load().train) == 12


@pytest.mark.slow
def test_two_processes_that_pack_at_once_do_no_harm(
    started: Callable[[float], subprocess.Popen[str]], photos: Path, packs: Path
) -> None:
    both = [started(0.02), started(0.02)]
    digests = {process.communicate()[0].split()[-1] for process in both}
    assert digests == {locate(str(photos)).load().digest}
    assert not list(packs.glob(".*"))


def test_a_pack_made_by_many_threads_is_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "many", 40)
    pixels_of = pack.pixels_of

    def uneven(content: bytes, height: int, width: int, whole: bool) -> np.ndarray:
        time.sleep(0.002 if len(content) % 2 else 0)
        return pixels_of(content, height, width, whole)

    monkeypatch.setattr(pack, "pixels_of", uneven)
    monkeypatch.setattr(pack, "AT_A_TIME", 3)
    data: Dataset = locate(str(tmp_path / "many")).load()
    levels = data.train.x[:, 0, 0, 0]
    assert (np.diff(levels.astype(int)) > 0).all()
