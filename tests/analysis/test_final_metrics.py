"""How finalists compare: hierarchical means, verdicts and fronts.

They are compared with numbers by hand and with simulated studies of known truth.
"""

from dataclasses import replace

import numpy as np
import pytest
from studied import final

from bam_search.analysis.final_metrics import ComparedTo, FinalMetrics
from bam_search.analysis.statistics import Difference
from bam_search.study.record import REFERENCE, Record

COSTS = ("params_overhead", "macs_conv_fc_overhead")


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


def compared(a: Record, b: Record, *others: Record) -> ComparedTo:
    """The one beside the other, in a study that has further records."""
    (found,) = FinalMetrics.of([a, b, *others]).compare(a, [b])
    return found


def test_a_seeds_effect_on_all_drops_out() -> None:
    rng = np.random.default_rng(0)
    records = simulated(rng, rng.normal(70, 1, 6), [3] * 6)
    shift = np.array([5.0, -20.0, 100.0])
    shifted = [final(r.number, r.test_metrics + shift, cost=r.number) for r in records]
    one, other = compared(*records), compared(*shifted)
    assert other.difference.mean == pytest.approx(one.difference.mean)
    assert (other.difference.low, other.difference.high) == (
        pytest.approx(one.difference.low),
        pytest.approx(one.difference.high),
    )


def test_the_best_of_many_equals_is_drawn_back() -> None:
    rng = np.random.default_rng(1)
    records = simulated(rng, np.full(12, 70.0), [3] * 12)
    finals = FinalMetrics.of(records)
    plain = np.array([finals.means[r.number].mean for r in records])
    expected = np.array([finals.expected(r) for r in records])
    assert expected.std() < 0.5 * plain.std()
    assert expected.argmin() == plain.argmin()


def test_placements_far_apart_are_left_where_they_are() -> None:
    records = simulated(np.random.default_rng(2), np.arange(6) * 5.0, [3] * 6)
    finals = FinalMetrics.of(records)
    for record in records:
        assert finals.expected(record) == pytest.approx(finals.means[record.number].mean, abs=0.1)


def test_references_have_a_spread_of_their_own() -> None:
    # Two far apart among many equals: these are drawn together all the same.
    rng = np.random.default_rng(3)
    records = simulated(rng, np.array([70.0] * 10 + [60.0, 80.0]), [3] * 12)
    named = [replace(r, origin=REFERENCE, name=str(r.number)) for r in records[10:]]
    finals = FinalMetrics.of([*records[:10], *named])
    expected = [finals.expected(record) for record in records[:10]]
    assert np.std(expected) < 0.15
    assert finals.expected(named[0]) == pytest.approx(finals.means[10].mean, abs=0.2)


@pytest.mark.parametrize(
    ("errors", "word"),
    [
        ([69.0, 70.0, 71.0], "better"),
        ([73.0, 74.0, 75.0], "worse"),
        ([71.1, 72.1, 73.1], "unclear"),
        ([70.9, 71.9, 72.9], "unclear"),
    ],
)
def test_a_difference_has_a_verdict(errors: list[float], word: str) -> None:
    a, b = final(0, errors), final(1, [71.0, 72.0, 73.0])
    third = final(2, [71.2, 71.9, 73.5])
    found = compared(a, b, third)
    assert found.verdict == word
    opposite = {"better": "worse", "worse": "better", "unclear": "unclear"}[word]
    assert compared(b, a, third).verdict == opposite
    larger = [replace(record, larger_is_better=True) for record in (a, b, third)]
    assert compared(*larger).verdict == opposite


def test_two_seeds_have_no_verdict_however_far_apart() -> None:
    errors = ([60.0, 60.1, 60.2], [71.0, 71.1, 71.2], [65.0, 65.2, 65.1])
    for n, verdict in ((2, "unclear"), (3, "better")):
        records = [final(i, row[:n]) for i, row in enumerate(errors)]
        assert compared(*records).verdict == verdict


def test_without_noise_there_is_a_difference_and_no_verdict() -> None:
    a, b = final(0, [60.0]), final(1, [71.0])
    found = compared(a, b)
    assert found.difference.mean == pytest.approx(-11.0)
    assert found.difference == Difference(found.difference.mean, None, None, 1)
    assert found.difference.turned == Difference(-found.difference.mean, None, None, 1)
    assert found.verdict == "unclear"


def test_where_nothing_was_learnt_there_is_no_verdict() -> None:
    records = [final(0, [60.0, 60.1, 60.2]), final(1, [71.0, 71.2, 71.1])]
    finals = FinalMetrics.of(records, verdicts=False)
    assert finals.compare(records[0], records[1:])[0].verdict == "unclear"


def test_what_has_no_seed_in_common_is_not_compared() -> None:
    a, b = final(0, [70, 71]), final(1, [70, 71], first=2)
    assert FinalMetrics.of([a, b]).compare(a, [b]) == ()


def test_an_improvement_is_positive_where_it_is_better() -> None:
    a, b = final(0, [60.0]), final(1, [71.0])
    found = ComparedTo(a, b, Difference(-11.0, -12.0, -9.0, 3))
    assert found.improvement == Difference(11.0, 9.0, 12.0, 3)
    larger = replace(found, record=replace(a, larger_is_better=True))
    assert larger.improvement == found.difference


def on_front(*records: Record) -> list[float]:
    """The chances of these records, the whole study."""
    return FinalMetrics.of(records).on_front(records, COSTS)


def sure(*chances: float) -> object:
    """Chances of nearly 0 and 1: with few seeds none is quite sure."""
    return pytest.approx(list(chances), abs=0.02)


def test_a_clear_winner_is_on_the_front_and_what_it_beats_is_not() -> None:
    cheap, dear = [70, 70.3, 70.1], [75, 75.1, 75.3]
    assert on_front(final(0, cheap, cost=1), final(1, dear, cost=2)) == sure(1, 0)
    assert on_front(final(0, cheap, cost=1), final(1, dear, cost=1)) == sure(1, 0)


def test_two_equals_at_equal_costs_share_the_front() -> None:
    first, second = on_front(final(0, [70, 71, 72]), final(1, [71, 70, 72]))
    assert first == pytest.approx(0.5, abs=0.04)
    assert first + second == pytest.approx(1)


def test_cheaper_but_worse_is_on_the_front() -> None:
    worse, better = final(0, [90, 90.2], cost=1), final(1, [70, 70.1], cost=2)
    assert on_front(worse, better) == sure(1, 1)
    # Cheaper on one cost only: neither beats the other.
    crossed = final(2, [95.0, 95.1], cost=3, macs_conv_fc_overhead=0.5)
    assert on_front(better, crossed) == sure(1, 1)


def test_more_seeds_make_a_chance_surer() -> None:
    errors = np.array([[71.0, 71.6, 70.7, 71.2] * 4, [70.5, 70.9, 70.8, 70.3] * 4])
    chances = [
        on_front(*(final(i, row[:n], cost=i) for i, row in enumerate(errors)))[1]
        for n in (3, 8, 16)
    ]
    assert 0.5 < chances[0] < chances[1] < chances[2] < 1


def test_without_noise_the_front_is_that_of_the_means() -> None:
    records = [final(0, [70.0], cost=1), final(1, [75.0], cost=2), final(2, [65.0], cost=3)]
    assert on_front(*records) == [1, 0, 1]


def test_intervals_and_chances_are_as_sure_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits, chances, facts = [], [], []
    for _ in range(150):
        truths = rng.normal(70, 0.4, 6)
        records = simulated(rng, truths, [3, 3, 3, 3, 6, 6])
        finals = FinalMetrics.of(records)
        for a, b in ((1, 0), (4, 5)):
            (found,) = finals.compare(records[a], [records[b]])
            low, high = found.difference.low, found.difference.high
            assert low is not None
            assert high is not None
            hits.append(low <= truths[a] - truths[b] <= high)
        chances += finals.on_front(records, COSTS)[1:]
        # Costs rise with the number.
        facts += [bool(truths[i] < truths[:i].min()) for i in range(1, 6)]
    assert 0.9 <= np.mean(hits) <= 0.99
    told, true = np.array(chances), np.array(facts)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        within = (told >= low) & (told < high)
        assert within.sum() > 50
        assert true[within].mean() == pytest.approx(told[within].mean(), abs=0.12)


def test_a_false_better_is_rare_though_the_best_of_many_is_looked_at() -> None:
    rng, false = np.random.default_rng(4), 0
    for _ in range(100):
        first, *records = simulated(rng, np.full(10, 70.0), [3] * 10)
        none = replace(first, origin=REFERENCE, name="no attention")
        finals = FinalMetrics.of([none, *records])
        false += any(one.verdict == "better" for r in records for one in finals.compare(r, [none]))
    assert false <= 8
