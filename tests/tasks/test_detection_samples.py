"""Pictures with boxes: kept whole, taken in any order, sent to processes."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bam_search.tasks.detection.samples import DetectionSamples
from bam_search.tasks.pictures.decode import PADDING, pixels_of
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.task import digests


def some(stored: np.ndarray) -> DetectionSamples:
    """Four pictures with 2, 0, 3 and 1 objects; each box says which one it is."""
    boxes = np.arange(24, dtype=np.float32).reshape(6, 4)
    labels = np.array([1, 2, 3, 1, 2, 3])
    offsets = np.array([0, 2, 2, 5, 6])
    sizes = np.array([[20, 30], [30, 20], [40, 60], [10, 10]])
    return DetectionSamples(Pixels(stored), boxes, labels, labels == 3, offsets, sizes)


@pytest.fixture(params=["in memory", "mapped"])
def samples(request: pytest.FixtureRequest, tmp_path: Path) -> DetectionSamples:
    x = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
    if request.param == "in memory":
        return some(x)
    np.save(tmp_path / "x.npy", x)
    return some(np.load(tmp_path / "x.npy", mmap_mode="r"))


def test_samples_are_taken_with_their_objects_in_any_order_and_twice(
    samples: DetectionSamples,
) -> None:
    taken = samples.take(np.array([3, 1, 2, 3]))
    assert np.array_equal(taken.x, samples.x[[3, 1, 2, 3]])
    assert taken.offsets.tolist() == [0, 1, 1, 4, 5]
    assert taken.boxes[:, 0].tolist() == [20, 8, 12, 16, 20]
    assert taken.labels.tolist() == [3, 3, 1, 2, 3]
    assert taken.ignore.tolist() == [True, True, False, False, True]
    assert taken.sizes.tolist() == [[10, 10], [30, 20], [40, 60], [10, 10]]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 9])
def test_the_first_samples_are_those_taken_first(samples: DetectionSamples, n: int) -> None:
    first, taken = samples.first(n), samples.take(np.arange(min(n, 4)))
    assert len(first) == len(taken) == min(n, 4)
    for one, other in zip(first.arrays(), taken.arrays(), strict=True):
        assert np.array_equal(one, other)


def test_a_process_receives_the_same_samples(samples: DetectionSamples) -> None:
    taken = samples.take(np.array([2, 0]))
    assert digests(pickle.loads(pickle.dumps(taken))) == digests(taken)


def test_scales_lead_from_a_box_back_to_the_pictures_own_pixels(samples: DetectionSamples) -> None:
    # At 20 x 30: itself; 13 of 30 wide, as its height fills; half; twice.
    assert samples.content.tolist() == [[20, 30], [20, 13], [20, 30], [20, 20]]
    assert samples.scales[0].tolist() == [1, 1]
    assert samples.scales[1].tolist() == [20 / 13, 1.5]
    assert samples.scales[2].tolist() == [2, 2]


def test_a_picture_is_whole_in_the_upper_left_and_beside_it_is_padding() -> None:

    picture = np.zeros((40, 20, 3), np.uint8)
    picture[:20] = 250
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    pixels = pixels_of(file.getvalue(), 20, 30, whole=True)
    assert pixels.shape == (20, 30, 3)
    assert (pixels[:9, :10] == 250).all()
    assert (pixels[11:, :10] == 0).all()
    assert (pixels[:, 10:] == PADDING).all()


def test_a_picture_that_exif_turns_is_turned_before_it_is_placed() -> None:

    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20] = 250  # after a quarter turn to the right this is the upper half
    image = Image.fromarray(picture)
    exif = image.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    pixels = pixels_of(file.getvalue(), 20, 30, whole=True)
    assert (pixels[:9, :10] == 250).all()
    assert (pixels[11:, :10] == 0).all()
    assert (pixels[:, 10:] == PADDING).all()
