"""The page in a real browser, from a file:// address.

What clicking, brushing, sorting, switching and downloading do.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

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
from studied import RECORDS, measured, written

from bam_search.report.commands import Origin
from bam_search.study.record import REFERENCE

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: install the distribution's package"
)
FIGURE = "document.querySelector('.plotly-graph-div')"
ATTACK = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page that was opened, and all that it complained of or asked the network for."""

    def __init__(self, browser: Browser, path: Path, fragment: str = "", width: int = 1280) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900})
        self.said: list[str] = []
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._note_dialog)
        self.page.on("request", self._note_request)
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_selector(".plotly-graph-div .main-svg", state="attached")

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
        """Where the first figure has its ring, once it is drawn."""
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
    assert opened.page.locator("#detail").is_hidden()
    opened.page.locator("table.all tr[data-tag='2']").click()
    assert opened.chosen() == {"2"}
    # Among finalists, differences, the front and all candidates.
    assert opened.page.locator("tr.chosen").count() >= 3
    detail = opened.page.locator("#detail")
    assert "layer1=bam layer2=bam(r=8)" in detail.inner_text()
    assert "export DIR --candidate '2'" in detail.inner_text()
    assert "count --placement 'layer1=bam layer2=bam(r=8)'" in detail.inner_text()
    assert detail.locator("svg.strip text", has_text="B").count() == 2  # two modules are drawn
    assert detail.locator("svg.strip text", has_text="r8").count() == 1
    assert opened.page.url.endswith("#candidate-2")
    assert opened.ring() == [[1.5], [70.0]]
    assert opened.page.locator("svg.parallel polyline.chosen").get_attribute("data-tag") == "2"


def test_no_button_uploads_a_chart(opened: Opened) -> None:
    buttons = opened.page.eval_on_selector_all(
        ".modebar-btn", "found => found.map(b => b.dataset.title ?? b.dataset.attr ?? '')"
    )
    titles = " ".join(buttons).lower()
    assert "svg" in titles or "download" in titles  # it is this toolbar that was looked at
    assert "share" not in titles
    assert "cloud" not in titles
    assert opened.page.evaluate(f"{FIGURE}._context.showSendToCloud") is False


def test_keys_do_what_a_click_does(opened: Opened) -> None:
    opened.page.locator("table.all tr[data-tag='7']").focus()
    opened.page.keyboard.press("Enter")
    assert opened.chosen() == {"7"}


def test_a_point_a_line_and_an_address_select_too(
    opened: Opened, browser: Browser, everything: Path
) -> None:
    points = "{points: [{customdata: '3'}]}"
    opened.page.evaluate(f"{FIGURE}.emit('plotly_click', {points})")
    assert opened.chosen() == {"3"}
    opened.page.locator("svg.parallel polyline[data-tag='1']").dispatch_event("click")
    assert opened.chosen() == {"1"}
    opened.page.evaluate("location.hash = '#candidate-6'")
    opened.page.wait_for_function(
        "document.querySelector('#detail pre').textContent.includes('ValueError: no')"
    )
    assert opened.chosen() == {"6"}
    linked = Opened(browser, everything, "#candidate-R1")
    assert linked.chosen() == {"R1"}
    assert Opened(browser, everything, "#candidate-99").chosen() == set()


def test_hovering_shows_the_placement_drawn(opened: Opened) -> None:
    opened.page.locator(".plotly-graph-div .nsewdrag").first.scroll_into_view_if_needed()
    at = opened.page.evaluate(
        f"(() => {{ const layout = {FIGURE}._fullLayout, x = layout.xaxis, y = layout.yaxis;"
        " return [x._offset + x.d2p(1.5), y._offset + y.d2p(70)]; })()"
    )
    frame = opened.page.locator(".plotly-graph-div").first.bounding_box()
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
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name=kind).first.click()
    assert Path(download.value.path()).read_bytes().startswith(begins)


def test_brushes_of_the_figure_and_of_the_axes_filter_the_table(opened: Opened) -> None:
    points = "{points: [{customdata: '2'}, {customdata: '7'}]}"
    opened.page.evaluate(f"{FIGURE}.emit('plotly_selected', {points})")
    assert opened.tags() == ["2", "7"]
    assert opened.page.locator("svg.parallel polyline.out").count() > 0
    opened.page.evaluate(f"{FIGURE}.emit('plotly_deselect')")
    assert len(opened.tags()) == 12
    axis = opened.page.locator("svg.parallel .hold").nth(
        len(studied.CHOICE_SPACE.sites)
    )  # the error's
    # Drawings are made as they come into view, and move what is below.
    for figure in opened.page.locator(".plotly-graph-div:visible").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for(state="attached")
    # Playwright waits until what it moves to keeps its place.
    axis.hover()
    box = axis.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    axis.hover(position={"x": box["width"] / 2, "y": box["height"] - 1})
    box = axis.bounding_box()
    assert box is not None
    opened.page.mouse.down()
    # The better part of the errors.
    opened.page.mouse.move(x, box["y"] + 0.55 * box["height"], steps=4)
    opened.page.mouse.up()
    assert opened.tags() == ["2", "3", "R1"]
    opened.page.get_by_role("button", name="All", exact=True).click()
    assert len(opened.tags()) == 12
    assert opened.page.locator("svg.parallel polyline.out").count() == 0


def test_the_axis_switches_and_the_ring_moves_along(opened: Opened) -> None:
    opened.page.locator("table.all tr[data-tag='2']").click()
    opened.page.evaluate(
        f"(() => {{ const g = {FIGURE}, b = g.layout.updatemenus[0].buttons[1];"
        " return Plotly.update(g, b.args[0], b.args[1])"
        ".then(() => g.emit('plotly_buttonclicked', {})); })()"
    )
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
    hover = "{points: [{customdata: '1'}], event: {clientX: 9, clientY: 9}}"
    opened.page.evaluate(f"{FIGURE}.emit('plotly_hover', {hover})")
    assert ATTACK in opened.page.locator("#tip").inner_text()
    assert opened.page.locator("img").count() == 0
    assert opened.said == []


def test_a_study_of_nothing_and_one_of_failures_open(browser: Browser, tmp_path: Path) -> None:
    for name, records in (("nothing", []), ("failed", [studied.FAILED]), ("one", [studied.BASE])):
        (tmp_path / name).mkdir()
        assert Opened(browser, written(tmp_path / name, records)).said == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_at_any_width(browser: Browser, everything: Path, width: int) -> None:
    opened = Opened(browser, everything, "#candidate-2", width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.said == []
