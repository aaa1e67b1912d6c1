"""The share of reading in a training, measured for a moment."""

import pytest

from benchmarks import reading


def test_the_share_of_reading_is_a_small_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCHES", 3)
    monkeypatch.setattr(reading, "STEPS", 1)
    found = reading.of_side(32, 1)
    assert set(found) == {"small"}
    assert set(found["small"]) == {"resident", "streamed"}
    assert all(0 < share["median"] < 50 for share in found["small"].values())
