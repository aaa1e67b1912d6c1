"""The clock: when the search ends for the finals, which seeds fit, and how much time is left."""

import time
from dataclasses import replace

import pytest
from conftest import make_record

from bam_search.running.forecast import Calibration, Forecast, forecast
from bam_search.running.timing import Clock, Timing
from bam_search.score.device import choose
from bam_search.score.estimate import Speed
from bam_search.search.study import load_study
from bam_search.search.workload import Sizes
from bam_search.study.record import ABLATION, RANDOM, Record

STUDY = load_study("placement", choose("cpu"), {}, [])
SIZES = Sizes(10_000, 10_000, 10_000, 10_000, 4, 6, 10_000)
EXPECTED = forecast(STUDY, SIZES, Calibration((Speed(0.0, 1e-3),), 0.0, at_once=2))
FINALISTS = [make_record(number, 80.0, 0.0) for number in range(10)]
ONE = 23.4
"""Seconds of a training here: two epochs of 10,000 samples, and 10,000 that are measured."""


def timing(left: float, fills: bool = False, expected: Forecast | None = EXPECTED) -> Timing:
    return Timing(Clock(time.monotonic() + left, fills), STUDY, expected)


def searched(seconds: float, n: int = 3) -> list[Record]:
    found = make_record(0, 80.0, 0.0, seconds=seconds)
    return [replace(found, number=number) for number in range(n)]


def test_the_search_goes_on_as_long_as_the_finals_have_time() -> None:
    finals = 10 * STUDY.finalists.seeds / 2 * ONE
    assert not timing(finals + 100).search_is_over([], lambda: FINALISTS)
    assert timing(finals).search_is_over([], lambda: FINALISTS)


def test_finals_that_an_extended_study_has_need_no_time() -> None:
    half = [replace(one, test_metrics=(80.0, 81.0, 82.0, 83.0, 84.0)) for one in FINALISTS[:5]]
    finals = (10 * STUDY.finalists.seeds - 5 * min(5, STUDY.finalists.seeds)) / 2 * ONE
    for seconds, is_over in ((finals + 100, False), (finals, True)):
        assert timing(seconds).search_is_over([], lambda: half + FINALISTS[5:]) == is_over


def test_trainings_that_take_longer_than_was_forecast_end_it_earlier() -> None:
    finals = 10 * STUDY.finalists.seeds / 2 * ONE
    left = timing(1.5 * finals)
    assert not left.search_is_over(searched(ONE), lambda: FINALISTS)
    assert left.search_is_over(searched(2 * ONE), lambda: FINALISTS)


def test_without_a_limit_or_a_forecast_it_is_never_over() -> None:
    assert not Timing(Clock(), STUDY, EXPECTED).search_is_over([], lambda: 100 * FINALISTS)
    assert not timing(1, expected=None).search_is_over([], lambda: 100 * FINALISTS)


def test_further_seeds_must_fit() -> None:
    allowed = timing(5 * ONE, fills=True).for_finals(lambda: [])
    assert allowed.fills
    assert allowed.fits(6)  # three rounds of two
    assert not allowed.fits(12)


def test_a_single_training_has_no_other_beside_it() -> None:
    calibration = EXPECTED.calibration
    assert calibration.seconds(1, 1000) == pytest.approx(1.0)
    assert calibration.seconds(8, 8000) == pytest.approx(4.0)
    assert calibration.seconds(0, 1000) == pytest.approx(0.5)


def test_time_is_kept_for_the_ablations_and_the_random_baseline() -> None:
    finalists = replace(STUDY.finalists, leave_one_out=True)
    longer = replace(STUDY, random_baseline=True, finalists=finalists)
    expected = forecast(longer, SIZES, EXPECTED.calibration)
    seconds = {phase.name: seconds for phase, seconds in expected.phases}
    ablations, baseline = seconds["recommended without each site"], seconds["random baseline"]
    finals = 10 * STUDY.finalists.seeds / 2 * ONE

    def left(seconds: float) -> Timing:
        return Timing(Clock(time.monotonic() + seconds, fills=True), longer, expected)

    assert left(finals + ablations).search_is_over([], lambda: FINALISTS)
    assert not left(finals + ablations + baseline + 100).search_is_over([], lambda: FINALISTS)
    drawn = make_record(0, 80.0, 0.0, seconds=None, origin=RANDOM)
    enough = left(finals + ablations + 100)
    assert not enough.search_is_over([drawn] * 1000, lambda: FINALISTS)  # all are drawn already
    without = make_record(0, 80.0, 0.0, seconds=None, test_metrics=(80.0,), origin=ABLATION)
    assert left(finals + ablations).search_is_over([drawn, without] * 1000, lambda: FINALISTS)
    assert not left(ablations + ONE / 2).for_finals(lambda: []).fits(2)
    assert left(ablations + 3 * ONE).for_finals(lambda: []).fits(2)


def test_the_time_left_is_that_of_all_that_is_to_come() -> None:
    unlimited = Timing(Clock(), STUDY, EXPECTED)
    at_first = unlimited.left("search", 0, 24, [])
    assert at_first == pytest.approx(EXPECTED.seconds, rel=0.02)
    half = unlimited.left("search", 12, 24, [])
    assert half is not None
    assert at_first is not None
    assert at_first - half == pytest.approx(12 * ONE / 2, rel=0.05)
    twice = unlimited.left("search", 12, 24, searched(2 * ONE))
    assert twice == pytest.approx(2 * half, rel=0.05)


def test_what_an_extended_study_has_trained_already_takes_no_time() -> None:
    everything = replace(STUDY.finalists, leave_one_out=True)
    longer = replace(STUDY, random_baseline=True, finalists=everything)
    unlimited = Timing(Clock(), longer, forecast(longer, SIZES, EXPECTED.calibration))
    before = unlimited.left("search", 12, 24, [])
    tested = make_record(0, 80.0, 0.0, seconds=None, test_metrics=(80.0, 81.0))
    drawn = make_record(0, 80.0, 0.0, seconds=None, origin=RANDOM)
    for trained, records in (
        (6, [tested] * 3),
        (2, [replace(tested, origin=ABLATION)]),
        (2, [drawn] * 2),
    ):
        after = unlimited.left("search", 12, 24, records)
        assert before is not None
        assert after == pytest.approx(before - trained * ONE / 2, abs=1)
    more_than_planned = unlimited.left("search", 24, 24, [tested] * 100)
    assert more_than_planned is not None
    assert more_than_planned > 0  # the other phases are to come


@pytest.mark.parametrize("workers", [14, 100])
def test_workers_that_share_a_device_take_longer_and_all_together_do_not(workers: int) -> None:
    shared = replace(STUDY, workers=workers)
    alone = forecast(shared, SIZES, Calibration((Speed(0.0, 1e-3),), 0.0, at_once=1))
    beside = min(workers, STUDY.trials)  # no more train at once than there are
    records = searched(beside * ONE)
    unlimited = Timing(Clock(), shared, alone)
    before = unlimited.left("search", 12, 24, [])
    assert unlimited.left("search", 12, 24, records) == pytest.approx(before, rel=0.05)

    # What is under way ends only when it has had its share of the device.
    finals = 10 * STUDY.finalists.seeds * ONE
    enough = Timing(Clock(time.monotonic() + finals + (beside + 4) * ONE), shared, alone)
    short = Timing(Clock(time.monotonic() + finals + (beside - 4) * ONE), shared, alone)
    assert not enough.search_is_over(records, lambda: FINALISTS)
    assert short.search_is_over(records, lambda: FINALISTS)


def test_as_many_finals_fit_as_the_time_is_for() -> None:
    assert timing(10.5 * ONE, fills=True).fitting([]) in (18, 20)  # less what the page takes
    assert timing(0, fills=True).fitting([]) == 0
    assert timing(100, expected=None).fitting([]) == 0


def test_a_budget_ends_with_its_clock() -> None:
    left = timing(1000, fills=True).left("search", 0, 24, [])
    assert left == pytest.approx(1000, abs=5)
    assert timing(100, expected=None).left("search", 0, 24, []) is None
