"""The page in a real browser, from a file:// address.

What clicking, brushing, sorting, switching and downloading do.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import studied
from conftest import make_record
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    sync_playwright,
)
from studied import RECORDS, html_of, measured, written

from bam_search.report.commands import Origin
from bam_search.study.record import REFERENCE

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: install the distribution's package"
)
FIGURE = "document.getElementById('figure-candidates')"
ATTACK = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page that was opened, and all that it complained of or asked the network for."""

    def __init__(
        self, browser: Browser, path: Path, fragment: str = "", width: int = 1280, **context: Any
    ) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, **context)
        self.said: list[str] = []
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._note_dialog)
        self.page.on("request", self._note_request)
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_selector("body[data-ready]", state="attached")

    def explore(self) -> None:
        """Scroll to the figure of candidates, which is drawn when it comes into sight."""
        self.page.locator("#figure-candidates").scroll_into_view_if_needed()
        self.page.wait_for_selector("#figure-candidates .main-svg", state="attached")

    def address(self) -> dict[str, list[str]]:
        """What the address says of what is seen."""
        return parse_qs(urlsplit(self.page.url).fragment)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def _note_dialog(self, dialog: Dialog) -> None:
        self.said.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith(("file:", "blob:", "data:")):
            self.said.append(request.url)

    def tags(self) -> list[str]:
        """The candidates that the table of all shows, in its order."""
        return self.page.eval_on_selector_all(
            "table.all tbody tr", "rows => rows.filter(r => !r.hidden).map(r => r.dataset.tag)"
        )

    def chosen(self) -> set[str]:
        """The candidates whose rows are marked."""
        return set(
            self.page.eval_on_selector_all("tr.chosen", "rows => rows.map(r => r.dataset.tag)")
        )

    def ring(self) -> list[list[float | None]]:
        """Where the figure of candidates has its ring, once it is drawn."""
        last = f"{FIGURE}.data.at(-1)"
        self.page.wait_for_function(f"{last}.x.length")
        return self.page.evaluate(f"[[...{last}.x], [...{last}.y]]")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the whole invented study."""
    return written(tmp_path_factory.mktemp("page"), RECORDS)


@pytest.fixture
def opened(browser: Browser, everything: Path) -> Iterator[Opened]:
    """That page, opened; nothing may have gone wrong by the end of the test."""
    made = Opened(browser, everything)
    yield made
    assert made.said == []
    made.page.close()


def test_a_row_selects_its_candidate_everywhere(opened: Opened) -> None:
    opened.explore()
    assert opened.page.locator("#detail").is_hidden()
    opened.page.locator("table.all tr[data-tag='2']").click()
    assert opened.chosen() == {"2"}
    # Among finalists, differences, the front and all candidates.
    assert opened.page.locator("tr.chosen").count() >= 3
    detail = opened.page.locator("#detail")
    assert "layer1=bam layer2=bam(r=8)" in detail.inner_text()
    assert "export DIR --candidate '2'" in detail.inner_text()
    assert "--placement 'layer1=bam layer2=bam(r=8)'" in detail.inner_text()
    assert detail.locator("svg.strip text", has_text="B").count() == 2  # two modules are drawn
    assert detail.locator("svg.strip text", has_text="r8").count() == 1
    assert opened.address() == {"candidate": ["2"]}
    assert opened.ring() == [[1.5], [70.0]]
    assert opened.page.locator(".wide .mark.chosen").count() == 2  # a panel for each cost


def test_no_button_uploads_a_chart(opened: Opened) -> None:
    opened.explore()
    buttons = opened.page.eval_on_selector_all(
        ".modebar-btn", "found => found.map(b => b.dataset.title ?? b.dataset.attr ?? '')"
    )
    titles = " ".join(buttons).lower()
    assert "zoom" in titles  # it is this toolbar that was looked at
    assert "share" not in titles
    assert "cloud" not in titles
    assert opened.page.evaluate(f"{FIGURE}._context.showSendToCloud") is False


def test_keys_do_what_a_click_does_and_escape_closes(opened: Opened) -> None:
    opened.page.locator("table.all tr[data-tag='2']").focus()
    opened.page.keyboard.press("Enter")
    assert opened.chosen() == {"2"}
    opened.page.keyboard.press("ArrowDown")
    assert opened.chosen() == {"3"}
    assert opened.page.evaluate("document.activeElement.dataset.tag") == "3"
    opened.page.keyboard.press("Escape")
    assert opened.chosen() == set()
    assert opened.page.locator("#detail").is_hidden()
    assert opened.address() == {}


def test_every_control_is_reached_by_tab(opened: Opened) -> None:
    """All that can be clicked is what Tab reaches, or one of a group that arrow keys go through."""
    out_of_reach = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, a, [role=slider]")]
        .filter(one => one.tabIndex < 0 && one.getClientRects().length
          && !one.closest(".modebar")).map(one => one.outerHTML)"""
    )
    assert out_of_reach == []
    groups = opened.page.evaluate(
        """() => [...document.querySelectorAll(".wide .panel, main tbody")]
        .filter(one => one.querySelector("[data-tag]"))
        .map(one => one.querySelectorAll("[data-tag][tabindex='0']").length)"""
    )
    assert set(groups) == {1}
    opened.page.locator(".wide .panel .mark[tabindex='0']").first.focus()
    opened.page.keyboard.press("Enter")
    (first,) = opened.chosen()
    opened.page.keyboard.press("ArrowRight")
    assert opened.chosen() != {first}


def test_a_point_a_mark_and_an_address_select_too(
    opened: Opened, browser: Browser, everything: Path
) -> None:
    opened.explore()
    points = "{points: [{customdata: '3'}]}"
    opened.page.evaluate(f"{FIGURE}.emit('plotly_click', {points})")
    assert opened.chosen() == {"3"}
    opened.page.locator(".wide .mark[data-tag='1']").first.click()
    assert opened.chosen() == {"1"}
    opened.page.evaluate("location.hash = '#candidate=6'")
    opened.page.wait_for_function(
        "document.querySelector('#detail pre').textContent.includes('ValueError: no')"
    )
    assert opened.chosen() == {"6"}
    linked = Opened(browser, everything, "#candidate=R1")
    assert linked.chosen() == {"R1"}
    assert Opened(browser, everything, "#candidate=99").chosen() == set()


def test_the_detail_stays_in_sight(opened: Opened) -> None:
    opened.page.locator("table.all tr[data-tag='7']").click()
    opened.page.locator("#detail").wait_for()
    for y in (0, 2000):
        opened.page.evaluate(f"scrollTo(0, {y})")
        box = opened.page.locator("#detail").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] == pytest.approx(900)
    opened.page.get_by_role("button", name="close").click()
    assert opened.page.locator("#detail").is_hidden()


def test_a_link_shows_what_one_saw(opened: Opened, browser: Browser, everything: Path) -> None:
    page = opened.page
    opened.explore()
    page.get_by_label("overhead in").select_option("macs_conv_fc_overhead")
    page.locator("label", has_text="scale").locator("select").select_option("log")
    page.get_by_role("searchbox").fill("layer")
    page.evaluate(f"{FIGURE}.emit('plotly_selected', {{range: {{x: [2, 5], y: [71, 69]}}}})")
    page.locator("table.all th button", has_text="seconds").click()
    track = page.get_by_role("slider", name="layer1", exact=False).first
    track.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    page.locator("table.all tr[data-tag='2']").click()
    assert set(opened.address()) == {
        "axis", "scale", "filter", "box", "sort", "axes", "candidate"
    }  # fmt: skip
    linked = Opened(browser, everything, f"#{urlsplit(page.url).fragment}")
    linked.explore()
    assert linked.tags() == opened.tags() == ["2"]
    assert linked.chosen() == {"2"}
    assert linked.page.locator("label", has_text="scale").locator("select").input_value() == "log"
    assert "MACs (conv + fc)" in linked.page.evaluate(f"{FIGURE}.layout.xaxis.title.text")
    assert linked.page.locator("th[aria-sort]").first.inner_text().startswith("SECONDS".lower())
    assert linked.said == []


def test_the_contents_scroll_and_keep_the_address(opened: Opened) -> None:
    opened.page.locator("table.first tr[data-tag='1']").click()
    opened.page.locator("nav a", has_text="Explore").click()
    assert opened.address() == {"candidate": ["1"]}
    top = opened.page.evaluate("document.getElementById('explore').getBoundingClientRect().top")
    assert 0 <= top < 120


def test_hovering_shows_the_placement_drawn(opened: Opened) -> None:
    opened.explore()
    at = opened.page.evaluate(
        f"(() => {{ const layout = {FIGURE}._fullLayout, x = layout.xaxis, y = layout.yaxis;"
        " return [x._offset + x.d2p(1.5), y._offset + y.d2p(70)]; })()"
    )
    frame = opened.page.locator("#figure-candidates").bounding_box()
    assert frame is not None
    opened.page.mouse.move(frame["x"] + at[0] + 30, frame["y"] + at[1] - 30)
    opened.page.mouse.move(frame["x"] + at[0], frame["y"] + at[1], steps=5)
    tip = opened.page.locator("#tip")
    tip.wait_for(state="visible")
    assert "#2 search" in tip.inner_text()
    assert tip.locator("svg.strip").count() == 1


def test_tables_sort_by_number_and_back(opened: Opened) -> None:
    head = opened.page.locator("table.all th button", has_text="validation top-1 error")
    head.click()
    assert opened.tags()[:4] == ["2", "R1", "3", "1"]
    assert set(opened.tags()[-3:]) & {"4", "5", "6"}  # what has no number comes last
    head.click()
    assert opened.tags()[:3] == ["0", "R0", "7"]
    assert opened.page.locator("table.all th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_the_filter_and_the_downloads_agree(opened: Opened) -> None:
    opened.page.get_by_role("searchbox").fill("layer1=bam")
    shown = opened.tags()
    assert shown == ["1", "2", "A2001"]
    assert "3 of 12" in opened.page.locator(".controls:has(input)").inner_text()
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("#,origin,name,placement")
    assert [line.split(",")[0] for line in lines[1:]] == shown
    assert lines[2].split(",")[3] == "layer1=bam layer2=bam(r=8)"
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="JSON").click()
    records = json.loads(Path(download.value.path()).read_text())
    assert [record["tag"] for record in records] == shown
    opened.page.get_by_role("button", name="All", exact=True).click()
    assert len(opened.tags()) == 12


@pytest.mark.parametrize(("kind", "begins"), [("SVG", b"<svg"), ("PNG", b"\x89PNG")])
def test_a_figure_is_saved(opened: Opened, kind: str, begins: bytes) -> None:
    opened.explore()
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name=kind).first.click()
    assert Path(download.value.path()).read_bytes().startswith(begins)


@pytest.mark.slow
def test_saved_pictures_are_light(browser: Browser, everything: Path) -> None:
    dark = Opened(browser, everything, color_scheme="dark")
    dark.explore()
    with dark.page.expect_download() as download:
        dark.page.get_by_role("button", name="SVG").first.click()
    svg = Path(download.value.path()).read_text()
    assert "rgb(31, 35, 40)" in svg  # the ink of the light page
    assert "rgb(230, 232, 235)" not in svg


def test_brushes_of_the_figure_and_of_the_axes_filter_the_table(opened: Opened) -> None:
    opened.explore()
    box = "{range: {x: [1.4, 3.1], y: [69, 79]}}"
    opened.page.evaluate(f"{FIGURE}.emit('plotly_selected', {box})")
    assert opened.tags() == ["2", "7", "R1"]
    assert "brushed" in opened.page.locator(".controls:has(input)").inner_text()
    opened.page.evaluate(f"{FIGURE}.emit('plotly_deselect')")
    assert len(opened.tags()) == 12
    track = opened.page.get_by_role("slider", name="what is kept of top-1 error, %")
    track.scroll_into_view_if_needed()
    at = track.bounding_box()
    assert at is not None
    y = at["y"] + at["height"] / 2
    opened.page.mouse.move(at["x"] + 1, y)
    opened.page.mouse.down()
    # The better part of the errors.
    opened.page.mouse.move(at["x"] + 0.45 * at["width"], y, steps=4)
    opened.page.mouse.up()
    assert opened.tags() == ["2", "3", "R1"]
    assert track.get_attribute("aria-valuetext") == "69.79 to 74.48"
    opened.page.keyboard.press("Tab")
    opened.page.get_by_role("button", name="All", exact=True).click()
    assert len(opened.tags()) == 12
    assert track.get_attribute("aria-valuetext") == "all"


def test_a_click_and_keys_keep_a_choice(opened: Opened) -> None:
    track = opened.page.get_by_role("slider", name="what is kept of layer2")
    track.focus()
    opened.page.keyboard.press("ArrowLeft")  # the last choice
    assert track.get_attribute("aria-valuetext") == "bam(r=8,d=4)"
    assert opened.tags() == ["2"]
    opened.page.keyboard.press("Delete")
    assert len(opened.tags()) == 12
    at = track.bounding_box()
    assert at is not None
    track.click(position={"x": at["width"] - 3, "y": 10})
    assert opened.tags() == ["2"]
    track.click(position={"x": at["width"] - 3, "y": 10})
    assert len(opened.tags()) == 12


def test_the_axis_switches_and_the_ring_moves_along(opened: Opened) -> None:
    opened.explore()
    opened.page.locator("table.all tr[data-tag='2']").click()
    opened.page.get_by_label("overhead in").select_option("macs_conv_fc_overhead")
    opened.page.wait_for_function(f"{FIGURE}.data.at(-1).x[0] === 3")
    assert "MACs (conv + fc)" in opened.page.evaluate(f"{FIGURE}.layout.xaxis.title.text")


def test_nothing_of_a_hostile_study_runs(browser: Browser, tmp_path: Path) -> None:
    records = [
        make_record(
            0, 80.0, 0.0, origin=REFERENCE, name=ATTACK, placement="none", **measured(81.0)
        ),
        make_record(1, 79.0, 1.0, placement='"><script>3=bam', name=ATTACK),
        make_record(2, None, 1.0, placement=ATTACK, failure=ATTACK, by_operator={ATTACK: 1}),
    ]
    path = written(
        tmp_path,
        records,
        title=ATTACK,
        warning=ATTACK,
        about={ATTACK: ATTACK},
        origin=Origin(ATTACK, ATTACK, ATTACK, ATTACK),
    )
    opened = Opened(browser, path)
    for tag in ("0", "1", "2"):
        opened.page.locator(f"table.all tr[data-tag='{tag}']").click()
        assert ATTACK in opened.page.locator("#detail").inner_text()
    opened.explore()
    hover = "{points: [{customdata: '1'}], event: {clientX: 9, clientY: 9}}"
    opened.page.evaluate(f"{FIGURE}.emit('plotly_hover', {hover})")
    assert ATTACK in opened.page.locator("#tip").inner_text()
    assert opened.page.locator("img").count() == 0
    assert opened.said == []


@pytest.mark.slow
def test_a_study_of_nothing_and_one_of_failures_open(browser: Browser, tmp_path: Path) -> None:
    for name, records in (("nothing", []), ("failed", [studied.FAILED]), ("one", [studied.BASE])):
        (tmp_path / name).mkdir()
        assert Opened(browser, written(tmp_path / name, records)).said == []


@pytest.mark.parametrize("width", [pytest.param(1920, marks=pytest.mark.slow), 1280, 390])
def test_nothing_sticks_out_at_any_width(browser: Browser, everything: Path, width: int) -> None:
    opened = Opened(browser, everything, "#candidate=2", width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.said == []


def test_the_first_screen_needs_no_scrolling(opened: Opened) -> None:
    table = opened.page.locator("table.first").bounding_box()
    assert table is not None
    assert table["y"] + table["height"] <= 900


def test_a_swipe_over_a_figure_or_an_axis_scrolls(browser: Browser, everything: Path) -> None:
    opened = Opened(browser, everything, "", 390, has_touch=True, is_mobile=True)
    opened.explore()
    assert opened.page.evaluate(f"{FIGURE}.layout.dragmode") is False
    assert (
        opened.page.eval_on_selector(".axis-track", "one => getComputedStyle(one).touchAction")
        == "pan-y"
    )


def test_a_page_without_its_library_says_so(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(html_of(RECORDS, "none"))
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", state="attached")
    assert "needs plotly.js" in page.locator("#figure-candidates").inner_text()
    assert page.locator(".wide .mark").count() == 12
    page.locator("table.all tr[data-tag='2']").click()
    assert page.locator("#detail svg.strip").count() == 1


@pytest.mark.parametrize(
    ("scheme", "width"),
    [("light", 1280), pytest.param("dark", 390, marks=pytest.mark.slow)],
)
def test_axe_finds_nothing(browser: Browser, everything: Path, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened = Opened(
        browser, everything, "#candidate=2", width, color_scheme=scheme, bypass_csp=True
    )
    opened.explore()
    found = axe.run(opened.page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


MARKS = [f"r{i}" for i in range(6)] + [f"m{i}" for i in range(7)]
MARKS += ["front", "other", "failed", "better", "worse", "unclear", "best", "middle", "worst"]
MARKS += [f"{way}{i}" for way in ("helps", "hurts") for i in (1, 2, 3)]


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_marks_stand_out_from_the_paper(browser: Browser, everything: Path, scheme: str) -> None:
    opened = Opened(browser, everything, color_scheme=scheme)
    colours = opened.page.evaluate(
        """names => names.map(name => {
          const probe = document.createElement("i");
          document.body.append(probe);
          probe.style.color = `var(--${name})`;
          return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
        })""",
        ["paper", *MARKS],
    )
    paper, *marks = map(luminance, colours)
    for name, mark in zip(MARKS, marks, strict=True):
        brighter, darker = max(mark, paper), min(mark, paper)
        assert (brighter + 0.05) / (darker + 0.05) >= 3, name


def luminance(colour: list[float]) -> float:
    """Of red, green and blue from 0 to 255, as WCAG 2.2 defines it."""
    linear = [
        c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for part in colour[:3]
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_prints_without_loss(opened: Opened) -> None:
    """Every table is as wide as the paper at most, and every row is there."""
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 718, "height": 1000})
    wide = opened.page.evaluate(
        "[...document.querySelectorAll('table')].filter(one => one.scrollWidth > 718"
        " || one.getBoundingClientRect().right > 719).map(one => one.innerText.slice(0, 80))"
    )
    assert wide == []
    hidden = opened.page.evaluate(
        "[...document.querySelectorAll('tr')].filter(one => !one.getClientRects().length).length"
    )
    assert hidden == 0
