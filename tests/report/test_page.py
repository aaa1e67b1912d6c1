"""The figure's numbers, and a page that opens offline and executes nothing of the study's."""

import re

import plotly.graph_objects as go
from conftest import make_record

from bam_search.report.figures import draw, groups, stairs
from bam_search.report.page import page
from bam_search.search.record import REFERENCE

OBJECTIVES = ("error", "params_overhead", "macs_conv_fc_overhead")
ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
RECORDS = [
    make_record(0, 80.0, 0.0, origin=REFERENCE, name="no attention", placement="none"),
    make_record(1, 75.0, 1.0, origin=REFERENCE, name="BAM at the bottlenecks"),
    make_record(2, 70.0, 1.5, test_error=72.0, test_images=1000),
    make_record(3, 90.0, 0.2),
    make_record(4, None, 0.1, failure="Traceback\nValueError: no"),
]


def test_groups_tell_references_front_and_dominated_apart() -> None:
    found = {group.name: group for group in groups(RECORDS, OBJECTIVES)}
    numbers = {name: [record.number for record in group.records] for name, group in found.items()}
    assert numbers == {"searched, dominated": [3], "searched, on the front": [2], "no attention": [0], "BAM at the bottlenecks": [1]}
    assert len({group.shape for group in found.values()}) == len({group.colour for group in found.values()}) == 4


def test_the_line_is_the_front_of_its_panel() -> None:
    assert [record.number for record in stairs(RECORDS, "params_overhead")] == [0, 1, 2]


def test_both_axes_are_drawn_with_the_placement_in_the_hover() -> None:
    figure = draw(RECORDS, OBJECTIVES)
    assert isinstance(figure, go.Figure)
    points = [trace for trace in figure.data if trace.name == "searched, on the front"]
    assert [trace.x for trace in points] == [(1.5,), (3.0,)]
    assert [trace.xaxis for trace in points] == ["x", "x2"]
    assert all(trace.y == (70.0,) and "layer2=bam" in trace.text[0] and "72.00" in trace.text[0] for trace in points)
    assert [len(trace.error_y.array) for trace in points] == [1, 1]


def test_the_page_opens_offline() -> None:
    html = page("a study", OBJECTIVES, "", {"Seed": "0"}, RECORDS)
    assert html.count("plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", html)
    assert "ValueError: no" in html


def test_nothing_of_the_study_is_executed() -> None:
    records = [
        *RECORDS,
        make_record(5, 60.0, 3.0, placement=ATTACK, name=ATTACK, origin=REFERENCE),
        make_record(6, None, 0.0, failure=ATTACK),
    ]
    html = page(ATTACK, OBJECTIVES, ATTACK, {ATTACK: ATTACK}, records)
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert" in html


def test_a_warning_is_on_top() -> None:
    html = page("a study", OBJECTIVES, "These are generated images", {}, RECORDS)
    assert html.index("These are generated images") < html.index("The answer")


def test_a_study_without_a_finished_candidate_has_a_page() -> None:
    assert "ValueError: no" in page("a study", OBJECTIVES, "", {}, [RECORDS[4]])
    assert "a study" in page("a study", OBJECTIVES, "", {}, [])
