"""Images that are more than a device holds: each training is what it is with all of them there."""

import threading
import time
import tracemalloc
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import recorded

from bam_search.model.build import sites_of
from bam_search.model.load import Inputs, load
from bam_search.score.cuda_graphs import replayed
from bam_search.score.device import choose
from bam_search.score.evaluate import Experiment, Job, Score, evaluate
from bam_search.score.measure import Meter
from bam_search.score.step import TrainingStep
from bam_search.tasks.classification.batches import DeviceImages
from bam_search.tasks.classification.images import Images
from bam_search.tasks.pictures import crops
from bam_search.tasks.pictures.crops import Middles, resize_all
from bam_search.tasks.pictures.ring import LARGEST, Ring, steps_a_window
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Split

CLASSES = 4
IMAGE = {32: 2 * 40 * 40 * 3, 64: 73 * 73 * 3}
"""The bytes of a training image on the device, by its side."""


def mapped(path: Path, n: int, side: int) -> Images:
    """Noise whose level is the class, in a mapped file."""
    rng = np.random.default_rng(n)
    y = np.arange(n) % CLASSES
    pixels = rng.integers(0, 64, (n, side, side, 3)) + 64 * y[:, None, None, None]
    np.save(path, pixels.astype(np.uint8))
    return Images(np.load(path, mmap_mode="r"), y)


@pytest.fixture(params=[32, 64])
def experiment(request: pytest.FixtureRequest, tmp_path: Path) -> Experiment:
    side, space = request.param, {32: "small", 64: "imagenet_small"}[request.param]
    stored = {32: 32, 64: 73}[side]
    fit = mapped(tmp_path / "fit.npy", 60, stored).take(np.random.default_rng(0).permutation(60))
    held_out = mapped(tmp_path / "held_out.npy", 260 if side == 32 else 70, stored)
    inputs = Inputs((3, side, side), CLASSES)
    recipe = Recipe(epochs=3, batch=8, lr=0.05, precision="fp32")
    return Experiment(
        "classification",
        space,
        sites_of(load(space, inputs)),
        Split(fit, held_out, fit, held_out),
        recipe,
        choose("cpu"),
        1,
        inputs=inputs,
    )


def score(experiment: Experiment) -> Score:
    """The score of two epochs, each of which is measured; without its seconds."""
    result = evaluate(experiment, Job("layer3=se", 1, 2, each_epoch=True))
    assert result.score is not None, result.failure
    return replace(result.score, seconds=0.0)


def test_records_are_equal_however_few_images_the_device_holds(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    init = Ring.__init__

    def counted(ring: Ring, images: Images, memory: Middles, batch: int, steps: int) -> None:
        made.append(steps)
        init(ring, images, memory, batch, steps)

    monkeypatch.setattr(Ring, "__init__", counted)
    expected = score(experiment)
    assert not made
    side = experiment.inputs.shape[1]  # type: ignore[union-attr]
    few = 2 * 2 * 8 * IMAGE[side]  # twice two batches
    assert score(replace(experiment, device_bytes=few)) == expected
    assert made == [1, 2]  # batches a window: for what is measured, and what trains


def test_a_captured_step_only_indexes_into_the_ring(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "resize_each", resize_all)  # as on a GPU, in uncaptured steps too
    expected = score(experiment)
    for kind in (TrainingStep, Meter):
        monkeypatch.setattr(kind, "make_step", lambda self: replayed(self.step, recorded))
    assert score(replace(experiment, device_bytes=1)) == expected


def test_images_are_in_their_slots_when_their_step_comes_also_if_reading_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = mapped(tmp_path / "x.npy", 30, 8)
    memory = Middles.of(images.shape, (8, 8), 12, "cpu")
    ring, threads, read = Ring(images, memory, 3, 2), set(), Images.read

    def slow(self: Images, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        threads.add(threading.get_ident())
        time.sleep(0.01)
        return read(self, index, out)

    monkeypatch.setattr(Images, "read", slow)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(30)[:27]
        ring.begin(order)
        for step in range(9 if seed else 4):  # the first is broken off
            ring.ready(step)
            now = np.arange(3 * step, 3 * step + 3)
            assert np.array_equal(memory.memory[now % ring.slots], images.stored[order[now]])
    assert threads == {next(iter(threads))} != {threading.get_ident()}


def test_what_cannot_be_read_fails_the_step_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = mapped(tmp_path / "x.npy", 12, 8)
    ring = Ring(images, Middles.of(images.shape, (8, 8), 4, "cpu"), 2, 1)
    ring.begin(np.arange(12))
    ring.ready(0)

    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Images, "read", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        deque(map(ring.ready, range(1, 6)))


def test_a_window_is_as_large_as_its_room_and_never_none() -> None:
    assert steps_a_window(1000, 10, 100, room=100_000) == 0
    assert steps_a_window(1000, 10, 100, room=99_999) == 49
    assert steps_a_window(1000, 10, 100, room=5) == 1
    assert steps_a_window(10**9, 100, 10_000, room=2**40) == LARGEST // 2 // 1_000_000


def test_the_pixels_of_a_mapped_file_are_not_all_copied(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (3000, 73, 73, 3)).flush()  # 48 MB
    images = Images(np.load(path, mmap_mode="r"), np.zeros(3000, dtype=np.int64))
    recipe, room = Recipe(augment="resized-crop-flip"), 2_000_000
    tracemalloc.start()
    on_device = DeviceImages.of(images, (64, 64), recipe, "cpu", 16, room)
    slots = on_device.pixels.begin(torch.arange(2992))
    assert on_device.pixels.ring is not None
    for step in range(187):
        on_device.pixels.ring.ready(step)
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()
    assert on_device.pixels.crops.memory.numel() <= room
    assert int(slots.max()) < on_device.pixels.ring.slots < 200
