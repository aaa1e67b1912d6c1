"""The data that a page carries are read back whole.

They are enough to find whatever on the page does not follow from them.
"""

import json
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import studied
from studied import RECORDS, context, html_of

from bam_search.analysis.findings import Findings
from bam_search.errors import UserError
from bam_search.report.commands import Origin, commands
from bam_search.report.page import write_report
from bam_search.report.paper_table import Paper
from bam_search.report.payload import DATA, SCHEMA, payload, read
from bam_search.report.publish import rebuilt
from bam_search.report.verify import Verdict, verify
from bam_search.space.placement import Choice
from bam_search.space.sites import Sites
from bam_search.study.published import PublishedFigure

PAPER = Paper(
    "a claim",
    (PublishedFigure("no attention", "resnet50", error=(21.5, "S"), params=(23.7, "C")),),
    "small",
    "less data",
    "ours",
)


ABOUT: dict[str, Any] = {
    "paper": PAPER,
    "about": {"Question": "where?"},
    "warning": "generated images",
    "state": "running, 3 of 40",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of the whole invented study."""
    folder = tmp_path_factory.mktemp("page")
    return studied.written(folder, RECORDS, **ABOUT).read_text()


@pytest.fixture(scope="module")
def small() -> str:
    """A page of a study without rungs, whose plotly.js is elsewhere: it is quickly made again."""
    tested = (studied.BASE, studied.PAPER, studied.WINNER)
    records = [replace(record, rung_epochs=(), rung_metrics=()) for record in tested]
    return html_of(records, "cdn", **ABOUT)


@pytest.fixture
def page_of(tmp_path: Path, text: str) -> Path:
    """That page, as a file of the test's own."""
    path = tmp_path / "index.html"
    path.write_text(text)
    return path


def test_what_a_page_carries_is_what_it_was_made_of(page_of: Path) -> None:
    about, records, _ = read(page_of)
    assert records == RECORDS
    # Of the sites those that are in the choice space, and the blocks: what a drawing needs.
    used = Sites(
        tuple(site for site in studied.SITES if not site.name.endswith("bn2")),
        blocks=studied.SITES.blocks,
    )
    assert about == context(**ABOUT, sites=used)
    again = write_report(page_of.parent, about, Findings.of(records, about))
    assert read(again)[:2] == (about, RECORDS)


@pytest.mark.parametrize("plotlyjs", ["inline", "cdn"])
def test_a_page_follows_from_its_own_records(page_of: Path, plotlyjs: str) -> None:
    page_of.write_text(rebuilt(page_of, plotlyjs))
    assert verify(page_of) == Verdict(len(RECORDS), ())


TAMPERED = {
    "record": ('"test_metrics":[72.0,', '"test_metrics":[71.0,', "'The answer'"),
    "metric of a record": (
        '"larger_is_better":false',
        '"larger_is_better":true',
        "#0: it measures",
    ),
    "derived number": ('"on_front":', '"on_front":0.123,"was":', "the data found.finalists[0]"),
    "number in a table": ("<td>72.20</td>", "<td>70.20</td>", "'The finalists'"),
    "sentence": ("9.06 points less", "19.06 points less", "19.06 points"),
    "verdict": (": better</td>", ": worse</td>", ": worse"),
    "point of a figure": (' r="6"/>', ' r="9"/>', "'The answer'"),
    "series that is hidden": ('<path class="step"', '<path hidden class="step"', "'The answer'"),
    "look of a figure": ('"look":"front"', '"look":"paper"', "the data candidates.groups[0]"),
    "title": ("<title>a study", "<title>A better study", "the title"),
    "heading": ("<h1>where?", "<h1>where else?", "where else?"),
    "banner": ('class="warning">generated', 'class="warning">real', "'where? CIFAR-100"),
    "style that hides": ("</style>", ".warning{display:none}</style>", "the style sheet"),
    "element that is hidden": (
        '<section id="finalists">',
        '<section hidden id="finalists">',
        "hidden",
    ),
    "script": ("</body>", "<script>document.title = 1</script></body>", "a script in "),
    "script's code": ('"use strict";', '"use strict";window.x=1;', "a script in "),
    "policy": ("default-src 'none'", "default-src *", "the top of the page"),
    "command": ("bam_search export DIR", "bam_search run DIR", "the data commands[3]"),
    "caption": ("Each point is one candidate", "Each point is ten candidates", "ten candidates"),
    "text after the end": ("</html>", "</html><p>and more", "<p>and more"),
}


def test_the_command_that_counts_knows_the_module_and_how_it_was_inserted() -> None:
    of = Origin("DIR", "small", "x.npz", modules=("coord=my.py:Coord",), insertion="identity")
    count, *others = commands(of)
    said = "--space small --module coord=my.py:Coord --insertion identity --placement '{placement}'"
    assert count.endswith(f"count {said}")
    assert not any("--module" in other for other in others)  # they find them in the study


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_change_anywhere_is_found(small: str, tmp_path: Path, kind: str) -> None:
    there, instead, said = TAMPERED[kind]
    assert there in small
    (tmp_path / "index.html").write_text(small.replace(there, instead, 1))
    wrong = verify(tmp_path / "index.html").wrong
    assert any(said in line for line in wrong), wrong


def test_a_change_of_plotly_is_found(page_of: Path, text: str) -> None:
    page_of.write_text(text.replace("<script>", "<script>alert(1);", 1))
    (line,) = verify(page_of).wrong
    assert line.startswith("a script in 'How it was run': ")


def test_the_last_digits_of_floats_may_differ(page_of: Path, text: str) -> None:
    """Another numpy, another machine: sums end otherwise."""
    (value,) = set(re.findall(r'"expected":(72\.\d{9,})', text))
    for change, is_wrong in ((1e-12, False), (1e-6, True)):
        page_of.write_text(text.replace(value, repr(float(value) + change)))
        assert bool(verify(page_of).wrong) == is_wrong


def test_a_page_of_another_plotly_is_told_so(page_of: Path, text: str) -> None:
    page_of.write_text(text.replace(f'"plotly":"{version("plotly")}"', '"plotly":"6.0.0"'))
    (line,) = verify(page_of).wrong
    assert line.startswith("it was made with plotly 6.0.0, ")


@pytest.mark.parametrize("schema", ["0", '"x"', "null"])
def test_a_page_of_another_schema_is_one_sentence(page_of: Path, text: str, schema: str) -> None:
    page_of.write_text(text.replace(f'"schema":{SCHEMA}', f'"schema":{schema}'))
    with pytest.raises(UserError, match=r"made by another version .* this version reads"):
        read(page_of)


def test_costs_are_checked_against_the_backbone(tmp_path: Path) -> None:
    base = {"params": 1000, "macs_conv_fc": 2000, "macs": 3000, "activations": 400}
    right = replace(studied.BASE, **base, by_operator={"conv": 3000})
    assert not verify(studied.written(tmp_path, [right], base=base)).wrong
    for change in ({"params": 1010}, {"macs_overhead": 1.0}, {"by_operator": {"conv": 2999}}):
        changed = replace(right, **change)
        wrong = verify(studied.written(tmp_path, [changed], base=base)).wrong
        assert len(wrong) == 1
        assert wrong[0].startswith("#0:")


def test_no_text_ends_the_data(tmp_path: Path) -> None:
    attack = "</script><script>alert(1)</script><!-- & \u2028 \u2029"
    records = [replace(studied.BASE, name=attack, failure=attack), *RECORDS[1:]]
    path = studied.written(tmp_path, records, title=attack)
    text = path.read_text()
    assert "</script><script>alert" not in text
    (data,) = DATA.findall(text)
    assert not set("<>&'\u2028\u2029") & set(data)
    about, found, _ = read(path)
    assert (about.title, found) == (attack, records)


def test_placements_are_carried_by_site_for_drawing() -> None:
    unreadable = replace(studied.FAILED, placement="<b>")
    values = payload(context(), studied.found([studied.BASE, studied.WINNER, unreadable]))
    assert [record["choices"] for record in values["records"]] == [
        {},
        {
            "layer1": {"module": "bam", "options": {}},
            "layer2": {"module": "bam", "options": {"r": 8}},
        },
        None,
    ]


def test_what_the_space_forbids_is_read_back(tmp_path: Path) -> None:
    illegal = frozenset(
        {("layer1", Choice("bam", (("r", 8), ("d", 4)))), ("layer2", Choice("bam"))}
    )
    space = replace(studied.CHOICE_SPACE, illegal=illegal)
    about, _, _ = read(studied.written(tmp_path, RECORDS, choice_space=space))
    assert about.choice_space == space


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html></html>",
        f'<script type="application/json" id="study">{{"schema":{SCHEMA}}}</script>',
    ],
)
def test_what_is_no_page_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.html").write_text(text)
    with pytest.raises(UserError, match="is not the page of a report"):
        read(tmp_path / "index.html")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "other.html")


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ('"test_seeds":[100,', '"test_seeds":['),
        ('"rung_epochs":[]', '"rung_epochs":[1]'),
        ('"params":1000', '"params":"many"'),
        ('"val_metric":80.0', '"val_metric":[80.0]'),
    ],
)
def test_records_that_are_none_are_one_sentence(
    small: str, tmp_path: Path, there: str, instead: str
) -> None:
    assert there in small
    (tmp_path / "index.html").write_text(small.replace(there, instead, 1))
    with pytest.raises(UserError, match="is not the page of a report"):
        verify(tmp_path / "index.html")


def test_plotly_is_in_the_page_or_its_address_is() -> None:
    inline, small = html_of(RECORDS), html_of(RECORDS, "cdn")
    assert len(inline) > 10 * len(small)
    (address,) = re.findall(r'<script src="([^"]+)"', small)
    assert re.fullmatch(r"https://cdn\.plot\.ly/plotly-[\d.]+\.min\.js", address)
    policy = re.compile(r'Content-Security-Policy" content="([^"]+)"')
    assert address in policy.findall(small)[0]
    assert "https:" not in policy.findall(inline)[0]
    (data,) = re.findall(r'id="study">(.*?)</script>', inline, re.DOTALL)
    assert json.loads(data)["records"][0]["tag"] == "0"
