"""The first screen: what it says of which study, and a figure whose labels hide nothing."""

import itertools
import re
from dataclasses import replace

import pytest
import studied
from conftest import make_record
from studied import BASE, LUCKY, PAPER, RECORDS, RISKY, WINNER, found, measured

from bam_search.report.answer import advice, first_screen, put_words
from bam_search.report.front_figure import Panel, front_figure, tick_texts, ticks
from bam_search.report.labels import Box, Wanted, place
from bam_search.space.placement import Placement
from bam_search.study.record import Record
from bam_search.tasks.classification.task import TOP1_ERROR

STUDY = [BASE, PAPER, WINNER, LUCKY]
"""Finalists without ablations."""
GUESSING = [replace(record, val_metric=90.0) for record in STUDY]
"""The same, but that no attention has learnt next to nothing."""


def test_the_advice_is_a_placement_its_evidence_and_its_costs() -> None:
    said = advice(found(STUDY))
    assert (said.headline, said.placement) == (
        "Put BAM at layer1 and layer2",
        "layer1=bam layer2=bam(r=8)",
    )
    gain, others = said.evidence
    assert re.fullmatch(
        r"9\.\d\d points less test top-1 error than no attention \(95 % interval 8\.\d\d to "
        r"9\.\d\d, 3 common seeds\), for \+1\.50 % parameters and \+3\.00 % MACs\.",
        gain,
    )
    assert others == "Nothing else that was tested is expected to be better."


def test_a_cheaper_placement_is_beside_the_best_one() -> None:
    rival = replace(RISKY, **measured(72.3, 72.4, 72.6), latency_overhead=11.6)
    said = advice(found([*STUDY, rival]))
    assert said.headline == "Put BAM at layer3"
    assert said.evidence[0].endswith("% MACs and +12 % time as trained.")
    assert re.fullmatch(
        r"It is the cheapest that nothing tested is measurably better than: the least top-1 error, "
        r"72\.\d\d % by #2 for \+1\.50 % parameters and \+3\.00 % MACs, cannot be told from it "
        r"within 0\.\d\d points\.",
        said.evidence[1],
    )


def test_a_reference_is_recommended_by_its_name() -> None:
    said = advice(found([BASE, PAPER]))
    assert (said.headline, said.placement) == ("Use BAM in front", "layer1=bam")


def test_no_attention_is_recommended_where_nothing_is_shown_to_help() -> None:
    close = replace(WINNER, **measured(81.1, 81.3, 81.4))
    said = advice(found([BASE, replace(PAPER, **measured(81.3, 81.2, 81.6)), close]))
    assert (said.headline, said.placement) == ("Use no attention", "")
    none, promising = said.evidence
    assert none.startswith("No placement is shown to help: below 0.")
    assert promising.startswith("Most promising, worth more seeds, not recommended: layer1=bam")
    near = replace(PAPER, **measured(81.1, 81.3, 81.4))
    _, promising = advice(found([BASE, near])).evidence
    assert promising.startswith("Most promising, worth more seeds, not recommended: BAM in front, ")


def test_near_chance_and_before_the_finals_nothing_is_recommended() -> None:
    chance = replace(TOP1_ERROR, chance=99.0)
    near = advice(found(GUESSING, metric=chance))
    assert near.headline == "Nothing is recommended"
    assert near.evidence[0].startswith("Near chance: ")
    words = [row.words for row in first_screen(found(GUESSING, metric=chance), "image").rows]
    assert words == ["baseline", "not compared near chance", "not compared near chance"]
    untested = [replace(r, test_metrics=(), test_seeds=()) for r in STUDY]
    screen = first_screen(found(untested), "image")
    assert screen.advice.headline == "Nothing has been tested yet"
    assert screen.advice.evidence[0].startswith("4 candidates trained in the search so far")
    assert screen.figure is None
    assert advice(found([studied.FAILED])).evidence == (
        "No candidate has been trained to the end yet.",
    )
    assert screen.rows == ()


def test_a_recommended_placement_that_cannot_be_told_from_none_is_said_to() -> None:
    # No attention is beaten by the best one, and the cheaper one is not.
    none = replace(BASE, **measured(81.0, 81.3, 80.8))
    near = replace(RISKY, **measured(80.9, 80.8, 80.7))
    best = replace(WINNER, **measured(80.2, 80.9, 80.2))
    findings = found([none, near, best])
    said = advice(findings)
    assert said.headline == "Put BAM at layer3"
    assert re.match(
        r"Cannot be told from no attention within \d\.\d\d points "
        r"\(-0\.\d\d, 95 % interval -\d\.\d\d to \+\d\.\d\d, 3 common seeds\), for \+1\.20 %",
        said.evidence[0],
    )
    rows = {row.name: row for row in first_screen(findings, "image").rows}
    assert rows["#3"].verdict == "unclear"
    assert rows["#3"].words.startswith("cannot tell within ")
    assert (rows["#2"].verdict, rows["#2"].words) == ("better", "better")


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ("layer3=bam(d=1)", "Put BAM at layer3"),
        ("layer1=bam layer2=se", "Put BAM at layer1 and SE at layer2"),
        ("a=mygate b=mygate c=mygate", "Put mygate at a, b and c"),
        ("a=bam b=bam c=bam d=bam", "Put BAM at 4 sites"),
    ],
)
def test_a_placement_in_words(placement: str, words: str) -> None:
    assert put_words(Placement.parse(placement)) == words


def test_what_is_shown_adds_up() -> None:
    """Each difference is that of the two values beside it, in the table and in the figure."""
    findings = found(RECORDS)
    overview = findings.overview
    assert overview is not None
    zero = overview.standing(overview.baseline).expected
    for one in overview.standings:
        if one.beside is not None:
            assert one.expected - zero == pytest.approx(one.beside.difference.mean)
    assert {one.record.tag for one in overview.standings} == {
        record.tag for record in RECORDS if record.is_tested
    }


def test_the_recommended_one_is_on_the_front() -> None:
    findings = found(RECORDS)
    figure = front_figure(findings)
    assert figure is not None
    for panel in figure.wide:
        (mark,) = [mark for mark in panel.marks if mark.is_recommended]
        assert mark is panel.marks[-1]  # on top
        assert f"{mark.y:.1f}" in panel.front
        assert mark.low is not None


def many(n: int) -> list[Record]:
    """Finalists that lie close together, the first four of them references."""
    names = ("no attention", "BAM at the bottlenecks", "BAM in every block", "SE in every block")
    return [
        make_record(
            i,
            80.0,
            0.4 * (i % 7),
            origin="reference" if i < 4 else "search",
            name=names[i] if i < 4 else "",
            placement="none" if i == 0 else f"layer{i}=bam",
            **measured(81.0 - 0.2 * i, 81.4 - 0.2 * i, 80.9 - 0.1 * i),
        )
        for i in range(n)
    ]


def label_boxes(panel: Panel) -> list[Box]:
    boxes = []
    for label in panel.labels:
        width = 8.2 * len(label.text)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[label.anchor] * width
        left = label.x - shift
        boxes.append(Box(left, label.y - 11, left + width, label.y + 3))
    return boxes


@pytest.mark.parametrize("n", [4, 9, 16])
def test_labels_hide_no_label_and_stay_in_their_frame(n: int) -> None:
    figure = front_figure(found(many(n)))
    assert figure is not None
    for panel in (*figure.wide, *figure.narrow):
        boxes = label_boxes(panel)
        assert 4 <= len(boxes) <= 6
        for one, other in itertools.combinations(boxes, 2):
            assert one.shared(other) == 0
        for box in boxes:
            assert box.left >= panel.frame.left - 1
            assert box.right <= panel.frame.right + 1


def test_a_label_goes_where_nothing_is() -> None:
    frame = Box(0, 0, 200, 100)
    point = Wanted(100, 50, 60, 14)
    (free,) = place([point], [], frame)
    assert free.anchor == "start"
    assert free.line_end is None
    wall = Box(105, 0, 200, 100)
    (moved,) = place([point], [(wall, 50.0)], frame)
    assert moved.box.shared(wall) == 0
    both = place([point, point], [], frame)
    assert both[0].box.shared(both[1].box) == 0


def test_ticks_are_round_and_few() -> None:
    assert ticks(0.03, 3.4, 7) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    assert tick_texts([-1.0, 0.0, 0.5], "+") == ["-1.0", "0", "+0.5"]
    assert tick_texts([80.0, 82.0]) == ["80", "82"]
    assert len(ticks(-0.001, 0.002, 5)) <= 5


def test_one_seed_has_no_bars() -> None:
    once = [
        replace(r, test_metrics=r.test_metrics[:1], test_seeds=r.test_seeds[:1])
        for r in (BASE, WINNER)
    ]
    figure = front_figure(found(once))
    assert figure is not None
    assert {mark.low for mark in figure.wide[0].marks} == {None}
    assert studied.html_of(once).count('class="bar"') == 0
