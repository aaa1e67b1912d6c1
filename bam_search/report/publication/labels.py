"""Labels of points in Matplotlib's axes, where `report.labels` finds room for them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from bam_search.report.labels import ON_BAR, ON_LINE, ON_MARK, Box, Wanted, place

LABEL_SIZE = 7.5
POINTS = 72
"""Points in an inch; figures are laid out at one dot a point."""
PIXELS = 1.5
"""Pixels of a screen, which `report.labels` is made for, in a point of paper."""


@dataclass(frozen=True)
class Point:
    """A tested placement: its overhead, its value, the ends of its bar, and how it is drawn.

    `low` and `high` are None where there is no interval; `name` is empty where it has no label.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    name: str
    marker: str
    colour: str
    is_recommended: bool


@dataclass(frozen=True)
class Panel:
    """One cost: the title of its axis, the points, and the front from left to right."""

    title: str
    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]


def label(figure: Figure, panels: Sequence[Panel], baseline: float) -> bool:
    """Put labels into the panels; whether all found room beside their points, and hide none.

    `baseline` is where a line goes through all panels.
    """
    figure.draw_without_rendering()  # the limits of axes are settled now
    pairs = zip(figure.axes, panels, strict=True)
    return all(_label_panel(figure, axes, panel, baseline) for axes, panel in pairs)


def _label_panel(figure: Figure, axes: Axes, panel: Panel, baseline: float) -> bool:
    named = [point for point in panel.points if point.name]
    texts = [_text(figure, axes, point) for point in named]
    at = [_pixels(figure, axes, point.x, point.y) for point in named]
    sizes = [_size(text) for text in texts]
    wanted = [Wanted(x, y, *size) for (x, y), size in zip(at, sizes, strict=True)]
    obstacles = list(_obstacles(figure, axes, panel))
    frame = _frame(figure, axes)
    _, level = _pixels(figure, axes, 0, baseline)
    line = Box(frame.left, level - 1, frame.right, level + 1)
    placed = place(wanted, [*obstacles, (line, ON_LINE)], frame)
    for text, one in zip(texts, placed, strict=True):
        _put(figure, text, one.box)
    marks = [box for box, cost in obstacles if cost == ON_MARK]
    is_near = all(one.line_end is None for one in placed)
    return is_near and _is_free([one.box for one in placed], marks, frame)


def _text(figure: Figure, axes: Axes, point: Point) -> Text:
    """The label of a point, at no place yet; what lies below it shows around its letters only."""
    return axes.text(
        0,
        0,
        _broken(point.name),
        fontsize=LABEL_SIZE,
        ha="center",
        va="center",
        transform=figure.dpi_scale_trans,
        linespacing=0.95,
        fontweight="bold" if point.is_recommended else "normal",
        zorder=5,
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )


def _is_free(labels: Sequence[Box], marks: Sequence[Box], frame: Box) -> bool:
    """Whether labels hide no point and no other label, and lie in the frame."""
    pairs = itertools.chain(itertools.combinations(labels, 2), itertools.product(labels, marks))
    inside = all(label.shared(frame) > 0.99 * label.area for label in labels)
    return inside and not any(one.shared(other) > 1.0 for one, other in pairs)


def _broken(name: str) -> str:
    """The name in two lines of about one length, if it is long."""
    words = name.split()
    if len(name) < 14 or len(words) < 2:
        return name
    cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return "\n".join(min(cuts, key=lambda cut: max(map(len, cut))))


def _pixels(figure: Figure, axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where a point is, in pixels from the top left."""
    right, up = axes.transData.transform((x, y))
    return PIXELS * float(right), PIXELS * float(figure.bbox.height - up)


def _box(figure: Figure, extent: Any) -> Box:
    top = figure.bbox.height - extent.y1
    return Box(*(PIXELS * float(v) for v in (extent.x0, top, extent.x1, top + extent.height)))


def _size(text: Text) -> tuple[float, float]:
    extent = text.get_window_extent()
    return PIXELS * float(extent.width) + 3, PIXELS * float(extent.height) + 1


def _frame(figure: Figure, axes: Axes) -> Box:
    return _box(figure, axes.bbox)


def _obstacles(figure: Figure, axes: Axes, panel: Panel) -> Iterator[tuple[Box, float]]:
    """The boxes of all points and bars, and what it costs a label to lie there."""
    for point in panel.points:
        x, y = _pixels(figure, axes, point.x, point.y)
        size = PIXELS * (5.5 if point.is_recommended else 3.5)
        yield Box(x - size, y - size, x + size, y + size), ON_MARK
        if point.low is not None and point.high is not None:
            _, low = _pixels(figure, axes, point.x, point.low)
            _, high = _pixels(figure, axes, point.x, point.high)
            yield Box(x - 1, min(low, high), x + 1, max(low, high)), ON_BAR


def _put(figure: Figure, text: Text, box: Box) -> None:
    """Move a label to its place."""
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    # In inches from the bottom left, so that they stay there at any resolution.
    text.set_position((x / PIXELS / POINTS, (figure.bbox.height - y / PIXELS) / POINTS))
