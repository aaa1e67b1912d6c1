"""Means, differences and probabilities.

They are compared with numbers by hand, the classical formulas, and simulated studies of known
truth.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_record
from scipy import stats

from bam_search.analysis.final_metrics import ComparedTo
from bam_search.analysis.statistics import (
    LEVEL,
    Difference,
    Noise,
    difference,
    mean,
    membership,
    noise,
    rank_correlation,
)
from bam_search.study.record import Record

COSTS = ("params_overhead", "macs_conv_fc_overhead")


def final(
    number: int, errors: Sequence[float] | np.ndarray, cost: float = 1.0, first: int = 0
) -> Record:
    """A record with these test errors, at seeds from `first` on."""
    return make_record(
        number,
        70.0,
        cost,
        test_metrics=tuple(map(float, errors)),
        test_seeds=tuple(range(first, first + len(errors))),
    )


def simulated(
    rng: np.random.Generator,
    truths: np.ndarray,
    seeds: list[int],
    sd: float = 0.4,
    shift: float = 0.6,
) -> list[Record]:
    """Records with these true means, drawn from the model of a final error.

    An error is the mean, plus the effect of the seed on all, plus noise.
    """
    shifts = rng.normal(0, shift, max(seeds))
    rows = [
        truth + shifts[:n] + rng.normal(0, sd, n) for truth, n in zip(truths, seeds, strict=True)
    ]
    return [final(i, row, cost=float(i)) for i, row in enumerate(rows)]


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


def test_a_difference_is_paired_so_a_seeds_effect_drops_out() -> None:
    spread = Noise(0.3, 6)
    shift = np.array([5.0, -20.0, 100.0])
    plain = difference(final(0, [70, 71, 72]), final(1, [71, 71.5, 73.5]), spread)
    shifted = difference(
        final(0, np.array([70, 71, 72]) + shift),
        final(1, np.array([71, 71.5, 73.5]) + shift),
        spread,
    )
    assert plain is not None
    assert shifted == plain
    assert plain.mean == pytest.approx(-1)
    half = stats.t.ppf(0.95, 6) * 0.3 * np.sqrt(2 / 3)
    assert (plain.low, plain.high) == (pytest.approx(-1 - half), pytest.approx(-1 + half))


def test_only_common_seeds_are_compared() -> None:
    found = difference(
        final(0, [70, 71, 72, 73], first=0), final(1, [60, 62], first=2), Noise(0.3, 6)
    )
    assert found is not None
    assert (found.mean, found.n) == (11.5, 2)
    assert difference(final(0, [70, 71]), final(1, [70, 71], first=2), Noise(0.3, 6)) is None


@pytest.mark.parametrize(
    ("errors", "word"),
    [
        ([69.0, 70.0, 71.0], "better"),
        ([73.0, 74.0, 75.0], "worse"),
        ([71.1, 72.1, 73.1], "tie"),
        ([70.9, 71.9, 72.9], "tie"),
    ],
)
def test_a_difference_has_a_verdict(errors: list[float], word: str) -> None:
    a, b = final(0, errors), final(1, [71.0, 72.0, 73.0])
    found = difference(a, b, Noise(0.3, 6))
    assert found is not None
    assert ComparedTo(a, b, found).verdict == word
    opposite = {"better": "worse", "worse": "better", "tie": "tie"}[word]
    assert ComparedTo(replace(a, larger_is_better=True), b, found).verdict == opposite


def test_without_noise_a_difference_is_a_tie() -> None:
    a, b = final(0, [60.0]), final(1, [71.0])
    found = difference(a, b, None)
    assert found == Difference(-11.0, None, None, 1)
    assert found.turned == Difference(11.0, None, None, 1)
    assert ComparedTo(a, b, found).verdict == "tie"


def test_an_improvement_is_positive_where_it_is_better() -> None:
    a, b = final(0, [60.0]), final(1, [71.0])
    compared = ComparedTo(a, b, Difference(-11.0, -12.0, -9.0, 3))
    assert compared.improvement == Difference(11.0, 9.0, 12.0, 3)
    larger = replace(compared, record=replace(a, larger_is_better=True))
    assert larger.improvement == compared.difference


def test_a_clear_winner_is_on_the_front_and_what_it_beats_is_not() -> None:
    spread = Noise(0.3, 10)
    cheap_best, dear_worse = final(0, [70, 70, 70], cost=1), final(1, [75, 75, 75], cost=2)
    assert membership([cheap_best, dear_worse], COSTS, spread) == [1, 0]
    same_cost = final(1, [75, 75, 75], cost=1)
    assert membership([cheap_best, same_cost], COSTS, spread) == [1, 0]


def test_two_equals_at_equal_costs_share_the_front() -> None:
    first, second = membership(
        [final(0, [70, 71, 72]), final(1, [71, 70, 72])], COSTS, Noise(0.5, 8)
    )
    assert first == pytest.approx(0.5, abs=0.04)
    assert first + second == pytest.approx(1)


def test_cheaper_but_worse_is_on_the_front() -> None:
    worse, better = final(0, [90, 90], cost=1), final(1, [70, 70], cost=2)
    assert membership([worse, better], COSTS, Noise(0.5, 8)) == [1, 1]
    # Cheaper on one cost only: neither beats the other.
    crossed = make_record(
        2, 70.0, 3.0, test_metrics=(95.0, 95.0), test_seeds=(0, 1), macs_conv_fc_overhead=0.5
    )
    assert membership([better, crossed], COSTS, Noise(0.5, 8)) == [1, 1]


def test_membership_follows_the_noise_and_the_number_of_seeds() -> None:
    # The more expensive is on the front if it is better: Student's t of the difference over its
    # standard deviation.
    for n, sd, degrees in ((2, 1.0, 12), (8, 1.0, 12), (2, 0.3, 12), (2, 0.5, 2)):
        cheap, expensive = final(0, [71.0] * n, cost=1), final(1, [70.5] * n, cost=2)
        expected = stats.t.cdf(0.5 / (sd * np.sqrt(2 / n)), degrees)
        assert membership([cheap, expensive], COSTS, Noise(sd, degrees))[1] == pytest.approx(
            expected, abs=0.025
        )


def test_without_noise_membership_is_the_front_of_the_means() -> None:
    records = [final(0, [70.0], cost=1), final(1, [75.0], cost=2), final(2, [65.0], cost=3)]
    assert membership(records, COSTS, None) == [1, 0, 1]


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


@pytest.mark.parametrize(
    ("short", "full"),
    [([1, 2, 3], [1, 2, 3]), ([], []), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [5, 5, 5, 5])],
)
def test_too_few_or_constant_ranks_have_no_correlation(
    short: list[float], full: list[float]
) -> None:
    assert rank_correlation(short, full) is None


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    means, differences, uneven = [], [], []
    for _ in range(200):
        truths = rng.normal(70, 1, 6)
        records = simulated(rng, truths, [3, 3, 3, 3, 6, 6])
        spread = noise(records)
        found = mean(records[0].test_metrics)
        means.append(found.low <= truths[0] <= found.high)  # type: ignore[operator]
        for kept, (a, b) in ((differences, (1, 0)), (uneven, (4, 5))):
            d = difference(records[a], records[b], spread)
            assert d is not None
            kept.append(d.low <= truths[a] - truths[b] <= d.high)  # type: ignore[operator]
    assert LEVEL == 0.9
    for covered in (means, differences, uneven):
        assert len(covered) == 200
        assert 0.85 <= np.mean(covered) <= 0.95


def test_the_probability_to_be_on_the_front_is_calibrated() -> None:
    rng = np.random.default_rng(1)
    said, true = [], []
    for _ in range(200):
        truths = rng.normal(70, 0.4, 4)
        records = simulated(rng, truths, [3, 3, 3, 3])
        said += membership(records, COSTS, noise(records))[1:]
        # Costs rise with the number.
        true += [bool(truths[i] < truths[:i].min()) for i in range(1, 4)]
    chances, facts = np.array(said), np.array(true)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        within = (chances >= low) & (chances < high)
        assert within.sum() > 50
        assert facts[within].mean() == pytest.approx(chances[within].mean(), abs=0.12)
