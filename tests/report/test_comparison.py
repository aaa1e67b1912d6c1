"""Several studies in one front: its numbers and its page.

The page opens offline and executes nothing of the studies'.
"""

import re
from collections.abc import Iterable
from typing import Any

import pytest
from conftest import make_record

from bam_search.report.comparison import (
    FinishedStudy,
    Point,
    compare,
    draw,
    front,
    front_table,
    page,
)
from bam_search.study.record import Record
from bam_search.tasks.metric import binomial

ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
IDENTITY = {
    "space": "small",
    "seed": 0,
    "data": {"name": "CIFAR-100", "images": 400},
    "recipe": {"epochs": 2, "lr": 0.1},
}


def finalist(
    number: int, errors: tuple[float, ...], params: int, macs: int, **fields: object
) -> Record:
    values: dict[str, Any] = {
        "test_metrics": errors,
        "test_seeds": tuple(range(len(errors))),
        "test_standard_errors": tuple(binomial(error, 1000) for error in errors),
        "test_samples": 1000,
    }
    return make_record(number, 99.0, 0.0, params=params, macs_conv_fc=macs, **{**values, **fields})


A = FinishedStudy(
    "a",
    IDENTITY,
    (
        finalist(0, (80.0, 82.0), 100, 100),
        finalist(1, (69.0,), 200, 300),
        make_record(2, 10.0, 0.0, params=1),  # no finalist: not compared
        make_record(3, None, 0.0, failure="Traceback\nValueError: no"),
    ),
)
B = FinishedStudy(
    "b",
    IDENTITY,
    (
        finalist(0, (81.0, 81.0), 150, 90),
        finalist(1, (69.0, 72.0), 300, 300),
        finalist(2, (60.0,), 900, 900),
    ),
)
VALIDATED = FinishedStudy(
    "c",
    IDENTITY,
    (make_record(0, 75.0, 0.0, params=120, macs_conv_fc=120), make_record(1, None, 0.0)),
)


def names(points: Iterable[Point]) -> list[str]:
    return [f"{point.study}{point.record.number}" for point in points]


def test_the_joint_front_is_over_error_parameters_and_macs() -> None:
    # b0 costs fewer MACs than a0 at the same error, so both stay.
    # a1 costs less than b1 and errs less.
    assert names(compare([A, B]).front) == ["a0", "b0", "a1", "b2"]
    assert names(compare([A, B, VALIDATED]).front) == ["a0", "c0", "b0", "a1", "b2"]


def test_the_front_of_a_panel_is_over_one_cost() -> None:
    points = compare([A, B]).points
    both = [*points["a"], *points["b"]]
    assert names(front(both, ("params",))) == ["a0", "a1", "b2"]
    assert names(front(both, ("macs_conv_fc",))) == ["b0", "a1", "b2"]


def test_bars_are_over_seeds_or_over_images() -> None:
    points = compare([A, VALIDATED]).points
    assert [(point.value, point.error_bar) for point in points["a"]] == [
        (81.0, pytest.approx(2**0.5)),
        # As it would be with both seeds: the second is harder by two points.
        (70.0, pytest.approx(binomial(69.0, 1000))),
    ]
    assert [(point.value, point.error_bar) for point in points["c"]] == [
        (75.0, pytest.approx(binomial(75.0, 400)))
    ]


def test_the_table_says_what_each_error_is() -> None:
    table = front_table(compare([A, VALIDATED]))
    assert list(table["study"]) == ["a", "c", "a"]
    assert list(table["top-1 error, %"]) == [
        "81.00 ± 1.41 test",
        "75.00 (SE 2.17) validation",
        "70.00 (SE 1.46) test",
    ]
    assert list(table["n"]) == ["2", "1", "1"]


def test_what_tasks_measure_beside_the_metric_has_columns() -> None:
    further = {"test_further": {"top-5 error, %": (40.0, 42.0)}}
    measured = FinishedStudy("d", IDENTITY, (finalist(0, (79.0, 80.0), 90, 90, **further),))
    table = front_table(compare([measured, B]))
    by_study = dict(zip(table["study"], table["top-5 error, %"], strict=False))
    assert by_study == {"d": "41.00 ± 1.41", "b": ""}
    assert "top-5 error, %" not in front_table(compare([A, B])).columns


def test_what_makes_errors_incomparable_is_named() -> None:
    assert compare([A, B]).warning == ""
    other = FinishedStudy(
        "other",
        {**IDENTITY, "space": "resnet50", "recipe": {"epochs": 10, "lr": 0.1}, "seed": 4},
        B.records,
    )
    assert compare([A, B, other]).differences == (
        "seed (0 in a and b, 4 in other)",
        "recipe.epochs (2 in a and b, 10 in other)",
    )
    assert compare([A, VALIDATED]).differences == (
        "measured (mean test top-1 error in a, validation top-1 error in c)",
    )
    generated = FinishedStudy("g", {**IDENTITY, "data": {"name": "generated"}}, B.records)
    assert compare([A, generated]).differences == (
        "data.name (CIFAR-100 in a, generated in g)",
        "data.images (400 in a, not known in g)",
    )


def test_each_study_has_a_colour_and_a_shape_and_is_in_the_legend_once() -> None:
    figure = draw(compare([A, B, VALIDATED]))
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(trace.name, trace.xaxis) for trace in points] == [
        (n, axis) for axis in ("x", "x2") for n in "abc"
    ]
    assert len({(trace.marker.color, trace.marker.symbol) for trace in points}) == 3
    assert sorted(trace.name for trace in figure.data if trace.showlegend) == [
        "a",
        "b",
        "c",
        "joint front of the panel",
    ]
    assert points[0].x == (100, 200)
    assert points[3].x == (100, 300)
    assert points[0].error_y.array == (
        pytest.approx(2**0.5),
        pytest.approx(binomial(69.0, 1000)),
    )
    lines = {(trace.name, trace.xaxis): trace.x for trace in figure.data if trace.mode == "lines"}
    assert lines["b", "x"] == (150, 300, 900)
    assert lines["joint front of the panel", "x2"] == (90, 120, 300, 900)


def test_the_page_opens_offline_with_the_warning_on_top() -> None:
    html = page(compare([A, VALIDATED]))
    assert html.count("plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", html)
    assert html.index("not comparable") < html.index("The joint front")
    assert "not comparable" not in page(compare([A, B]))


def test_nothing_of_the_studies_is_executed() -> None:
    bad = FinishedStudy(
        ATTACK,
        {"space": ATTACK, "seed": ATTACK, "data": {"name": ATTACK, ATTACK: 1}, "recipe": ATTACK},
        (finalist(0, (50.0,), 1, 1, placement=ATTACK, name=ATTACK, origin=ATTACK),),
    )
    drawn = ""
    for trace in draw(compare([A, bad])).data:
        drawn += " ".join((trace.name, *(trace.text or ())))
    assert "alert" in drawn
    # Plotly renders some HTML in these texts.
    assert "<script" not in drawn
    assert "<img" not in drawn
    html = page(compare([A, bad]))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert" in html
