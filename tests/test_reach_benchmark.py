"""The benchmark of the sampler alone: its ratios, and a replay."""

import numpy as np
import pytest

from benchmarks import reach


def test_a_ratio_is_of_middles_with_a_range() -> None:
    ours, random = np.array([10.0, 20.0] * 20), np.array([30.0, 30.0] * 20)
    found = reach.ratio([(ours, random)], np.mean)
    assert found["value"] == pytest.approx(0.5)
    assert 0.4 < found["low"] < 0.5 < found["high"] < 0.6
    both = reach.ratio([(ours, random), (random, random)], np.mean)
    assert (both["value"], both["n"]) == (pytest.approx(0.75), 80)


def test_more_of_the_best_costs_more() -> None:
    landscape = reach.known(0.5, 1)
    for sampler, startup in (("additive", 4), ("random", 1000)):
        costs = reach.trainings(landscape, 1, sampler, startup)
        assert 1 <= costs[0] <= costs[1] <= costs[2] <= landscape.plan.choice_space.size
