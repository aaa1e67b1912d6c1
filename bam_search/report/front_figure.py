"""The figure of the first screen: all that was tested, over two costs, on one axis of the metric.

Its numbers are in pixels; templates/front.html draws them. Nothing is computed here that is not a
position: values, differences and fronts are the overview's.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bam_search.analysis.findings import Findings
from bam_search.analysis.overview import Overview, Standing
from bam_search.analysis.recommendation import TITLES
from bam_search.report.labels import ON_BAR, ON_LINE, ON_MARK, Box, Placed, Wanted, place
from bam_search.study.record import Record
from bam_search.tasks.metric import Metric

SHAPES = ("diamond", "square", "triangle", "star", "hexagon", "cross")
"""The shape of each reference in turn; templates/front.html draws them."""
LOOKS = 6
"""How many colours there are for references: r0 to r5 in assets/page.css."""
LETTER, LINE = 8.2, 15.0
"""The width of a letter and the height of a line of a label, in pixels.

Letters are those of a wide font: narrower ones leave a gap."""
LONGEST = 44
"""A longer label is cut; the table below has it whole."""


@dataclass(frozen=True)
class Mark:
    """A point: `low` and `high` are the ends of its bar, None where it has none."""

    tag: str
    text: str
    look: str
    shape: str
    x: float
    y: float
    low: float | None
    high: float | None
    is_recommended: bool


@dataclass(frozen=True)
class Label:
    """A text whose `anchor` is at x, y; `line` is the end of its line to the point at `of`."""

    text: str
    look: str
    x: float
    y: float
    anchor: str
    of: tuple[float, float]
    line: tuple[float, float] | None


@dataclass(frozen=True)
class Panel:
    """One cost: a frame with ticks, marks and labels in pixels, and the front as an SVG path."""

    title: str
    width: int
    height: int
    frame: Box
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    has_y_labels: bool
    baseline: float | None
    front: str
    marks: tuple[Mark, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class FrontFigure:
    """The panels side by side, and below each other for narrow screens."""

    title: str
    wide: tuple[Panel, ...]
    narrow: tuple[Panel, ...]


def front_figure(findings: Findings) -> FrontFigure | None:
    """The figure; None if nothing was tested."""
    overview = findings.overview
    if overview is None:
        return None
    costs = overview.axes
    wide = [_panel(findings, overview, cost, 584, 286, i == 0) for i, cost in enumerate(costs)]
    narrow = [_panel(findings, overview, cost, 360, 330, True) for cost in costs]
    title = f"test {findings.metric.title}, to expect"
    return FrontFigure(title, tuple(wide), tuple(narrow))


def label_of(findings: Findings, record: Record) -> str:
    """What a record is called on the first screen; empty if it has no name there."""
    overview = findings.overview
    assert overview is not None
    roles = []
    if record.is_reference or record is overview.baseline:
        roles.append(record.label)
    if record is overview.recommended:
        roles.append("recommended")
    if record is overview.best and record is not overview.recommended:
        roles.append(best_words(findings.metric))
    if not roles:
        return ""
    tag = "" if record.is_reference else f" (#{record.tag})"
    return ", ".join(roles) + tag


def best_words(metric: Metric) -> str:
    """'least top-1 error', 'greatest mAP'."""
    return f"{'greatest' if metric.larger_is_better else 'least'} {metric.name}"


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round numbers from low to high, evenly spaced."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step = next(step * k for k in (1, 2, 5, 10, 20) if (high - low) / (step * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_texts(values: Sequence[float], sign: str = "") -> list[str]:
    """The numbers with as many decimals as their step needs."""
    step = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:{sign}.{decimals}f}" if value else "0" for value in values]


def looks(records: Sequence[Record]) -> Mapping[int, tuple[str, str]]:
    """Colour and shape of each reference, by its number."""
    references = [record for record in records if record.is_reference]
    return {
        record.number: (f"r{i % LOOKS}", SHAPES[i % len(SHAPES)])
        for i, record in enumerate(references)
    }


def _panel(
    findings: Findings, overview: Overview, cost: str, width: int, height: int, has_labels: bool
) -> Panel:
    frame = Box(48 if has_labels else 12, 10, width - 12, height - 46)
    low, high = _range([value for one in overview.standings for value in _ends(one)])
    least, most = _range([one.record.final_cost(cost) for one in overview.standings])

    def x(value: float) -> float:
        return frame.left + (value - least) / (most - least) * (frame.right - frame.left)

    def y(value: float) -> float:
        return frame.bottom - (value - low) / (high - low) * (frame.bottom - frame.top)

    marks = _marks(findings, overview, cost, x, y)
    front = [
        (x(r.final_cost(cost)), y(overview.standing(r).expected)) for r in overview.fronts[cost]
    ]
    baseline = y(overview.standing(overview.baseline).expected)
    x_values, y_values = ticks(least, most, 8), ticks(low, high, 7)
    return Panel(
        title=f"{TITLES[cost]} over the backbone, %",
        width=width,
        height=height,
        frame=frame,
        x_ticks=tuple(zip(map(x, x_values), tick_texts(x_values, "+"), strict=True)),
        y_ticks=tuple(zip(map(y, y_values), tick_texts(y_values), strict=True)),
        has_y_labels=has_labels,
        baseline=baseline,
        front=_step_path(front, frame.right),
        marks=marks,
        labels=_labels(findings, overview, marks, front, baseline, frame),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest value, with a margin."""
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _ends(standing: Standing) -> tuple[float, ...]:
    """The value, and the ends of its bar."""
    return standing.expected, *(standing.bar or ())


def _marks(
    findings: Findings,
    overview: Overview,
    cost: str,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> tuple[Mark, ...]:
    """The points; those that have a name are drawn last, the recommended one on top."""
    known = looks(findings.records)
    marks = []
    for one in overview.standings:
        record = one.record
        plain = "front" if record in overview.fronts[cost] else "other"
        look, shape = known.get(record.number, (plain, "circle"))
        value, *ends = map(y, _ends(one))
        low, high = ends or (None, None)
        is_recommended = record is overview.recommended
        text = _mark_text(findings, one)
        mark = Mark(
            record.tag,
            text,
            look,
            shape,
            x(record.final_cost(cost)),
            value,
            low,
            high,
            is_recommended,
        )
        rank = 2 if is_recommended else bool(label_of(findings, record))
        marks.append((rank, mark))
    return tuple(mark for _, mark in sorted(marks, key=lambda pair: pair[0]))


def _mark_text(findings: Findings, standing: Standing) -> str:
    """'#6 layer3=bam(d=1): 82.82 %, recommended'."""
    metric, record = findings.metric, standing.record
    role = label_of(findings, record)
    value = metric.with_unit(metric.text(standing.expected))
    return f"#{record.tag} {record.placement}: {value}{', ' + role if role else ''}"


def _step_path(points: Sequence[tuple[float, float]], right: float) -> str:
    """The steps through these points, and on to the right edge."""
    (x, y), *rest = points
    steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)
    return f"M{x:.1f} {y:.1f}{steps}H{right:.1f}"


def _labels(
    findings: Findings,
    overview: Overview,
    marks: Sequence[Mark],
    front: Sequence[tuple[float, float]],
    baseline: float,
    frame: Box,
) -> tuple[Label, ...]:
    names = {one.record.tag: label_of(findings, one.record) for one in overview.standings}
    named = [(mark, _cut(names[mark.tag])) for mark in marks if names[mark.tag]]
    wanted = [Wanted(mark.x, mark.y, LETTER * len(text) + 4, LINE) for mark, text in named]
    obstacles = [*_mark_boxes(marks), *_line_boxes(front, frame.right)]
    obstacles.append((Box(frame.left, baseline - 1, frame.right, baseline + 1), ON_LINE))
    placed = place(wanted, obstacles, frame)
    return tuple(_label(mark, text, one) for (mark, text), one in zip(named, placed, strict=True))


def _label(mark: Mark, text: str, placed: Placed) -> Label:
    box = placed.box
    x = {"start": box.left, "middle": (box.left + box.right) / 2, "end": box.right}[placed.anchor]
    look = "recommended" if mark.is_recommended else mark.look
    return Label(text, look, x, box.bottom - 4, placed.anchor, (mark.x, mark.y), placed.line_end)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _mark_boxes(marks: Sequence[Mark]) -> list[tuple[Box, float]]:
    """The boxes of all points and bars, and what it costs a label to lie there."""
    boxes = []
    for mark in marks:
        size = 14 if mark.is_recommended else 8
        point = Box(mark.x - size, mark.y - size, mark.x + size, mark.y + size)
        boxes.append((point, ON_MARK))
        if mark.low is not None and mark.high is not None:
            top, bottom = sorted((mark.low, mark.high))
            boxes.append((Box(mark.x - 2, top, mark.x + 2, bottom), ON_BAR))
    return boxes


def _line_boxes(front: Sequence[tuple[float, float]], right: float) -> list[tuple[Box, float]]:
    """The boxes of the front's steps."""
    ends = [x for x, _ in front[1:]] + [right]
    boxes = [Box(x, y - 1, end, y + 1) for (x, y), end in zip(front, ends, strict=True)]
    for (_, above), (x, below) in itertools.pairwise(front):
        boxes.append(Box(x - 1, min(above, below), x + 1, max(above, below)))
    return [(box, ON_LINE) for box in boxes]
