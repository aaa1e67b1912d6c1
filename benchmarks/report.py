"""How fast the report is, for studies of 1,000 and 10,000 invented candidates.

It is built, then opened and used in headless Chromium.

    python -m benchmarks.report [--sizes 1000,10000] [--out FILE.json]

`build_s` is from records to the file, `build_cpu_s` its time on a processor, `bytes` its size,
`first_paint_s` from asking for the page to its first paint with text on it, as the browser reports
it, `ready_s` until the first screen is drawn and rows can be clicked, `figure_s` from there until
the figure of all candidates is drawn, which waits until it comes into sight, `select_ms` from a
click on a row to the next paint ("interaction to next paint"; the ring in the figures follows it).
Each is the median of `repeats`; `load` is how many processes wanted the machine when it began.
Needs Playwright and a Chromium of the distribution.
"""

import argparse
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from bam_search.analysis.findings import Findings
from bam_search.report.page import write_report
from bam_search.report.payload import ReportContext
from bam_search.running.prepare import Request, resolve_run
from bam_search.search.loop import SearchContext, candidate_generator, new_record
from bam_search.study.record import REFERENCE, SEARCH, Record
from benchmarks.results import deliver

REPEATS = 5
BUILDS = 3


def invented(size: int) -> tuple[ReportContext, list[Record]]:
    """A placement study of so many candidates with random errors.

    Each reference and the first twenty candidates have three seeds.
    """
    ready = resolve_run(
        Request("placement", "cpu", (), {"trials": size, "data": {"source": "generated"}})
    )
    plan = SearchContext(
        "invented",
        ready.task.metric,
        ready.references,
        ready.sites,
        ready.choice_space,
        ready.costs,
    )
    generator, rng, taken = candidate_generator(ready.study, plan), random.Random(0), set[str]()
    records = []
    for number in range(size):
        known = list(ready.references.items())[number : number + 1]
        placement = known[0][1] if known else generator.at_random(number, taken)
        assert placement is not None
        taken.add(placement.id)
        name = known[0][0] if known else ""
        record = new_record(
            ready.study, plan, number, REFERENCE if known else SEARCH, name, placement
        )
        error = 80 - 0.5 * len(placement.choices) + rng.gauss(0, 1)
        tests = tuple(error + rng.gauss(0, 0.3) for _ in range(3)) if number < 24 else ()
        fields = {
            "val_metric": error,
            "val_standard_error": 1.0,
            "val_samples": 1500,
            "epoch_metrics": (error + 9, error + 3, error),
            "train_losses": (4.0, 3.0, 2.5),
        }
        tested = {
            "test_metrics": tests,
            "test_standard_errors": (0.4,) * len(tests),
            "test_seeds": tuple(range(len(tests))),
            "test_samples": 10_000,
            "test_seconds": 10.0,
        }
        records.append(
            Record(**{**record.to_dict(), **fields, **(tested if tests else {}), "seconds": 10.0})
        )
    context = ReportContext(
        "invented",
        ready.task.metric,
        ready.task.sample,
        ready.study.objectives,
        "",
        {},
        ready.choice_space,
        ready.study.recommend.by,
        sites=ready.sites,
    )
    return context, records


def measure(size: int, browser: Browser, folder: Path) -> dict[str, float]:
    """The figures for a study of so many candidates."""
    context, records = invented(size)
    started = time.process_time()
    builds = [_timed(lambda: _write(folder, context, records)) for _ in range(BUILDS)]
    cpu = (time.process_time() - started) / BUILDS
    opened = [_opened(browser, folder / "index.html") for _ in range(REPEATS)]
    medians = {key: statistics.median(one[key] for one in opened) for key in opened[0]}
    return {
        "build_s": statistics.median(builds),
        "build_cpu_s": cpu,
        "bytes": (folder / "index.html").stat().st_size,
        **medians,
    }


def _write(folder: Path, context: ReportContext, records: list[Record]) -> None:
    write_report(folder, context, Findings.of(records, context))


def _opened(browser: Browser, path: Path) -> dict[str, float]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("body[data-ready]", state="attached", timeout=120_000)
    ready = time.perf_counter() - started
    explored = _timed(lambda: _explored(page))
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    selected = [_selected(page, tag) for tag in ("30", "70", "110", "150", "190")]
    page.close()
    return {
        "first_paint_s": paint / 1000,
        "ready_s": ready,
        "figure_s": explored,
        "select_ms": statistics.median(selected),
    }


def _explored(page: Page) -> None:
    """Scroll to the figure of all candidates, which is drawn when it comes into sight."""
    page.locator("#figure-candidates").scroll_into_view_if_needed()
    page.wait_for_selector("#figure-candidates .points path", state="attached", timeout=120_000)


def _selected(page: Page, tag: str) -> float:
    """Milliseconds from a click on a row to the next paint.

    They are from the browser's Event Timing (what "INP" is made of).
    """
    row = page.locator(f"table.all tr[data-tag='{tag}'] td").first
    row.scroll_into_view_if_needed()
    # Drawings above are made as they come into view, and are no part of the click.
    page.wait_for_timeout(500)
    page.evaluate(
        """() => { window.took = 0; window.watch ??= new PerformanceObserver(list => { took =
        Math.max(took, ...list.getEntries().map(one => one.duration)); }); watch.observe({type:
        'event', durationThreshold: 16}); }"""
    )
    row.click()
    page.wait_for_timeout(1000)
    return float(page.evaluate("took")) or 16.0  # less than the browser reports


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1000,10000")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium here: install the distribution's package")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "plotly": version("plotly"),
        "repeats": REPEATS,
        "load": os.getloadavg()[0],
    }
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found["chromium"] = browser.version
        for size in map(int, asked.sizes.split(",")):
            found[str(size)] = measure(size, browser, Path(folder))
            print(f"{size}: {found[str(size)]}", file=sys.stderr)
        browser.close()
    deliver(found, asked.out)


if __name__ == "__main__":
    main()
