"""Whether studies keep to their time: budgets to their ends, forecasts to what they take.

    python -m benchmarks.budgets --data cifar100.npz --out FILE.csv [--minutes 10 60]

Each budget is a run of the study `placement` on a CPU, in a folder of its own below --reports. A
row has the seconds that the run took by the clock from its calibration to its page, as a ratio to
the budget; how the plan had divided the time; and the load of the machine before and after. The row
without a budget is of a study of set size: what its dry run says that it takes, and what it took.
Rows that are there are not made again.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bam_search import run_study
from bam_search.running.api import StudyResult
from bam_search.running.forecast import calibrated, forecast, sizes
from bam_search.running.plan import planned
from bam_search.running.prepare import Request, RunOptions, resolve_run
from benchmarks.results import append_row, rows_done, say

COLUMNS = (
    *("budget_s", "forecast_s", "took_s", "ratio", "epochs", "candidates", "finalists"),
    *("finals", "most_seeds", "load_before", "load_after", "date"),
)
SET_SIZE: dict[str, Any] = {
    "data.images": 5000,
    "trials": 10,
    "finalists.extra": 0.0,
    "finalists.most": 3,
}
"""The study of set size: some five minutes on two cores."""
SOME = 1.0
"""Seconds for which a dry run measures a speed."""


@dataclass(frozen=True)
class Run:
    """A study that was run: its budget or none, what was forecast, and what it took, in seconds."""

    budget: float | None
    forecast: float
    took: float
    load_before: float
    result: StudyResult

    def row(self) -> Iterator[object]:
        """The row of the table."""
        records = self.result.records
        tested = [record for record in records if record.is_tested]
        yield from (self.budget or "", round(self.forecast), round(self.took))
        yield round(self.took / (self.budget or self.forecast), 3)
        searched = [record for record in records if record.is_main]
        yield from (records[0].final_epochs, len(searched), len(tested))
        yield sum(len(record.test_metrics) for record in tested)
        yield max(len(record.test_metrics) for record in tested)
        yield from (round(self.load_before, 1), round(os.getloadavg()[0], 1))
        yield time.strftime("%Y-%m-%d")


def main() -> None:
    """Run what is missing, and append a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="*", default=[10, 60])
    parser.add_argument("--reports", type=Path, default=Path("reports/budgets"))
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    done = rows_done(asked.out, COLUMNS, ("budget_s",))
    for budget in (*(60 * minutes for minutes in asked.minutes), None):
        if (str(budget or ""),) not in done:
            say(f"a budget of {budget} s" if budget else "a study of set size")
            append_row(asked.out, tuple(_run(asked.data, asked.reports, budget).row()))


def _run(data: Path, reports: Path, budget: float | None) -> Run:
    folder = reports / ("set-size" if budget is None else f"{budget:.0f}-s")
    load = os.getloadavg()[0]
    overrides = SET_SIZE if budget is None else {}
    expected = _forecast(data, budget, overrides)
    began = time.monotonic()
    result = run_study(
        "placement", data=data, device="cpu", out=folder, overrides=overrides, budget=budget
    )
    return Run(budget, expected, time.monotonic() - began, load, result)


def _forecast(data: Path, budget: float | None, overrides: dict[str, Any]) -> float:
    """What a dry run says of the same request."""
    flags = {"data": {"source": str(data)}}
    assignments = tuple(f"{key}={value}" for key, value in overrides.items())
    request = Request("placement", "cpu", assignments, flags, RunOptions(budget=budget))
    ready = resolve_run(request)
    total, test = ready.source.train, ready.source.test
    ready, plan = planned(ready, request, total, test)
    if plan:
        return plan.forecast(ready, total, test).seconds
    speed = calibrated(ready, SOME)
    return forecast(ready.study, sizes(ready, ready.study, total, test), speed).seconds


if __name__ == "__main__":
    main()
