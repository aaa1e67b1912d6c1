"""Several finished studies in one front and one page: numbers from their records, then the drawing,
then the HTML. No torch, no Optuna.
"""

import html
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bam_search.config import flat
from bam_search.errors import UserError
from bam_search.files import write
from bam_search.report.figures import INK, laid_out, markers
from bam_search.report.page import document, embedded, html_table, paragraph
from bam_search.report.tables import read_records
from bam_search.search.pareto import nondominated
from bam_search.search.record import Record, standard_error
from bam_search.search.statistics import mean

COSTS = {"params": "parameters", "macs_conv_fc": "MACs (conv + fc)"}
"""The counts that studies are compared by, of the whole network: overheads are each beside a
backbone of its own.
"""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
SHAPES = ("circle", "diamond", "square", "triangle-up", "star", "hexagon", "cross", "triangle-down")
"""Colours of Okabe and Ito's palette and shapes, one of each a study. 7 and 8 have no common
divisor, so 56 studies differ.
"""
SAME = ("error", "data", "recipe", "seed")
"""What studies must have in common for their errors to be comparable: what the error is, and these
parts of their identities. The seed draws the split."""


@dataclass(frozen=True)
class Finished:
    """A study that is compared: its name on the page, its identity as study.json has it, and all
    its records.
    """

    name: str
    identity: Mapping[str, Any]
    records: tuple[Record, ...]

    @property
    def tested(self) -> bool:
        """Whether it has finalists: then these alone are compared, by their mean test error."""
        return any(record.complete and record.test_errors for record in self.records)


@dataclass(frozen=True)
class Point:
    """A candidate in the comparison: its error in percent, and how far its error bar goes."""

    study: str
    record: Record
    error: float
    bar: float


@dataclass(frozen=True)
class Comparison:
    """All that the page shows: the points by study, the joint front, the cheapest first, how each
    study was run, and what makes their errors incomparable."""

    points: Mapping[str, tuple[Point, ...]]
    front: tuple[Point, ...]
    studies: tuple[Mapping[str, str], ...]
    differences: tuple[str, ...]

    @property
    def warning(self) -> str:
        """The differences as a sentence; empty if there are none."""
        if not self.differences:
            return ""
        return f"The errors of these studies are not comparable, as they differ in: {'; '.join(self.differences)}"


def read_study(folder: Path, name: str) -> Finished:
    """The study of a report's folder.

    Raises UserError if it is none, or has no finished candidate.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {str(folder)!r}",
            "name the folders of reports, such as reports/placement",
        )
    path = folder / "study.json"
    try:
        identity = dict(json.loads(path.read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder} is not the folder of a report: it has no study.json of a run",
            "a run writes one, with the report",
        ) from None
    found = Finished(name, identity, tuple(read_records(folder)))
    if not _points(found):
        raise UserError(
            f"{folder} has no finished candidate to compare", "continue its study first"
        )
    return found


def compare(studies: Sequence[Finished]) -> Comparison:
    """The numbers: every study's points, their joint front, and the differences between the
    studies.
    """
    points = {study.name: _points(study) for study in studies}
    everything = [point for own in points.values() for point in own]
    about = tuple(
        {**_about(study), "candidates here": str(len(points[study.name]))} for study in studies
    )
    return Comparison(
        points, tuple(front(everything, tuple(COSTS))), about, tuple(_differences(studies))
    )


def front(points: Sequence[Point], costs: Sequence[str]) -> list[Point]:
    """The points that no other beats in the error and these costs together, the cheapest first."""
    values = [(*(getattr(point.record, key) for key in costs), point.error) for point in points]
    kept = nondominated(np.array(values, dtype=float))
    return [
        points[i]
        for i in sorted(range(len(points)), key=lambda i: (values[i], points[i].study))
        if kept[i]
    ]


def draw(comparison: Comparison) -> go.Figure:
    """Error against both costs, side by side: a colour and a shape for each study, its front as a
    line, and the joint front.
    """
    figure = make_subplots(1, len(COSTS), shared_yaxes=True, horizontal_spacing=0.03)
    everything = [point for own in comparison.points.values() for point in own]
    for column, (cost, title) in enumerate(COSTS.items(), start=1):
        joint = _line(
            "joint front of the panel",
            front(everything, (cost,)),
            cost,
            {"color": INK, "dash": "dot", "width": 3},
        )
        figure.add_trace(joint.update(showlegend=column == 1), row=1, col=column)
        for i, (study, points) in enumerate(comparison.points.items()):
            colour = COLOURS[i % len(COLOURS)]
            figure.add_trace(
                _line(study, front(points, (cost,)), cost, {"color": colour, "width": 1.5}),
                row=1,
                col=column,
            )
            figure.add_trace(
                _scatter(study, points, cost, colour, SHAPES[i % len(SHAPES)], column == 1),
                row=1,
                col=column,
            )
        figure.update_xaxes(title=title, row=1, col=column)
    return laid_out(figure)


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write index.html into `folder`, and return its path."""
    write(folder / "index.html", page(comparison))
    return folder / "index.html"


def page(comparison: Comparison) -> str:
    """The whole page as HTML."""
    data = dict.fromkeys(study["data"] for study in comparison.studies)
    banner = (
        f'<p class="warning">{html.escape(comparison.warning)}.</p>' if comparison.warning else ""
    )
    sections = [
        ("Error against cost", embedded(draw(comparison)) + paragraph(READING)),
        ("The joint front", html_table(front_table(comparison))),
        ("The studies", html_table(pd.DataFrame(comparison.studies))),
    ]
    return document(
        f"bam_search: {', '.join(comparison.points)} on {' and '.join(data)}", banner, sections
    )


READING = (
    "Costs are of the whole network. A study's points are its finalists, at their mean test error with a bar of one standard deviation "
    "over seeds (with one seed, of one binomial standard error of the images); a study without finalists shows its candidates' "
    "validation errors, with a bar of one binomial standard error of the images. Lines are the fronts of each panel alone. A member of the "
    "joint front below is beaten by no point of any study in error, parameters and MACs together. MACs are multiply-adds for one image."
)


def front_table(comparison: Comparison) -> pd.DataFrame:
    """The joint front as text."""
    return pd.DataFrame([_row(point) for point in comparison.front])


def _row(point: Point) -> dict[str, str]:
    record = point.record
    return {
        "study": point.study,
        "#": record.tag,
        "placement": record.placement,
        "params": f"{record.params:,}",
        "MACs (conv + fc)": f"{record.macs_conv_fc:,}",
        "error, %": _error_text(point),
        "n": str(len(record.test_errors) or 1),
    }


def _points(study: Finished) -> tuple[Point, ...]:
    shown = [r for r in study.records if r.complete and (r.test_errors or not study.tested)]
    return tuple(Point(study.name, r, *_error(r)) for r in shown)


def _error(record: Record) -> tuple[float, float]:
    """The mean test error if there is one, else the validation error; and how far its bar goes."""
    if record.test_errors:
        found = mean(record.test_errors)
        return found.mean, standard_error(
            found.mean, record.test_images or 1
        ) if found.sd is None else found.sd
    error = record.objective("error")
    return error, standard_error(error, record.val_images or 1)


def _error_text(point: Point) -> str:
    """'81.63 ± 0.21 test': the error, its bar, and on which images."""
    return f"{point.error:.2f} ± {point.bar:.2f} {'test' if point.record.test_errors else 'validation'}"


def _about(study: Finished) -> dict[str, str]:
    table = _identity(study)
    shown = {
        "space": "space",
        "data": "data.name",
        "images": "data.images",
        "epochs": "recipe.epochs",
        "error": "error",
    }
    return {
        "study": study.name,
        **{title: table.get(key, "not known") for title, key in shown.items()},
    }


def _identity(study: Finished) -> dict[str, str]:
    """The identity as text by key, `recipe.epochs` for example, and under "error" what the study's
    error is.
    """
    values = {key: str(value) for key, value in flat(study.identity).items()}
    return {"error": "mean test error" if study.tested else "validation error", **values}


def _differences(studies: Sequence[Finished]) -> list[str]:
    """'recipe.epochs (2 in a and b, 10 in c)' for all that differs in SAME."""
    tables = [_identity(study) for study in studies]
    found = []
    for key in dict.fromkeys(
        key for table in tables for key in table if key.partition(".")[0] in SAME
    ):
        by_value: dict[str, list[str]] = {}
        for study, table in zip(studies, tables, strict=True):
            by_value.setdefault(table.get(key, "not known"), []).append(study.name)
        if len(by_value) > 1:
            values = (f"{value} in {' and '.join(names)}" for value, names in by_value.items())
            found.append(f"{key} ({', '.join(values)})")
    return found


def _line(name: str, points: Sequence[Point], cost: str, look: Mapping[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[getattr(point.record, cost) for point in points],
        y=[point.error for point in points],
        name=html.escape(name),
        legendgroup=name,
        showlegend=False,
        mode="lines",
        line={"shape": "hv", **look},
        hoverinfo="skip",
    )


def _scatter(
    name: str, points: Sequence[Point], cost: str, colour: str, shape: str, legend: bool
) -> go.Scatter:
    x, y, bars = (
        [getattr(point.record, cost) for point in points],
        [point.error for point in points],
        [point.bar for point in points],
    )
    hovers = {
        "text": [_hover(point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }
    return markers(name, shape, colour, x, y, bars).update(showlegend=legend, **hovers)


def _hover(point: Point) -> str:
    record = point.record
    lines = (
        f"<b>{html.escape(point.study)} #{record.tag} {html.escape(record.name or record.origin)}</b>",
        *(html.escape(line) for line in textwrap.wrap(record.placement, 60)),
        f"error {_error_text(point)}",
        f"parameters {record.params:,}",
        f"MACs conv + fc {record.macs_conv_fc:,}",
    )
    return "<br>".join(lines)
