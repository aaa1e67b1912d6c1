"""Images of a mapped file: read when they are asked for, and sent as a path."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from bam_search.errors import UserError
from bam_search.tasks.classification.images import Images
from bam_search.tasks.pictures.normalisation import Normalisation
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.task import Dataset

SHAPE = (12, 10, 3)


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (50, *SHAPE), dtype=np.uint8), rng.integers(0, 5, 50)


@pytest.fixture
def path(tmp_path: Path, arrays: tuple[np.ndarray, np.ndarray]) -> Path:
    np.save(tmp_path / "x.npy", arrays[0])
    return tmp_path / "x.npy"


@pytest.fixture
def pair(path: Path, arrays: tuple[np.ndarray, np.ndarray]) -> tuple[Images, Images]:
    """The same images, in memory and mapped."""
    return Images(*arrays), Images(np.load(path, mmap_mode="r"), arrays[1])


def test_mapped_images_are_what_they_are_in_memory(pair: tuple[Images, Images]) -> None:
    index = np.random.default_rng(1).permutation(50)[:30]
    for change in (
        lambda some: some,
        lambda some: some.take(index),
        lambda some: some.take(index).first(20),
        lambda some: some.first(20).take(np.array([3, 3, 1])),
    ):
        memory, mapped = map(change, pair)
        assert len(memory) == len(mapped)
        assert memory.shape == mapped.shape == SHAPE
        assert np.array_equal(memory.x, mapped.x)
        assert np.array_equal(memory.y, mapped.y)
        assert np.array_equal(memory.read(np.array([2, 0])), mapped.read(np.array([2, 0])))
        ours, theirs = (Normalisation.of(some, (8, 8), "cpu") for some in (memory, mapped))
        assert torch.equal(ours.mean, theirs.mean)
        assert torch.equal(ours.std, theirs.std)


def test_the_digest_is_that_of_the_same_images_in_memory_read_piece_by_piece(
    pair: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = (Dataset("", "", some, some.first(5)).digest for some in pair)
    monkeypatch.setattr("bam_search.tasks.pictures.pixels.CHUNK", 7 * 12 * 10 * 3)
    mapped = pair[1]
    assert [len(chunk) for chunk in mapped.chunks()] == [7] * 7 + [1]
    assert {Dataset("", "", some, some.first(5)).digest for some in pair} == {whole}


def test_of_many_images_some_say_how_pixels_enter_a_model(
    pair: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bam_search.tasks.pictures.normalisation.MOST", 10 * 12 * 10 * 3)
    memory, mapped = pair
    few = memory.take(np.linspace(0, 49, 10).round().astype(int))
    found = Normalisation.of(mapped, (1, 1), "cpu")
    assert found.mean.numpy() == pytest.approx(few.x.mean((0, 1, 2)), rel=1e-5)


def test_a_channel_that_is_the_same_everywhere_becomes_zero() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    pixels[..., 1], pixels[..., 2] = 0, 201
    x = Normalisation.of(Pixels(pixels), (4, 4), "cpu")(torch.from_numpy(pixels))
    assert x[:, 0].std() == pytest.approx(1, rel=0.02)
    assert not x[:, 1:].any()


def test_nothing_is_copied_when_mapped_images_are_chosen_or_sent(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    large = np.lib.format.open_memmap(path, "w+", np.uint8, (2000, 64, 64, 3))  # 25 MB
    large[-1] = 9
    large.flush()
    tracemalloc.start()
    images = Images(np.load(path, mmap_mode="r"), np.zeros(2000, dtype=np.int64))
    chosen = images.take(np.arange(1999, -1, -1)).first(1000)
    sent = pickle.dumps(chosen)
    received = pickle.loads(sent)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()
    assert len(sent) < 50_000
    assert received.read(np.array([0])).max() == 9
    assert received.read(np.array([1])).max() == 0


def test_images_in_memory_are_sent_as_they_are(pair: tuple[Images, Images]) -> None:
    received = pickle.loads(pickle.dumps(pair[0]))
    assert np.array_equal(received.x, pair[0].x)


def test_a_part_of_a_map_is_sent_as_its_own_pixels(path: Path) -> None:
    part = Images(np.load(path, mmap_mode="r")[10:20], np.zeros(10, dtype=np.int64))
    assert np.array_equal(pickle.loads(pickle.dumps(part)).x, part.x)


@pytest.mark.parametrize("broken", ["gone", "short"])
def test_a_worker_without_the_file_says_so(
    broken: str, path: Path, pair: tuple[Images, Images]
) -> None:
    sent = pickle.dumps(pair[1])
    path.unlink()
    if broken == "short":
        path.write_bytes(b"few")
    with pytest.raises(UserError, match=r"x\.npy .*on the machine of a worker"):
        pickle.loads(sent)
