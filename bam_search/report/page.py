"""The report of a study: one HTML file that opens offline, and the tables beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from bam_search.analysis.findings import Findings
from bam_search.files import write
from bam_search.report.answer import first_screen
from bam_search.report.class_table import class_table
from bam_search.report.paper_table import paper_table
from bam_search.report.payload import ReportContext, payload
from bam_search.report.render import asset, render
from bam_search.report.sentences import (
    foresight_lines,
    latency_lines,
    outcomes_line,
    stopped_lines,
    stopping_lines,
)
from bam_search.report.tables import (
    ablation_table,
    budget_table,
    difference_table,
    expected_table,
    finalist_table,
    record_table,
    records_csv,
)
from bam_search.report.where import where
from bam_search.space.placement import Choice
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import RECORDS_FILE, UNCOUNTED, Record, main_records
from bam_search.words import counted

SCRIPTS = (
    "study.js",
    "drawings.js",
    "selection.js",
    "figures.js",
    "parallel.js",
    "tables.js",
    "start.js",
)
"""The parts of the page's script, in the order in which they run."""


PAGE = "index.html"
"""The page's file in the folder of a study."""


def write_report(
    folder: Path, context: ReportContext, findings: Findings, plotlyjs: str = "inline"
) -> Path:
    """Write index.html, records.csv and front.csv into `folder`, and return the page's path."""
    write(folder / RECORDS_FILE, records_csv(findings.records))
    write(folder / "front.csv", records_csv(findings.front))
    write(folder / PAGE, page(context, findings, plotlyjs))
    return folder / PAGE


def page(context: ReportContext, findings: Findings, plotlyjs: str = "inline") -> str:
    """The whole page as HTML.

    `plotlyjs` is "inline" for plotly.js in the page, or "cdn" to load it from its makers' server.
    """
    searches = any(record.is_searched for record in findings.records)
    foresight = foresight_lines(findings.foresight) if searches else []
    return render(
        "report.html",
        plotlyjs,
        context.title,
        context=context,
        findings=findings,
        heading=context.about.get("Question", context.title),
        subtitle=_subtitle(context, findings.records),
        metric=context.metric,
        first=first_screen(findings, context.sample),
        where=where(findings),
        tables=_tables(context, findings),
        classes=class_table(findings.by_class, context.classes, context.sample),
        defaults=_defaults(context.choice_space),
        searches=searches,
        has_curves=_has_curves(findings.records),
        fitted=any(record.train_metrics for record in findings.records),
        stopping=stopping_lines(findings.stopping),
        predicted=[*foresight, *latency_lines(findings.latencies)],
        stopped=stopped_lines(findings.records),
        failures=_failures(findings.records),
        about={**context.about, **_totals(findings)},
        payload={"plotlyjs": plotlyjs, **payload(context, findings)},
        script=Markup("\n").join(map(asset, SCRIPTS)),
    )


def _subtitle(context: ReportContext, records: Sequence[Record]) -> str:
    """'small · CIFAR-100 · 2 epochs': backbone, data and length of the trainings, where known."""
    backbone = context.about.get("Backbone", "").partition(":")[0]
    data, epochs = "", ""
    if records:
        data, epochs = (
            records[0].data,
            counted(records[0].final_epochs or records[0].epochs, "epoch"),
        )
    return " · ".join(filter(None, (backbone, data, epochs)))


def _defaults(space: ChoiceSpace) -> list[str]:
    """'bam is bam(r=16,d=4)' for each module that has options."""
    return [
        f"{module} is {Choice.of(module, options).text}"
        for module, options in space.defaults.items()
        if options
    ]


def _has_curves(records: Sequence[Record]) -> bool:
    """Whether a reference or searched candidate was validated after several epochs."""
    return any(len(record.epoch_metrics) > 1 for record in main_records(records))


def _tables(context: ReportContext, findings: Findings) -> dict[str, pd.DataFrame]:
    """The tables by the template's names, as text."""
    return {
        "finalists": finalist_table(findings),
        "differences": difference_table(findings),
        "paper": paper_table(context.paper, findings),
        "budgets": budget_table(findings),
        "ablations": ablation_table(findings),
        "front": record_table(findings, findings.front),
        "records": record_table(findings, findings.records),
        "expected": expected_table(findings, context.base),
    }


def _failures(records: Sequence[Record]) -> list[tuple[str, str]]:
    """The tag and the traceback of each failed training, of the search and of the finals."""
    failures = []
    for record in records:
        texts = (record.failure, record.test_failure)
        failures += [(record.tag, text) for text in texts if text]
    return failures


def _totals(findings: Findings) -> Mapping[str, str]:
    """What came of all trainings together."""
    uncounted = sorted({name for record in findings.records for name in record.uncounted})
    return {
        "Candidates": outcomes_line(findings.outcomes),
        "Training time": f"{_seconds(findings.records):,.0f} s, summed over all trainings",
        UNCOUNTED[:1].upper() + UNCOUNTED[1:]: ", ".join(uncounted) or "none",
    }


def _seconds(records: Sequence[Record]) -> float:
    """The seconds of all trainings together."""
    return sum((record.seconds or 0) + (record.test_seconds or 0) for record in records)
