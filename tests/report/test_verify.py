"""The data that a page carries are read back whole.

They are enough to find whatever on the page does not follow from them.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import studied
from studied import RECORDS, context, html_of

from bam_search.analysis.findings import Findings
from bam_search.errors import UserError
from bam_search.report.page import write_report
from bam_search.report.paper_table import Paper
from bam_search.report.payload import DATA, payload, read
from bam_search.report.verify import verify
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


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of the whole invented study."""
    folder = tmp_path_factory.mktemp("page")
    about = {"Question": "where?"}
    return studied.written(folder, RECORDS, paper=PAPER, about=about).read_text()


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
    assert about == context(paper=PAPER, about={"Question": "where?"}, sites=used)
    again = write_report(page_of.parent, about, Findings.of(records, about))
    assert read(again)[:2] == (about, RECORDS)


def test_a_page_follows_from_its_own_records(page_of: Path) -> None:
    numbers, wrong = verify(page_of)
    assert wrong == []
    assert numbers > 100


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ('"test_metrics":[72.0,', '"test_metrics":[71.0,', "finalists"),  # a record
        ('"larger_is_better":false', '"larger_is_better":true', "#0: it measures"),
        ('"on_front":', '"on_front":0.123,"was":', "finalists"),  # a derived number
        ("<td>72.20</td>", "<td>70.20</td>", "'The finalists'"),  # what is shown
        ("better than no attention: -9.", "better than no attention: -19.", "'The answer'"),
    ],
)
def test_a_change_anywhere_is_found(
    page_of: Path, text: str, there: str, instead: str, said: str
) -> None:
    assert there in text
    page_of.write_text(text.replace(there, instead, 1))
    _, wrong = verify(page_of)
    assert any(said in line for line in wrong)


def test_costs_are_checked_against_the_backbone(tmp_path: Path) -> None:
    base = {"params": 1000, "macs_conv_fc": 2000, "macs": 3000, "activations": 400}
    right = replace(studied.BASE, **base, by_operator={"conv": 3000})
    assert verify(studied.written(tmp_path, [right], base=base))[1] == []
    for change in ({"params": 1010}, {"macs_overhead": 1.0}, {"by_operator": {"conv": 2999}}):
        changed = replace(right, **change)
        _, wrong = verify(studied.written(tmp_path, [changed], base=base))
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
    "text", ["", "<html></html>", '<script type="application/json" id="study">{"title":1}</script>']
)
def test_what_is_no_page_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.html").write_text(text)
    with pytest.raises(UserError, match="is not the page of a report"):
        read(tmp_path / "index.html")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "other.html")


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
