"""The packing benchmark runs, and its committed result reaches the goals."""

import json
from pathlib import Path

import pytest
from photos import fill

from benchmarks.packing import measured

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "packing.json"


def test_a_folder_is_packed_and_read_by_the_usual_loop(tmp_path: Path) -> None:
    fill(tmp_path / "train", 4)
    fill(tmp_path / "val", 2, first=40)
    found = measured(tmp_path, 16, 1)
    assert found["images"] == 18
    assert found["stored"] == [16, 16]
    assert found["mean_difference_in_levels"] < 0.5


@pytest.mark.parametrize("size", ["64", "128"])
def test_the_committed_result_reaches_the_goals(size: str) -> None:
    """3,500 JPEGs of 224 pixels in 2.5 CPU seconds, and opened again in 0.1.

    Other things ran on the machine and lengthened CPU seconds too: the least of five rounds counts.
    """
    found = json.loads(RESULT.read_text())["sizes"][size]
    assert found["images"] == 3500
    assert found["least"]["pack, CPU s"] < 2.5
    assert found["median"]["open, CPU s"] < 0.1
    assert found["median"]["pack, CPU s"] < 0.9 * found["median"]["usual loop, CPU s"]
    assert found["mean_difference_in_levels"] < 2
