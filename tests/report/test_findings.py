"""What a study found, against numbers by hand from records of known values."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_record
from scipy import stats
from studied import (
    BASE,
    CHOICE_SPACE,
    DRAWN,
    FAILED,
    LATER,
    LUCKY,
    OBJECTIVES,
    PAPER,
    RECORDS,
    RISKY,
    STOPPED,
    WINNER,
    WITHOUT,
    WORSE,
    half_width,
    measured,
)

from bam_search.report.findings import (
    ablations,
    compare_to,
    finalists,
    recommended,
    search_vs_random,
    site_effects,
    stopping,
)
from bam_search.search.record import FIRST, RANDOM, REFERENCE
from bam_search.search.statistics import mean

COSTS = OBJECTIVES[1:]


def test_finalists_are_the_tested_ones_with_their_gains_on_validation_and_test() -> None:
    found = finalists(RECORDS, COSTS)
    assert [f.record for f in found] == [BASE, PAPER, WINNER, LUCKY]
    assert [f.test for f in found] == [mean(r.test_errors) for r in (BASE, PAPER, WINNER, LUCKY)]
    assert [f.validation_gain for f in found] == [None, 5.0, 10.0, 7.0]
    assert [f.test_gain for f in found] == [
        None,
        pytest.approx(5.1),
        pytest.approx(9.1),
        pytest.approx(81.3 - 74.2333, abs=1e-3),
    ]
    # Rising costs and falling errors, but for the random one.
    assert [f.p_on_front for f in found] == [1, 1, 1, 0]
    assert finalists([FAILED, STOPPED, RISKY], COSTS) == []


def test_without_a_tested_reference_there_is_no_promise() -> None:
    found = finalists([WINNER, LUCKY], COSTS)
    assert [(f.validation_gain, f.test_gain) for f in found] == [(None, None)] * 2


def test_the_winner_is_chosen_by_validation_before_any_test() -> None:
    better_on_test = replace(WORSE, **measured(60.0, 60.0, 60.0))
    assert recommended([*RECORDS, better_on_test]) is WINNER
    assert recommended([BASE, LUCKY, RISKY]) is None


def test_differences_are_paired_with_the_noise_of_all() -> None:
    first, second, third = compare_to(RECORDS, WINNER, (REFERENCE, RANDOM))
    assert [found.other for found in (first, second, third)] == [BASE, PAPER, LUCKY]
    assert [found.difference.mean for found in (first, second, third)] == [
        pytest.approx(np.mean(np.subtract(WINNER.test_errors, other.test_errors)))
        for other in (BASE, PAPER, LUCKY)
    ]
    assert first.difference.low == pytest.approx(first.difference.mean - half_width())
    assert first.difference.high == pytest.approx(first.difference.mean + half_width())
    assert [found.difference.word for found in (first, second, third)] == ["better"] * 3


def test_ablations_are_beside_the_winner() -> None:
    first, second = ablations(RECORDS)
    assert [found.record for found in (first, second)] == WITHOUT
    assert (first.difference.mean, first.difference.word) == (pytest.approx(3.0), "worse")
    assert (second.difference.mean, second.difference.word) == (pytest.approx(0.0), "tie")
    assert ablations([BASE, *WITHOUT]) == []


def test_ablations_of_a_former_winner_are_not_set_beside_the_new_one() -> None:
    # A study that was extended: #8 is better than #2, whose ablations are still in the store.
    new = make_record(8, 65.0, 2.0, **measured(66.0, 66.0, 66.0))
    assert recommended([*RECORDS, new]) is new
    assert ablations([*RECORDS, new]) == []


def test_what_the_rungs_did() -> None:
    found = stopping(RECORDS, OBJECTIVES)
    assert found is not None
    assert (found.stopped, found.control) == (2, 2)
    assert found.wrong == 1  # RISKY is on the front, WORSE is not
    # Search only: WINNER 7, RISKY 7, STOPPED 1, LATER 3, FAILED 0, WORSE 7.
    # STOPPED had 2 + 4 before it, LATER 4.
    assert (found.spent, found.saved) == (25, 10)
    assert [rung.epochs for rung in found.rungs] == [1, 2]
    complete = (BASE, PAPER, WINNER, RISKY, WORSE)
    full = [record.val_error for record in complete]
    for i, rung in enumerate(found.rungs):
        assert rung.agreement is not None
        assert rung.agreement.n == 5
        short = [record.rung_errors[i] for record in complete]
        assert rung.agreement.mean == pytest.approx(stats.kendalltau(short, full).statistic)
    without_rungs = [replace(r, rung_epochs=(), rung_errors=()) for r in (BASE, WINNER)]
    assert stopping(without_rungs, OBJECTIVES) is None


def test_search_and_random_search_are_compared_by_cost_best_error_and_hypervolume() -> None:
    objectives = ("error", "params_overhead")
    found = search_vs_random(RECORDS, objectives, startup=2)
    assert found is not None
    # The search: WINNER (70, 1.5), RISKY (74, 1.2), WORSE.
    # The random search: the first two searched ones, DRAWN (79, 0.5), LUCKY.
    # Up to the worst of either, (79, 3.0).
    volume = (79 - 70) * (3 - 1.5) + (79 - 74) * (1.5 - 1.2)
    assert found.search == (25, 70.0, pytest.approx(1.0))
    # What the random search adds is at the worst point or beaten.
    assert found.random == (16, 70.0, pytest.approx(1.0))
    alone = search_vs_random(RECORDS, objectives, startup=0)
    assert alone is not None
    assert alone.random == (8, 73.0, pytest.approx((79 - 73) * (3 - 2.5) / volume, abs=1e-6))
    assert alone.search == (25, 70.0, pytest.approx(1.0))
    assert search_vs_random([r for r in RECORDS if r.origin != RANDOM], objectives, 2) is None
    assert search_vs_random([BASE, FAILED, DRAWN], objectives, 2) is None


def test_where_attention_helps() -> None:
    found = site_effects(RECORDS, CHOICE_SPACE)
    assert found is not None
    assert found.records == 7  # complete, in the choice space: ablations have no validation error
    effects = {effect.name: effect for effect in found.effects}
    assert effects["layer1=bam"].records == 2
    assert effects["bam(r=8)"].records == 1
    assert effects["layer1=bam"].mean < 0
    assert "bam(d=4)" not in effects
    assert site_effects(RECORDS[:6], CHOICE_SPACE) is None


def test_a_placement_of_the_search_and_the_random_search_counts_once() -> None:
    again = replace(WINNER, number=FIRST[RANDOM] + 2, origin=RANDOM)
    one, two = site_effects(RECORDS, CHOICE_SPACE), site_effects([*RECORDS, again], CHOICE_SPACE)
    assert one is not None
    assert two is not None
    assert (one.records, one.left_out) == (two.records, two.left_out)
    off = make_record(9, 60.0, 1.0, placement="layer1=se")
    three = site_effects([*RECORDS, off], CHOICE_SPACE)
    assert three is not None
    assert three.records == 7


def test_a_stopped_candidate_is_in_no_ranking() -> None:
    ranked = [finalist.record for finalist in finalists(RECORDS, COSTS)]
    for record in (STOPPED, LATER):
        assert record not in ranked
        assert not record.complete
