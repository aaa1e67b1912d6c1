"""Generated pictures: each shape fills its box."""

import numpy as np
import pytest

from bam_search.errors import UserError
from bam_search.tasks.detection.shapes import SHAPES, shapes
from bam_search.tasks.detection.sources import locate
from bam_search.tasks.task import digests


def test_the_last_shape_of_a_picture_fills_its_box() -> None:
    samples = shapes(60, seed=3)
    shares: dict[str, list[float]] = {name: [] for name in SHAPES}
    for number, last in enumerate(samples.offsets[1:] - 1):
        x1, y1, x2, y2 = samples.boxes[last].astype(int)
        inside = samples.x[number, y1:y2, x1:x2]
        name = SHAPES[samples.labels[last] - 1]
        colour = inside[(y2 - y1) // 2, (x2 - x1) // 2]  # nothing lies over it
        of_shape = (inside == colour).all(-1)
        assert of_shape[[0, -1]].any(1).all()
        assert of_shape[:, [0, -1]].any(0).all()
        shares[name].append(of_shape.mean())
    means = {name: np.mean(some) for name, some in shares.items()}
    assert means == pytest.approx({"disc": 0.785, "square": 1, "triangle": 0.5}, abs=0.04)


def test_they_are_the_same_every_time_and_others_for_another_seed() -> None:
    assert digests(shapes(5, seed=0)) == digests(shapes(5, seed=0)) != digests(shapes(5, seed=1))


def test_the_source_says_what_it_gives() -> None:
    source = locate("generated")
    data = source.load()
    assert (source.train, source.test) == (len(data.train), len(data.test))
    assert source.inputs is not None
    assert source.inputs.shape == (3, *data.train.shape[:2])
    assert source.inputs.classes == 1 + len(data.classes) == 1 + data.train.labels.max()


def test_auto_asks_for_data() -> None:
    with pytest.raises(UserError, match="name yours with --data"):
        locate("auto")
