"""Means, noise and rank correlation, beside numbers by hand and the classical formulas."""

import warnings

import numpy as np
import pytest
from scipy import stats
from studied import final

from bam_search.analysis import statistics
from bam_search.analysis.statistics import (
    Noise,
    least_squares_means,
    mean,
    noise,
    rank_correlation,
)


def test_a_mean_has_students_interval() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.n) == (2.5, 4)
    assert found.sd == pytest.approx(1.2909944)
    # The 95 % quantile of Student's t with 3 degrees of freedom is 2.353363 (any table); the
    # standard error is 0.6454972.
    assert found.low == pytest.approx(2.5 - 2.353363 * 0.6454972, abs=1e-5)
    assert found.high == pytest.approx(2.5 + 2.353363 * 0.6454972, abs=1e-5)


def test_one_value_has_no_interval() -> None:
    found = mean([71.5])
    assert (found.mean, found.sd, found.low, found.high, found.n) == (71.5, None, None, None, 1)


def test_noise_is_the_residual_of_the_classical_two_way_layout() -> None:
    errors = np.random.default_rng(1).normal(70, 2, (3, 4))
    found = noise([final(i, row) for i, row in enumerate(errors)])
    left = errors - errors.mean(1, keepdims=True) - errors.mean(0) + errors.mean()
    assert found is not None
    assert found.degrees == (3 - 1) * (4 - 1)
    assert found.sd == pytest.approx(np.sqrt((left**2).sum() / 6))


def test_noise_of_uneven_numbers_of_seeds_counts_its_degrees() -> None:
    # 4 + 4 + 2 values, 3 means and 4 seeds, of which one constant is shared.
    records = [final(0, [70, 71, 72, 71]), final(1, [75, 75, 77, 78]), final(2, [60, 62])]
    found = noise([*records, final(3, [50])])  # a single value says nothing of the noise
    assert found is not None
    assert found.degrees == 10 - (3 + 4 - 1)
    assert found == noise(records)


def test_noise_is_unknown_from_one_placement_or_from_single_values() -> None:
    assert noise([]) is None
    assert noise([final(0, [70, 71, 72])]) is None
    assert noise([final(0, [70]), final(1, [71])]) is None
    assert noise([final(0, [70, 71]), final(1, [71, 70], first=2)]) is None  # no seed in common


def test_least_squares_means_are_plain_means_where_all_have_the_same_seeds() -> None:
    errors = np.random.default_rng(1).normal(70, 2, (3, 4))
    found = least_squares_means([final(i, row) for i, row in enumerate(errors)])
    assert found == pytest.approx(errors.mean(1))
    assert least_squares_means([]) == []


def test_a_seed_that_only_one_placement_had_does_not_move_its_mean_beside_the_others() -> None:
    # The third seed is bad for all, and only the first placement had it.
    more, less = final(0, [70.0, 71.0, 80.0]), final(1, [72.0, 73.0])
    first, second = least_squares_means([more, less])
    assert second - first == pytest.approx(2.0)
    # Both as all three seeds would have it.
    assert first == pytest.approx(np.mean([70, 71, 80]))


def test_placements_without_a_seed_in_common_have_their_own_means() -> None:
    found = least_squares_means([final(0, [70.0, 71.0]), final(1, [60.0, 62.0], first=2)])
    assert found == pytest.approx([70.5, 61.0])
    # A third one connects them.
    bridge = final(2, [70.0, 70.0], first=1)
    first, second, _ = least_squares_means(
        [final(0, [70.0, 71.0]), final(1, [60.0, 62.0], first=2), bridge]
    )
    # Beside the bridge, one is a point worse with seed 1, the other 10 better with seed 2.
    assert second - first == pytest.approx(-11.0)


def test_the_smallest_difference_is_told_apart_in_four_of_five_studies() -> None:
    spread, rng = Noise(0.5, 1000), np.random.default_rng(0)
    smallest = spread.smallest_difference(4)
    half = stats.t.ppf(0.975, 1000) * 0.5 * np.sqrt(2 / 4)
    gaps = smallest + 0.5 * np.sqrt(2 / 4) * rng.standard_normal(20_000)
    assert (gaps > half).mean() == pytest.approx(0.8, abs=0.01)
    assert Noise(0.5, 4).smallest_difference(4) > smallest


def test_rank_correlation() -> None:
    up = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    same, opposite = rank_correlation(up, up), rank_correlation(up, up[::-1])
    assert same is not None
    assert opposite is not None
    assert (same.mean, same.low, same.high, same.n) == (
        pytest.approx(1),
        pytest.approx(1),
        pytest.approx(1),
        6,
    )
    assert (opposite.mean, opposite.low, opposite.high) == (
        pytest.approx(-1),
        pytest.approx(-1),
        pytest.approx(-1),
    )
    # 1 of 6 pairs is in the other order.
    one = rank_correlation([1, 2, 3, 4], [1, 2, 4, 3])
    assert one is not None
    assert one.mean == pytest.approx(4 / 6)
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.mean < one.high


@pytest.mark.parametrize(("n", "block"), [(5, 1000), (40, 1000), (40, 7)])
@pytest.mark.parametrize("decimals", [0, 3])
def test_rank_correlation_is_that_of_scipy_resample_by_resample(
    n: int, block: int, decimals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BLOCK", block)
    rng = np.random.default_rng(n)
    short = rng.normal(size=n).round(decimals)
    full = (short + rng.normal(size=n)).round(decimals)
    drawn = np.random.default_rng(0).integers(n, size=(statistics.RESAMPLES, n))
    with warnings.catch_warnings(action="ignore"):
        taus = [stats.kendalltau(short[one], full[one]).statistic for one in drawn]
    low, high = np.nanquantile(taus, [0.05, 0.95])
    found = rank_correlation(short.tolist(), full.tolist())
    assert found is not None
    expected = (stats.kendalltau(short, full).statistic, low, high)
    assert (found.mean, found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("short", "full"),
    [([1, 2, 3], [1, 2, 3]), ([], []), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [5, 5, 5, 5])],
)
def test_too_few_or_constant_ranks_have_no_correlation(
    short: list[float], full: list[float]
) -> None:
    assert rank_correlation(short, full) is None
