"""The figure for a paper: all that was tested, over two costs, on one axis of the metric.

Numbers first, then the drawing, by Matplotlib: no browser. Shapes, and how dark they are, tell
marks apart without colour; the colours are of Okabe and Ito's palette, which colour-blind readers
can tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bam_search.analysis.findings import Findings
from bam_search.analysis.overview import Overview, Standing
from bam_search.analysis.recommendation import TITLES
from bam_search.errors import UserError
from bam_search.files import atomic_write
from bam_search.report.front_figure import label_of
from bam_search.report.publication.labels import LABEL_SIZE, POINTS, Panel, Point, label
from bam_search.study.record import Record

WIDTHS = {"column": (3.25, 2.5), "page": (6.875, 2.7)}
"""Width and height in inches; the widths are those of a two-column page of letter paper."""
FORMATS = (".pdf", ".svg", ".png")
DPI = 400
"""Dots an inch of a PNG."""
STYLE: Any = {
    # Both come with Matplotlib; the first looks as the text of papers does, the second has more.
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "text.parse_math": False,  # a dollar in a name is one
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # publishers refuse fonts of type 3
    "svg.hashsalt": "bam_search",  # the same figure is the same file
}
MARKS = (
    ("D", "#000000"),
    ("s", "#cc79a7"),
    ("^", "#e69f00"),
    ("*", "#009e73"),
    ("h", "#56b4e9"),
    ("X", "#d55e00"),
)
"""Marker and colour of each reference in turn."""
FRONT, OTHER = "#0072b2", "#9a9a9a"


@dataclass(frozen=True)
class Numbers:
    """What the figure shows; `baseline` is the value that bars are differences to."""

    title: str
    baseline: float
    panels: tuple[Panel, ...]


def numbers(findings: Findings, costs: Sequence[str] = ()) -> Numbers:
    """The numbers of the figure over these overheads, keys of TITLES; by default the page's.

    Raises UserError if nothing has been tested, or an overhead is not known of all that was.
    """
    overview = findings.overview
    if overview is None:
        raise UserError(
            "nothing has been tested yet, so there is nothing to draw",
            "the figure is of final trainings, which come after the search",
        )
    for cost in costs:
        if cost not in overview.fronts:
            raise UserError(
                f"there is no {cost} of all that was tested",
                f"known are {', '.join(overview.fronts)}; the study's `run` command measures more",
            )
    return Numbers(
        title=f"test {findings.metric.title}",
        baseline=overview.standing(overview.baseline).expected,
        panels=tuple(_panel(findings, overview, cost) for cost in costs or overview.axes),
    )


def _panel(findings: Findings, overview: Overview, cost: str) -> Panel:
    front = [
        (record.final_cost(cost), overview.standing(record).expected)
        for record in overview.fronts[cost]
    ]
    points = tuple(_point(findings, overview, one, cost) for one in overview.standings)
    return Panel(f"{TITLES[cost]}, +%", points, tuple(front))


def _point(findings: Findings, overview: Overview, one: Standing, cost: str) -> Point:
    record = one.record
    low, high = one.bar or (None, None)
    marker, colour = _look(findings, overview, record, cost)
    is_recommended = record is overview.recommended
    name = label_of(findings, record)
    return Point(
        record.final_cost(cost), one.expected, low, high, name, marker, colour, is_recommended
    )


def _look(findings: Findings, overview: Overview, record: Record, cost: str) -> tuple[str, str]:
    references = [one.number for one in findings.records if one.is_reference]
    if record.number in references:
        return MARKS[references.index(record.number) % len(MARKS)]
    colour = FRONT if record in overview.fronts[cost] else OTHER
    is_best = record is overview.best and record is not overview.recommended
    return "v" if is_best else "o", colour


def draw(shown: Numbers, width: str) -> Figure:
    """The figure at one of WIDTHS, side by side on one axis.

    Points are labelled where labels find room that hides nothing; else a key is below.
    """
    with mpl.rc_context(STYLE):
        figure = _drawn(shown, WIDTHS[width], has_key=False)
        if label(figure, shown.panels, shown.baseline):
            return figure
        return _drawn(shown, WIDTHS[width], has_key=True)


def save(path: Path, figure: Figure, caption: str) -> None:
    """Write the figure in the format of the file's suffix, one of FORMATS.

    The caption is in the file's metadata: who finds the file alone can tell what it shows. Raises
    OSError.
    """
    form = path.suffix.removeprefix(".")
    # Without the date, so that the same study gives the same file.
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"Subject": caption, "CreationDate": None},
        "svg": {"Description": caption, "Date": None},
        "png": {"Description": caption},
    }
    with mpl.rc_context(STYLE), atomic_write(path) as file:
        figure.savefig(file, format=form, dpi=DPI, metadata=metadata[form])


def _drawn(shown: Numbers, size: tuple[float, float], has_key: bool) -> Figure:
    """The figure without labels; with a key of all names below, or without."""
    names = [point.name for point in shown.panels[0].points if point.name]
    columns = 2 if size[0] < 5 else 3
    rows = -(-len(names) // columns) if has_key else 0
    figure = Figure(figsize=(size[0], size[1] + 0.14 * rows), dpi=POINTS)
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    panels = figure.subplots(1, len(shown.panels), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(
        left=0.48 / size[0],
        right=1 - 0.06 / size[0],
        top=1 - 0.06 / height,
        bottom=(0.40 + 0.14 * rows) / height,
        wspace=0.08,
    )
    for axes, panel in zip(panels, shown.panels, strict=True):
        _draw_panel(axes, panel, shown.baseline)
    panels[0].set_ylabel(shown.title)
    if has_key:
        _draw_key(figure, shown.panels[0], columns)
    return figure


def _draw_panel(axes: Axes, panel: Panel, baseline: float) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.axhline(baseline, color="#666666", linewidth=0.7, dashes=(4, 3), zorder=1.5)
    for point in panel.points:
        _draw_point(axes, point)
    # The limits are those of the points: the front goes on to the right edge.
    axes.margins(x=0.08, y=0.06)
    axes.autoscale_view()
    left, right = axes.get_xlim()
    x, y = zip(*panel.front, strict=True)
    axes.plot(
        [*x, right], [*y, y[-1]], drawstyle="steps-post", color=FRONT, linewidth=1, zorder=1.8
    )
    axes.set_xlim(left, right)
    axes.set_xlabel(panel.title)


def _draw_point(axes: Axes, point: Point) -> None:
    order = 3 + 0.1 * bool(point.name) + 0.1 * point.is_recommended
    if point.low is not None and point.high is not None:
        axes.plot(
            [point.x] * 2,
            [point.low, point.high],
            color=point.colour,
            linewidth=0.9,
            solid_capstyle="butt",
            zorder=2,
        )
    for mark in _marks(point):
        axes.plot([point.x], [point.y], zorder=order, **mark)


def _marks(point: Point) -> list[dict[str, Any]]:
    """How Matplotlib draws the point; the recommended one has a ring."""
    size = 8 if point.marker == "*" else 5
    mark = {
        "marker": point.marker,
        "markersize": size,
        "color": point.colour,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        "linestyle": "none",
    }
    ring = {
        "marker": "o",
        "markersize": 9.5,
        "markerfacecolor": "none",
        "markeredgecolor": "black",
        "markeredgewidth": 0.9,
        "linestyle": "none",
    }
    return [mark, ring] if point.is_recommended else [mark]


def _draw_key(figure: Figure, panel: Panel, columns: int) -> None:
    """The names below the figure, each after its mark."""
    named = [point for point in panel.points if point.name]
    marks: list[Any] = [tuple(Line2D([], [], **mark) for mark in _marks(point)) for point in named]
    figure.legend(
        marks,
        [point.name for point in named],
        loc="lower left",
        ncols=columns,
        frameon=False,
        fontsize=LABEL_SIZE,
        handlelength=1.2,
        handletextpad=0.4,
        columnspacing=1,
        labelspacing=0.3,
        borderpad=0,
        borderaxespad=0.2,
    )
