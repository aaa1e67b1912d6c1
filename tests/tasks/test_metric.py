"""A metric in words: shares in percent, a number with a unit, and one without."""

import math
from typing import Any

import pytest

from bam_search.tasks.metric import Metric
from bam_search.tasks.task import Measured

ERROR = Metric("top-1 error", "%")
PSNR = Metric("PSNR", "dB", larger_is_better=True)
F1 = Metric("F1", larger_is_better=True, decimals=4)
WHOLE = Metric("people miscounted", decimals=0)


def test_titles_have_a_unit_where_there_is_one() -> None:
    assert [one.title for one in (ERROR, PSNR, F1)] == ["top-1 error, %", "PSNR, dB", "F1"]
    assert [one.difference_unit for one in (ERROR, PSNR, F1)] == ["points", "dB", ""]
    assert [one.with_unit("3") for one in (ERROR, PSNR, F1)] == ["3 %", "3 dB", "3"]
    assert [one.with_difference_unit("+3") for one in (ERROR, PSNR, F1)] == [
        "+3 points",
        "+3 dB",
        "+3",
    ]


def test_numbers_have_the_decimals_of_the_metric_and_one_less_for_one_training() -> None:
    assert (ERROR.signed(-0.001), ERROR.range(-0.001, 0.001)) == ("+0.00", "+0.00 to +0.00")
    assert (ERROR.once(81.26), ERROR.text(81.26), ERROR.signed(-0.614)) == (
        "81.3",
        "81.26",
        "-0.61",
    )
    assert (F1.once(0.61249), F1.text(0.61249), F1.signed(0.1)) == ("0.612", "0.6125", "+0.1000")
    assert (WHOLE.once(12.0), WHOLE.text(12.4), WHOLE.range(-1.2, 3.0)) == ("12", "12", "-1 to +3")


def test_what_is_minimised_is_its_own_inverse() -> None:
    assert (ERROR.minimised(3.0), F1.minimised(3.0)) == (3.0, -3.0)
    assert F1.minimised(F1.minimised(0.5)) == 0.5
    assert F1.text(F1.minimised(F1.minimised(0.0))) == "0.0000"


def test_how_it_is_shown_makes_no_other_metric() -> None:
    assert Metric("top-1 error", "%", decimals=3).identity == ERROR.identity
    others = (
        Metric("top-5 error", "%"),
        Metric("top-1 error"),
        Metric("top-1 error", "%", larger_is_better=True),
    )
    assert all(other.identity != ERROR.identity for other in others)


@pytest.mark.parametrize(
    ("value", "standard_error"),
    [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan")), (1.0, float("inf"))],
)
def test_a_measurement_is_a_number(value: float, standard_error: float) -> None:
    with pytest.raises(ValueError, match="measured"):
        Measured(value, 1.0, standard_error)


@pytest.mark.parametrize(
    "more", [{"further": {"precision, %": math.nan}}, {"by_class": (1.0, None, math.inf)}]
)
def test_what_is_measured_beside_the_metric_is_a_number_too(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"measured nan as 'precision, %'|measured inf as 'class"):
        Measured(1.0, 1.0, 1.0, **more)
    assert Measured(1.0, math.inf, 1.0, {"precision, %": 3.0}, (1.0, None)).value == 1.0
