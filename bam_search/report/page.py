"""The report of a study: one HTML file that opens offline, and the tables beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from bam_search.analysis.findings import Findings
from bam_search.files import write
from bam_search.report.class_table import class_table
from bam_search.report.figures import draw, draw_curves
from bam_search.report.paper_table import paper_table
from bam_search.report.payload import ReportContext, payload
from bam_search.report.render import asset, embedded, render
from bam_search.report.sentences import (
    answer_line,
    believability_lines,
    outcomes_line,
    recommendation_lines,
    stopped_lines,
    stopping_lines,
    verdict_lines,
)
from bam_search.report.tables import (
    ablation_table,
    difference_table,
    effect_table,
    finalist_table,
    record_table,
    records_csv,
)
from bam_search.study.record import Record

SUBTITLE = ("Question", "Backbone", "Data", "Variant")
"""What of `about` is said below the title, where it is known."""


def write_report(
    folder: Path, context: ReportContext, findings: Findings, plotlyjs: str = "inline"
) -> Path:
    """Write index.html, records.csv and front.csv into `folder`, and return the page's path."""
    write(folder / "records.csv", records_csv(findings.records))
    write(folder / "front.csv", records_csv(findings.front))
    write(folder / "index.html", page(context, findings, plotlyjs))
    return folder / "index.html"


def page(context: ReportContext, findings: Findings, plotlyjs: str = "inline") -> str:
    """The whole page as HTML.

    `plotlyjs` is "inline" for plotly.js in the page, or "cdn" to load it from its makers' server.
    """
    return render(
        "report.html",
        plotlyjs,
        context.title,
        context=context,
        findings=findings,
        subtitle=[context.about[key] for key in SUBTITLE if key in context.about],
        metric=context.metric,
        believability=believability_lines(context.metric, findings.believability),
        recommended=recommendation_lines(findings),
        answers=[answer_line(answer) for answer in findings.answers],
        verdicts=verdict_lines(findings),
        figures=_figures(findings),
        tables=_tables(context, findings),
        classes=class_table(findings.by_class, context.classes),
        stopping=stopping_lines(findings.stopping),
        stopped=stopped_lines(findings.records),
        failures=_failures(findings.records),
        about={**context.about, **_totals(findings)},
        payload={"plotlyjs": plotlyjs, **payload(context, findings)},
        script=asset("page.js"),
    )


def _figures(findings: Findings) -> dict[str, Markup]:
    """The figures by the template's names, as HTML; empty where there is nothing to draw."""
    return {
        "candidates": embedded(draw(findings), "candidates"),
        "curves": _embedded(draw_curves(findings), "curves"),
    }


def _embedded(figure: go.Figure | None, name: str) -> Markup:
    return Markup() if figure is None else embedded(figure, name)


def _tables(context: ReportContext, findings: Findings) -> dict[str, pd.DataFrame]:
    """The tables by the template's names, as text."""
    effects = findings.effects
    return {
        "finalists": finalist_table(findings),
        "differences": difference_table(findings),
        "paper": paper_table(context.paper, findings),
        "effects": effect_table(context.metric, effects.effects if effects else ()),
        "ablations": ablation_table(findings),
        "front": record_table(findings, findings.front),
        "records": record_table(findings, findings.records),
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
        "Operators not counted": ", ".join(uncounted) or "none",
    }


def _seconds(records: Sequence[Record]) -> float:
    """The seconds of all trainings together."""
    return sum((record.seconds or 0) + (record.test_seconds or 0) for record in records)
