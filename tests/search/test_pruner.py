"""Forecasts on lines of known slope, and who is stopped: never one that is cheaper anywhere."""

import numpy as np
import pytest
from conftest import make_record

from bam_search.search.pruner import MIN_RECORDS, forecast, in_control_group, should_stop
from bam_search.study.record import Record

COSTS = ("params_overhead", "macs_conv_fc_overhead")
CONTROL = [23, 27, 33, 37]
"""Of the first 60 candidates at seed 0 and a share of 0.1: a continued study must agree."""
SHORT = np.array([90.0, 88.0, 86.0, 84.0, 82.0, 80.0, 78.0, 76.0])


def trained(
    number: int, short: float, full: float | None, cost: float = 1.0, **fields: object
) -> Record:
    """A record with one rung of 1 epoch, trained to the end if `full` is known."""
    return make_record(number, full, cost, rung_epochs=(1,), rung_metrics=(float(short),), **fields)


def on_a_line(
    slope: float = 0.5, noise: float = 0.0, n: int = len(SHORT), cost: float = 1.0
) -> list[Record]:
    """full = 30 + slope * short, with a noise that the line cannot explain."""
    signs = np.array([1, -1, -1, 1, 1, -1, -1, 1])  # orthogonal to the constant and to the line
    full = 30 + slope * SHORT + noise * signs
    return [trained(i, SHORT[i], float(full[i]), cost) for i in range(n)]


def test_an_exact_line_is_found() -> None:
    found = forecast(on_a_line(0.5), 1)
    assert found is not None
    assert (found.slope, found.intercept, found.explained) == (
        pytest.approx(0.5),
        pytest.approx(30),
        pytest.approx(1),
    )
    assert found.sd == pytest.approx(0, abs=1e-9)
    assert found.full(70) == pytest.approx(65)


def test_the_scatter_about_a_line_is_its_residual_standard_deviation() -> None:
    found = forecast(on_a_line(0.5, noise=0.7), 1)
    assert found is not None
    assert found.slope == pytest.approx(0.5)
    assert found.sd == pytest.approx(0.7 * np.sqrt(8 / 6))
    total = np.var(30 + 0.5 * SHORT) + 0.7**2
    assert found.explained == pytest.approx(1 - 0.7**2 / total)


def test_a_negative_slope_is_noise() -> None:
    found = forecast(on_a_line(-0.5), 1)
    assert found is not None
    assert (found.slope, found.explained) == (0, pytest.approx(0))
    assert found.full(99) == found.full(1) == pytest.approx(np.mean(30 - 0.5 * SHORT))
    assert found.sd == pytest.approx(np.sqrt(((0.5 * (SHORT - SHORT.mean())) ** 2).sum() / 6))


def test_equal_short_errors_say_nothing() -> None:
    found = forecast([trained(i, 80.0, 60.0 + i) for i in range(8)], 1)
    assert found is not None
    assert (found.slope, found.explained, found.full(0)) == (0, 0, pytest.approx(63.5))


def test_few_candidates_forecast_nothing() -> None:
    assert MIN_RECORDS == 6
    assert forecast(on_a_line(n=MIN_RECORDS - 1), 1) is None
    assert forecast(on_a_line(n=MIN_RECORDS), 1) is not None
    # Only those count that have both values, at this rung.
    records = [*on_a_line(n=MIN_RECORDS - 1), trained(7, 80.0, None), make_record(8, 70.0, 1.0)]
    assert forecast(records, 1) is None
    assert forecast(on_a_line(), 2) is None


def stops_at(
    short: float,
    cost: float = 1.0,
    noise: float = 0.0,
    margin: float = 1.0,
    others: list[Record] | None = None,
) -> str:
    """Whether the pruner stops a candidate of this cost.

    The others are on a line at cost 1, of which the best has 68.
    """
    known = on_a_line(noise=noise) if others is None else others
    return should_stop(trained(20, short, None, cost), known, COSTS, margin)


def test_hopeless_is_what_an_equally_cheap_one_beats_beyond_the_margin() -> None:
    assert stops_at(76.2)
    assert not stops_at(75.8)
    # With a noise of 0.7 the best has 68.3, and the forecast's scatter is 0.7 * (8 / 6) ** 0.5; a
    # difference has 2 ** 0.5 of it.
    for margin in (0.5, 1.0, 2.0):
        edge = 2 * (68.3 + margin * 0.7 * np.sqrt(8 / 6) * np.sqrt(2) - 30)
        assert stops_at(edge + 0.1, noise=0.7, margin=margin)
        assert not stops_at(edge - 0.1, noise=0.7, margin=margin)


def test_the_reason_names_the_rival_and_both_errors() -> None:
    reason = stops_at(90.0)
    assert "after 1 epoch: 75.0 % to expect" in reason
    assert "#7 costs no more with 68.0 %" in reason


def test_a_rival_that_costs_more_anywhere_stops_nobody() -> None:
    assert stops_at(95.0, cost=1.0)
    assert not stops_at(95.0, cost=0.9)
    # The others: 1 % parameters, 2 % MACs.
    record = trained(20, 95.0, None, 1.5, macs_conv_fc_overhead=1.9)
    assert should_stop(record, on_a_line(), COSTS, 1.0) == ""
    assert should_stop(record, on_a_line(), ("params_overhead",), 1.0)


def test_a_rival_must_have_gone_all_the_way() -> None:
    expensive = on_a_line(cost=5.0)  # enough for a forecast, no rivals
    assert not stops_at(95.0, others=[*expensive, trained(9, 60.0, None)])
    assert stops_at(95.0, others=[*expensive, trained(9, 60.0, 60.0)])


def test_without_a_forecast_nobody_is_stopped() -> None:
    assert stops_at(99.0, others=on_a_line(n=MIN_RECORDS - 1)) == ""


def test_the_last_rung_decides() -> None:
    others = [
        make_record(
            i, 30 + SHORT[i] / 2, 1.0, rung_epochs=(1, 2), rung_metrics=(50.0, float(SHORT[i]))
        )
        for i in range(8)
    ]
    bad_then_good = make_record(20, None, 1.0, rung_epochs=(1, 2), rung_metrics=(99.0, 70.0))
    good_then_bad = make_record(20, None, 1.0, rung_epochs=(1, 2), rung_metrics=(40.0, 99.0))
    assert should_stop(bad_then_good, others, COSTS, 1.0) == ""
    assert "after 2 epochs" in should_stop(good_then_bad, others, COSTS, 1.0)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_the_control_share_is_as_stated(share: float) -> None:
    shares = [
        np.mean([in_control_group(seed, number, share) for number in range(100)])
        for seed in range(100)
    ]
    assert np.mean(shares) == pytest.approx(share, abs=0.01)
    assert max(abs(found - share) for found in shares) < 0.2
    assert len(set(shares)) > 3


def test_who_is_in_the_control_group_is_always_the_same() -> None:
    assert [number for number in range(60) if in_control_group(0, number, 0.1)] == CONTROL
    assert [number for number in range(60) if in_control_group(1, number, 0.1)] != CONTROL
    assert not any(in_control_group(0, number, 0.0) for number in range(1000))
    assert all(in_control_group(0, number, 1.0) for number in range(1000))
    # A larger share audits the same ones and more.
    few, many = (
        {number for number in range(1000) if in_control_group(0, number, share)}
        for share in (0.1, 0.3)
    )
    assert few < many
