"""The figure's numbers, and a page that opens offline and executes nothing of the study's."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import studied
from conftest import make_record
from studied import OBJECTIVES, found, html_of, measured, written

from bam_search.analysis.pareto import front_line, pareto_front
from bam_search.analysis.statistics import mean
from bam_search.report.figures import draw, draw_curves, groups
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import ABLATION, FIRST, RANDOM, REFERENCE, Record
from bam_search.tasks.metric import Metric

ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
RECORDS = [
    make_record(0, 80.0, 0.0, origin=REFERENCE, name="no attention", placement="none"),
    make_record(1, 75.0, 1.0, origin=REFERENCE, name="BAM at the bottlenecks"),
    make_record(2, 70.0, 1.5, **measured(72.0)),
    make_record(3, 90.0, 0.2),
    make_record(4, None, 0.1, failure="Traceback\nValueError: no"),
]


def test_groups_tell_references_front_and_dominated_apart() -> None:
    by_name = {group.name: group for group in groups(found(RECORDS))}
    numbers = {name: [record.number for record in group.records] for name, group in by_name.items()}
    assert numbers == {
        "searched, dominated": [3],
        "searched, on the front": [2],
        "no attention": [0],
        "BAM at the bottlenecks": [1],
    }
    assert len({group.shape for group in by_name.values()}) == 4
    assert len({group.colour for group in by_name.values()}) == 4


def test_the_random_search_is_a_group_of_its_own_and_takes_nobody_off_the_front() -> None:
    numbers = {
        group.name: [record.tag for record in group.records]
        for group in groups(found(studied.RECORDS))
    }
    assert numbers == {
        "random search": ["R0", "R1"],
        "searched, dominated": ["7"],
        "searched, on the front": ["2", "3"],
        "no attention": ["0"],
        "BAM in front": ["1"],
    }
    better = make_record(FIRST[RANDOM] + 2, 60.0, 0.0, origin=RANDOM)
    beside = {group.name: group for group in groups(found([*studied.RECORDS, better]))}
    assert beside["searched, on the front"].records == (studied.WINNER, studied.RISKY)


def test_the_line_is_the_front_of_its_panel() -> None:
    assert [record.number for record in front_line(RECORDS, "params_overhead")] == [0, 1, 2]


def test_every_axis_can_be_switched_to_and_points_know_their_candidate() -> None:
    figure = draw(found(RECORDS))
    assert isinstance(figure, go.Figure)
    names = [trace.name for trace in figure.data]
    at = names.index("searched, on the front")
    on_front = figure.data[at]
    assert (on_front.x, on_front.y, on_front.customdata) == ((1.5,), (70.0,), ("2",))
    assert len(on_front.error_y.array) == 1
    switch, scales = figure.layout.updatemenus
    assert [button.label for button in switch.buttons] == [
        "parameters",
        "MACs (conv + fc)",
        "MACs (all operators)",
        "activations",
    ]
    overheads = [button.args[0]["x"][at] for button in switch.buttons]
    assert overheads == [(1.5,), (3.0,), (4.5,), (6.0,)]  # make_record's: 1, 2, 3, 4 times
    assert all(len(button.args[0]["x"]) == len(names) for button in switch.buttons)
    assert [button.label for button in scales.buttons] == ["linear", "log"]
    assert figure.data[-1].meta == "ring"
    assert not figure.data[-1].x


def test_a_logarithmic_scale_is_offered_where_overheads_span_ten_times() -> None:
    near = [make_record(0, 80.0, 1.0, origin=REFERENCE, name="a"), make_record(1, 79.0, 2.0)]
    assert len(draw(found(near)).layout.updatemenus) == 1
    assert len(draw(found([*near, make_record(2, 79.0, 0.1)])).layout.updatemenus) == 2


def test_stopped_and_failed_candidates_have_shapes_of_their_own() -> None:
    traces = {trace.name: trace for trace in draw(found(studied.RECORDS)).data}
    stopped, failed = traces["stopped early, after a shorter training"], traces["failed"]
    assert (stopped.customdata, stopped.x, stopped.y) == (("4", "5"), (1.4, 2.0), (94.0, 87.0))
    assert (failed.customdata, failed.x) == (("6",), (0.1,))
    assert failed.y[0] > max(r.val_metric for r in studied.RECORDS if r.val_metric)
    points = [trace for trace in traces.values() if trace.mode == "markers" and trace.name]
    shapes = [trace.marker.symbol for trace in points]
    assert len(set(shapes)) == len(shapes) == 8


def test_latency_can_be_switched_to_where_it_was_measured() -> None:
    timed = replace(studied.WINNER, latency_overhead=12.0, latency_interval=(10.0, 14.0))
    figure = draw(found([studied.BASE, timed, studied.RISKY]))
    last = figure.layout.updatemenus[0].buttons[-1]
    assert last.label.startswith("latency")
    at = [trace.name for trace in figure.data].index("searched, on the front")
    latencies = dict(zip(figure.data[at].customdata, last.args[0]["x"][at], strict=True))
    assert latencies == {"2": 12.0, "3": None}
    unmeasured = draw(found(studied.RECORDS)).layout.updatemenus[0]
    assert not any("latency" in button.label for button in unmeasured.buttons)


def test_finalists_have_crosses_and_a_confident_front() -> None:
    figure = draw(found(studied.RECORDS))
    (crosses,) = [
        trace for trace in figure.data if trace.name == "mean test top-1 error of finalists"
    ]
    assert crosses.visible == "legendonly"
    assert crosses.y == pytest.approx((81.3, 76.2, 72.2, 74.2333), abs=1e-3)
    deviation = pytest.approx(0.2646, abs=1e-4)  # over seeds
    assert crosses.error_y.array[2] == deviation
    named = [trace for trace in figure.data if trace.name]
    (confident,) = [trace for trace in named if trace.name.startswith("confident front")]
    assert confident.x == (0.0, 1.0, 1.5)
    members = (studied.BASE, studied.PAPER, studied.WINNER)
    assert confident.y == pytest.approx([mean(r.test_metrics).high for r in members])
    untested = draw(found([make_record(0, 80.0, 0.0)]))
    assert len(untested.data) == 4  # the front, the point, crosses of nobody, the ring


def test_ablations_are_drawn_nowhere() -> None:
    # Even ones that had a validation top-1 error of their own.
    complete = [replace(record, val_metric=50.0, val_samples=400) for record in studied.WITHOUT]
    tags = {record.tag for record in complete}
    figure = draw(found([*studied.RECORDS[:-2], *complete]))
    for trace in figure.data:
        assert not tags & set(trace.customdata or ())
    (crosses,) = [
        trace for trace in figure.data if trace.name == "mean test top-1 error of finalists"
    ]
    assert crosses.customdata == ("0", "1", "2", "R1")


def test_curves_are_one_trace_with_gaps_and_none_where_nothing_was_measured_twice() -> None:
    figure = draw_curves(found(RECORDS))
    assert figure is not None
    lines, ring = figure.data
    assert lines.x[:3] == (1, 2, None)
    assert lines.y[:3] == (90.0, 80.0, None)
    assert lines.customdata[:4] == ("0", "0", "0", "1")
    assert ring.meta == "ring"
    assert draw_curves(found([RECORDS[4]])) is None


def test_the_page_opens_offline() -> None:
    html = html_of(RECORDS, about={"Seed": "0"})
    assert html.count("plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", html)
    assert "ValueError: no" in html


def option(i: int) -> str:
    """A site's name that is as much of an attack as can be read in a placement."""
    return f'"><script>{i}'


def test_nothing_of_the_study_is_executed() -> None:
    records = [
        *RECORDS,
        make_record(5, 60.0, 3.0, placement=f"{option(5)}=bam", name=ATTACK, origin=REFERENCE),
        make_record(6, None, 0.0, placement=ATTACK, name=ATTACK, failure=ATTACK),
        make_record(
            7,
            61.0,
            3.0,
            placement=f"{option(7)}=bam",
            name=ATTACK,
            origin=REFERENCE,
            **measured(62.0, 62.5),
        ),
        make_record(8, 59.0, 3.5, placement=f"{option(8)}=bam", **measured(61.0, 61.5)),
        make_record(9, None, 3.5, stopped=ATTACK, rung_epochs=(1,), rung_metrics=(90.0,)),
        make_record(
            FIRST[RANDOM],
            58.0,
            3.5,
            placement=f"{option(9)}=bam",
            origin=RANDOM,
            **measured(61.0, 61.5),
        ),
        make_record(
            FIRST[ABLATION] + 8000,
            None,
            3.5,
            placement=ATTACK,
            name=ATTACK,
            origin=ABLATION,
            **measured(61.0, 61.5),
        ),
        *(
            make_record(i, 80.0 + i, 1.0, placement=f"{option(i)}=bam(r=8)", id=str(i))
            for i in range(10, 16)
        ),
    ]
    choice_space = ChoiceSpace(
        {option(i): {"bam": {"r": (8, 16)}} for i in range(10, 16)}, {"bam": {"r": 16}}
    )
    html = html_of(
        [replace(record, metric_name=ATTACK, unit=ATTACK) for record in records],
        title=ATTACK,
        metric=Metric(ATTACK, ATTACK),
        sample=ATTACK,
        warning=ATTACK,
        about={ATTACK: ATTACK},
        choice_space=choice_space,
    )
    assert "<script>alert" not in html
    assert '"><script>' not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert" in html
    for heading in (
        "The finalists",
        "Against the references",
        "Where attention helps",
    ):
        assert "&lt;script&gt;" in section(html, heading)


def test_a_name_and_a_failure_are_shown_as_text() -> None:
    name, failure = "<b>bold & brave</b>", "ValueError: <img src=x> 'quoted'"
    failed = make_record(0, None, 0.0, origin=REFERENCE, name=name, failure=failure)
    html = html_of([failed], title=name)
    assert "<title>&lt;b&gt;bold &amp; brave&lt;/b&gt;</title>" in html
    assert "<td>&lt;b&gt;bold &amp; brave&lt;/b&gt;</td>" in html
    assert "<pre>ValueError: &lt;img src=x&gt; &#39;quoted&#39;</pre>" in html


def test_a_warning_is_on_top() -> None:
    html = html_of(RECORDS, warning="These are generated images")
    assert html.index("These are generated images") < html.index("The answer")


def test_a_study_without_a_finished_candidate_has_a_page() -> None:
    assert "ValueError: no" in html_of([RECORDS[4]])
    assert "a study" in html_of([])


def section(html: str, heading: str) -> str:
    """A section's HTML, from its heading to the next section; empty if there is none."""
    after = html.split(f">{heading}</h", 1)[1:]
    return after[0].split("<section>")[0] if after else ""


def rows(html: str) -> list[list[str]]:
    """The cells of the tables in a part of the page."""
    return [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)
        for row in re.findall(r"<tr.*?</tr>", html, re.S)
    ]


@pytest.fixture(scope="module")
def whole() -> str:
    """The page of the invented study."""
    return html_of(studied.RECORDS)


def test_the_sections_come_in_order(whole: str) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", whole) == [
        "The answer",
        "Overhead and top-1 error",
        "The finalists",
        "Against the references",
        "Where attention helps",
        "What stopping early did",
        "Training curves",
        "The front of the search",
        "All candidates",
        "How it was run",
    ]


def test_the_answer_has_the_recommendation_and_the_verdicts(whole: str) -> None:
    answer = section(whole, "The answer")
    assert "<li>A trial run: the last epoch still gained" in answer
    assert "<li>Recommended, as the cheapest that nothing tested is measurably better" in answer
    assert "<p>layer1=bam (#2 without layer2) is</p>" in answer
    assert re.search(r"<li>better than no attention: -9\.\d\d points \(95 % credible", answer)
    assert "For each overhead budget the cheapest that nothing tested within it" in answer


def test_the_finalists_have_their_numbers(whole: str) -> None:
    head, *body = rows(section(whole, "The finalists"))
    assert head[3:8] == [
        "test top-1 error, %",
        "s.d.",
        "90 % interval",
        "n",
        "on the front",
    ]
    assert body[2][:7] == [
        "2",
        "search",
        "layer1=bam layer2=bam(r=8)",
        "72.20",
        "0.26",
        "71.75 to 72.65",
        "3",
    ]
    assert [row[0] for row in body] == ["0", "1", "2", "R1"]
    assert "would be told apart in four of five" in section(whole, "Against the references")
    difference = rows(section(whole, "Against the references"))
    assert difference[0] == ["#", "placement", "minus no attention", "minus BAM in front"]
    assert re.match(r"-9\.\d\d \(", difference[3][2])
    assert difference[3][2].endswith("n = 3: better")


def test_the_effects_and_ablations_have_their_numbers(whole: str) -> None:
    part = section(whole, "Where attention helps")
    effects = {row[0]: row[1:] for row in rows(part)}
    assert {"layer1=bam", "layer9=bam", "bam(r=8)", "bam(r=16)"} <= set(effects)
    assert effects["layer1=bam"][2] == "2"
    assert "an additive model of 25 trainings of 7 placements" in " ".join(part.split())
    assert "<h3>Without each of its sites: layer1=bam layer2=bam(r=8)</h3>" in part
    assert effects["#2 without layer1"][0].endswith("n = 3: worse")
    assert "n = 3: cannot tell within 0." in effects["#2 without layer2"][0]


def test_what_stopping_early_did(whole: str) -> None:
    part = section(whole, "What stopping early did")
    assert (
        "Rungs stopped 2 candidates: the search took 25 epochs, "
        "and without rungs it would have taken 20 epochs" in part
    )
    assert (
        "Control group: of 2 candidates trained on although the pruner would have stopped them, "
        "1 ended on the front" in part
    )
    assert "Rank correlation of 1 epoch with the full training, Kendall&#39;s tau: 0.80 (" in part
    assert ", 5 candidates)" in part


def test_all_candidates_are_shown_with_why_they_ended(whole: str) -> None:
    part = section(whole, "All candidates")
    assert [row[0] for row in rows(part)[1:]] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "R0",
        "R1",
        "A2000",
        "A2001",
    ]
    assert "<summary>2 stopped early</summary>" in part
    assert "#4 layer4=bam: stopped after 1 epoch: 79.0 % to expect after all" in part
    assert "Candidate 6 failed" in part


def test_the_front_of_the_search_has_none_of_the_random_search(whole: str, tmp_path: Path) -> None:
    # R0, 79 % at +0.5 %, is beaten by nothing.
    assert studied.DRAWN in pareto_front(studied.RECORDS, OBJECTIVES)
    assert [row[0] for row in rows(section(whole, "The front of the search"))[1:]] == [
        "0",
        "1",
        "3",
        "2",
    ]
    written(tmp_path, studied.RECORDS)
    assert list(pd.read_csv(tmp_path / "front.csv")["number"]) == [0, 1, 3, 2]


def test_no_placement_is_cut_short() -> None:
    long = " ".join(f"layer{i}=bam(r=8)" for i in range(1, 10))
    html = html_of([make_record(0, 70.0, 1.0, placement=long, **measured(70.0, 71.0))])
    for heading in ("The finalists", "The front of the search", "All candidates"):
        assert long in section(html, heading)


def plain(record: Record) -> Record:
    """The record without rungs."""
    return replace(record, rung_epochs=(), rung_metrics=())


PARTS: dict[str, tuple[list[Record], set[str], set[str]]] = {
    # What a study has, and the headings that its page has and has not.
    "only references": (
        [plain(studied.BASE), plain(studied.PAPER)],
        {"The finalists", "Against the references"},
        {"What stopping early did"},
    ),
    "one reference": (
        [plain(studied.BASE)],
        {"The finalists"},
        {"Where attention helps", "What stopping early did"},
    ),
    "no finalists yet": (
        [r for r in studied.RECORDS if not r.is_tested],
        set(),
        {"The finalists", "Against the references"},
    ),
    "everything failed": (
        [studied.FAILED],
        {"All candidates"},
        {"The finalists", "The front of the search", "Where attention helps"},
    ),
    "all stopped": (
        [studied.STOPPED, studied.LATER],
        {"What stopping early did"},
        {"The finalists"},
    ),
    "random alone": (
        [studied.DRAWN, studied.LUCKY],
        {"The finalists"},
        {"What stopping early did"},
    ),
    "nothing": ([], {"The answer"}, {"The finalists", "All candidates"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_partial_study_has_a_page_of_what_there_is(name: str, tmp_path: Path) -> None:
    records, there, missing = PARTS[name]
    html = written(tmp_path, records).read_text(encoding="utf-8")
    headings = set(re.findall(r"<h[23]>(.*?)</h[23]>", html))
    assert there <= headings
    assert not missing & headings
    tested = any(record.is_finalist for record in records)
    assert ("For each overhead budget" in html) == tested


def test_ablations_are_shown_even_if_there_are_too_few_records_for_effects() -> None:
    html = html_of([studied.BASE, studied.WINNER, *studied.WITHOUT])
    assert "#2 without layer1" in section(html, "Where attention helps")
    assert "additive model" not in html


def test_a_final_training_that_failed_is_shown() -> None:
    traceback = "Traceback\nOSError: full"
    failed = make_record(5, 70.0, 1.0, test_failure=traceback, **measured(71.0))
    html = html_of([studied.BASE, failed])
    assert "Candidate 5 failed" in html
    assert "OSError: full" in html
