"""Several finished studies in one front and one page.

The numbers come from the studies' records, then the drawing, then the HTML. No torch, no Optuna.
"""

import html
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bam_search.analysis.final_metrics import FinalMetrics
from bam_search.analysis.pareto import nondominated
from bam_search.analysis.recommendation import TIMES
from bam_search.config import flat
from bam_search.errors import UserError
from bam_search.files import write
from bam_search.report.page import PAGE
from bam_search.report.render import embedded, render
from bam_search.report.sentences import times_words
from bam_search.report.tables import further_texts, measured_times, read_records, time_text
from bam_search.study.record import STUDY_FILE, Record
from bam_search.tasks.metric import Metric

COSTS = {"params": "parameters", "macs_conv_fc": "MACs (conv + fc)"}
"""The costs that studies are compared by, of the whole network.

Overheads would not do: each study's are above a backbone of its own.
"""
INK = "#222222"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
SHAPES = ("circle", "diamond", "square", "triangle-up", "star", "hexagon", "cross", "triangle-down")
"""A colour of Okabe and Ito's palette and a shape for each study.

7 and 8 have no common divisor, so 56 studies get distinct markers.
"""
MUST_MATCH = ("measured", "task", "task_file", "data", "recipe", "seed")
"""What studies must have in common for their values to be comparable.

"measured" tells test from validation; the others are sections of study.json's identity, the
settings that define a study. The seed draws the split.
"""
UNKNOWN = "not known"
"""What a study's identity does not say."""


@dataclass(frozen=True)
class FinishedStudy:
    """A study to compare: its name on the page, its identity from study.json, all its records."""

    name: str
    identity: Mapping[str, Any]
    records: tuple[Record, ...]

    @property
    def tested(self) -> bool:
        """Whether it has finalists: then these alone are compared, by their tests."""
        return any(record.is_finalist for record in self.records)

    @property
    def metric(self) -> Metric:
        """What it measures."""
        return self.records[0].metric


@dataclass(frozen=True)
class Point:
    """A candidate in the comparison: its value, and the half-length of its error bar."""

    study: str
    record: Record
    value: float
    error_bar: float

    @property
    def objective(self) -> float:
        """The value to minimise."""
        return self.record.metric.minimised(self.value)


@dataclass(frozen=True)
class Comparison:
    """All that the page shows.

    `points` are by study; `front` is the joint one, the cheapest first; `studies` say how each was
    run; `differences` are what makes their values incomparable.
    """

    metric: Metric
    points: Mapping[str, tuple[Point, ...]]
    front: tuple[Point, ...]
    studies: tuple[Mapping[str, str], ...]
    differences: tuple[str, ...]

    @property
    def warning(self) -> str:
        """The differences as a sentence; empty if there are none."""
        if not self.differences:
            return ""
        differences = "; ".join(self.differences)
        return f"The values of these studies are not comparable, as they differ in: {differences}"


def read_study(folder: Path, name: str) -> FinishedStudy:
    """The study of a report's folder.

    Raises UserError if it is none, or has no finished candidate.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {str(folder)!r}",
            "name the folders of reports, such as reports/placement",
        )
    study = FinishedStudy(name, _read_identity(folder), tuple(read_records(folder)))
    if not any(record.complete for record in study.records):
        raise UserError(
            f"{folder} has no finished candidate to compare", "continue its study first"
        )
    return study


def _read_identity(folder: Path) -> dict[str, Any]:
    path = folder / STUDY_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder} is not the folder of a report: it has no study.json of a run",
            "a run writes one, with the report",
        ) from None


def compare(studies: Sequence[FinishedStudy]) -> Comparison:
    """The studies' points, their joint front, and the differences between the studies.

    Raises UserError if they measure different things.
    """
    _check_metrics(studies)
    points = {study.name: _points(study) for study in studies}
    return Comparison(
        metric=studies[0].metric,
        points=points,
        front=tuple(front(_all_points(points), tuple(COSTS))),
        studies=tuple(_about(study, len(points[study.name])) for study in studies),
        differences=tuple(_differences(studies)),
    )


def _check_metrics(studies: Sequence[FinishedStudy]) -> None:
    """Raise UserError if two of the studies measure different things."""
    first, *others = studies
    for other in others:
        if other.metric.identity != first.metric.identity:
            measured = [_measured_words(study) for study in (first, other)]
            raise UserError(
                f"the studies are not comparable: {' and '.join(measured)}",
                "compare studies that measure the same",
            )


def _measured_words(study: FinishedStudy) -> str:
    return f"{study.name} measures {study.metric.title} ({study.metric.direction})"


def _all_points(points: Mapping[str, Sequence[Point]]) -> list[Point]:
    return [point for of_study in points.values() for point in of_study]


def front(points: Sequence[Point], costs: Sequence[str]) -> list[Point]:
    """The points that no other beats in the metric and these costs together, the cheapest first."""
    values = [_values(point, costs) for point in points]
    on_front = nondominated(np.array(values, dtype=float))
    members = [point for point, member in zip(points, on_front, strict=True) if member]
    return sorted(members, key=lambda point: (_values(point, costs), point.study))


def _values(point: Point, costs: Sequence[str]) -> tuple[float, ...]:
    """The costs, then the metric: what a front minimises, in the order that it is sorted by."""
    return (*(getattr(point.record, cost) for cost in costs), point.objective)


def draw(comparison: Comparison) -> go.Figure:
    """The metric against each cost, panels side by side.

    Each study has a colour, a shape and its front as a line; the joint front is a dotted one.
    """
    figure = make_subplots(1, len(COSTS), shared_yaxes=True, horizontal_spacing=0.03)
    for column, (cost, title) in enumerate(COSTS.items(), start=1):
        # Each trace is in the legend once: from the first panel.
        for trace in _panel(comparison, cost, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title=title, row=1, col=column)
    return _laid_out(figure, comparison.metric.title)


def _panel(comparison: Comparison, cost: str, legend: bool) -> Iterator[go.Scatter]:
    """The traces of one cost's panel: the joint front, then each study's front and points."""
    joint = front(_all_points(comparison.points), (cost,))
    dots = {"color": INK, "dash": "dot", "width": 3}
    yield _line("joint front of the panel", joint, cost, dots).update(showlegend=legend)
    for i, (study, points) in enumerate(comparison.points.items()):
        colour, shape = COLOURS[i % len(COLOURS)], SHAPES[i % len(SHAPES)]
        yield _line(study, front(points, (cost,)), cost, {"color": colour, "width": 1.5})
        yield _scatter(study, points, cost, colour, shape, legend)


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write index.html into `folder`, and return its path."""
    write(folder / PAGE, page(comparison))
    return folder / PAGE


def page(comparison: Comparison) -> str:
    """The whole page as HTML."""
    names = ", ".join(comparison.points)
    data = " and ".join(dict.fromkeys(study["data"] for study in comparison.studies))
    return render(
        "comparison.html",
        "inline",
        f"bam_search: {names} on {data}",
        comparison=comparison,
        figure=embedded(draw(comparison), "comparison"),
        front=front_table(comparison),
        studies=pd.DataFrame(comparison.studies),
    )


def front_table(comparison: Comparison) -> pd.DataFrame:
    """The joint front as text."""
    further = dict.fromkeys(title for p in comparison.front for title in p.record.test_further)
    times = measured_times([point.record for point in comparison.front])
    return pd.DataFrame([_row(point, list(further), times) for point in comparison.front])


def _row(point: Point, further: Sequence[str], times: Sequence[str]) -> dict[str, str]:
    """A point's row, with what the tasks measure beside the metric, by title, and these times."""
    record = point.record
    known = further_texts(record)
    return {
        "study": point.study,
        "#": record.tag,
        "placement": record.placement,
        "params": f"{record.params:,}",
        "MACs (conv + fc)": f"{record.macs_conv_fc:,}",
        **{f"{TIMES[key]}, %": time_text(record, key) for key in times},
        record.metric.title: _value_text(point),
        **{title: known.get(title, "") for title in further},
        "n": str(len(record.test_metrics) or 1),
    }


def _points(study: FinishedStudy) -> tuple[Point, ...]:
    """The finalists, or all finished candidates of a study that has no finalists."""
    finals = FinalMetrics.of(study.records)
    complete = [record for record in study.records if record.complete]
    compared = [record for record in complete if record.is_finalist] or complete
    return tuple(Point(study.name, record, *_value(record, finals)) for record in compared)


def _value(record: Record, finals: FinalMetrics) -> tuple[float, float]:
    """The mean of its tests if there is one, else its validation; and its bar's length."""
    test, value = finals.mean(record), finals.value(record)
    if test is None:
        return value, record.val_standard_error or 0.0
    return value, record.test_standard_errors[0] if test.sd is None else test.sd


def _value_text(point: Point) -> str:
    """'81.63 ± 0.21 test': the value, its spread between seeds, and on which samples.

    '81.2 (SE 1.0) validation' of one training: the standard error of these samples.
    """
    record, metric = point.record, point.record.metric
    samples = "test" if record.is_finalist else "validation"
    value, bar = metric.text(point.value), metric.text(point.error_bar)
    spread = f"± {bar}" if len(record.test_metrics) > 1 else f"(SE {bar})"
    return f"{value} {spread} {samples}"


def _about(study: FinishedStudy, candidates: int) -> dict[str, str]:
    """A row of the table of studies, as text by column."""
    identity = _identity(study)
    columns = {
        "space": "space",
        "data": "data.name",
        "samples": "data.images",
        "epochs": "recipe.epochs",
        "measured": "measured",
    }
    values = {title: identity.get(key, UNKNOWN) for title, key in columns.items()}
    return {"study": study.name, **values, "candidates here": str(candidates)}


def _identity(study: FinishedStudy) -> dict[str, str]:
    """The identity as text by key, `recipe.epochs` for example; "measured" is on which samples."""
    values = {key: str(value) for key, value in flat(study.identity).items()}
    name = study.metric.name
    measured = f"mean test {name}" if study.tested else f"validation {name}"
    return {**values, "measured": measured}


def _differences(studies: Sequence[FinishedStudy]) -> list[str]:
    """'recipe.epochs (2 in a and b, 10 in c)' for each key of MUST_MATCH that differs."""
    identities = [(study.name, _identity(study)) for study in studies]
    keys = dict.fromkeys(key for _, identity in identities for key in identity)
    differences = []
    for key in keys:
        names_by_value: dict[str, list[str]] = {}
        for name, identity in identities:
            names_by_value.setdefault(identity.get(key, UNKNOWN), []).append(name)
        if _section(key) in MUST_MATCH and len(names_by_value) > 1:
            differences.append(f"{key} ({_who_has_what(names_by_value)})")
    return differences


def _section(key: str) -> str:
    """'recipe' of 'recipe.epochs'."""
    return key.partition(".")[0]


def _who_has_what(names_by_value: Mapping[str, Sequence[str]]) -> str:
    """'2 in a and b, 10 in c'."""
    texts = [f"{value} in {' and '.join(names)}" for value, names in names_by_value.items()]
    return ", ".join(texts)


def _line(name: str, points: Sequence[Point], cost: str, look: Mapping[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[getattr(point.record, cost) for point in points],
        y=[point.value for point in points],
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
    trace = _markers(
        name,
        shape,
        colour,
        x=[getattr(point.record, cost) for point in points],
        y=[point.value for point in points],
        bars=[point.error_bar for point in points],
    )
    hovers = [_hover(point) for point in points]
    return trace.update(showlegend=legend, text=hovers, hovertemplate="%{text}<extra></extra>")


def _hover(point: Point) -> str:
    """The text beside a point, as HTML: plotly renders some tags."""
    record = point.record
    heading = f"{point.study} #{record.tag} {record.name or record.origin}"
    lines = (
        f"<b>{html.escape(heading)}</b>",
        *(html.escape(line) for line in textwrap.wrap(record.placement, 60)),
        html.escape(f"{record.metric.title} {_value_text(point)}"),
        f"parameters {record.params:,}",
        f"MACs conv + fc {record.macs_conv_fc:,}",
        *times_words(record),
    )
    return "<br>".join(lines)


def _laid_out(figure: go.Figure, y: str) -> go.Figure:
    """The figure with what all figures have in common: title of y, font, and legend below."""
    figure.update_layout({"yaxis.title.text": html.escape(y)})
    return figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "color": INK},
        height=560,
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "h", "y": -0.16, "x": 0},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)"},
    )


def _markers(
    name: str,
    shape: str,
    colour: str,
    x: Sequence[float | None],
    y: Sequence[float],
    bars: Sequence[float],
) -> go.Scatter:
    """Points with error bars, alike in shape and colour; `name` is text."""
    return go.Scatter(
        x=x,
        y=y,
        error_y={"array": bars, "thickness": 0.8, "width": 2, "color": colour},
        name=html.escape(name),
        legendgroup=name,
        mode="markers",
        marker={
            "symbol": shape,
            "color": colour,
            "size": 11,
            "line": {"width": 1, "color": "white"},
        },
    )
