"""The figures: numbers from records first, then the drawing.

What the page makes of clicks is in assets/page.js.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from bam_search.report.tables import AXES
from bam_search.search.pareto import pareto_front
from bam_search.search.record import (
    OBJECTIVES,
    RANDOM,
    REFERENCE,
    SEARCH,
    Record,
    main_records,
    standard_error,
)
from bam_search.search.statistics import mean

INK = "#222222"
REFERENCES = (
    ("diamond", "#d55e00"),
    ("square", "#cc79a7"),
    ("triangle-up", "#e69f00"),
    ("star", "#009e73"),
    ("hexagon", "#882255"),
)
"""Shape and colour of each reference in turn; colours of Okabe and Ito's palette, told apart by
colour-blind readers too.
"""
FRONT = ("circle", "#0072b2")
DOMINATED = ("circle-open", "#8a8a8a")
DRAWN = ("cross-thin-open", "#8a8a8a")
STOPPED = ("triangle-down-open", "#8a8a8a")
FAILED = ("x-thin-open", "#d00000")
SWITCH = {
    **AXES,
    "macs_overhead": "MACs (all operators)",
    "activations_overhead": "activations",
    "latency_overhead": "latency (measured, finalists only)",
}
"""The overheads that the figure can be switched to, where any record has them."""


@dataclass(frozen=True)
class Group:
    """Points that are drawn alike: name in the legend, shape, colour, and the records."""

    name: str
    shape: str
    colour: str
    records: tuple[Record, ...]


def groups(records: Sequence[Record], objectives: Sequence[str]) -> list[Group]:
    """Dominated and front members of the search, then each reference; only complete records."""
    on_front = {record.number for record in pareto_front(main_records(records), objectives)}
    searched = [r for r in records if r.complete and r.origin == SEARCH]
    references = [r for r in records if r.complete and r.origin == REFERENCE]
    found = [
        Group(
            "random search", *DRAWN, tuple(r for r in records if r.complete and r.origin == RANDOM)
        ),
        Group(
            "searched, dominated",
            *DOMINATED,
            tuple(r for r in searched if r.number not in on_front),
        ),
        Group("searched, on the front", *FRONT, tuple(r for r in searched if r.number in on_front)),
        *(Group(r.name, *REFERENCES[i % len(REFERENCES)], (r,)) for i, r in enumerate(references)),
    ]
    return [group for group in found if group.records]


def front_line(records: Sequence[Record], axis: str) -> list[Record]:
    """The front of error against this one overhead, cheapest first: the line that is drawn."""
    complete = sorted(
        (r for r in records if r.complete),
        key=lambda r: (getattr(r, axis), r.objective("error"), r.number),
    )
    best = np.minimum.accumulate([math.inf, *(r.objective("error") for r in complete)])
    return [r for r, before in zip(complete, best, strict=False) if r.objective("error") < before]


def draw(records: Sequence[Record], objectives: Sequence[str]) -> go.Figure:
    """Validation error against an overhead, with a switch to the others; a logarithmic scale where
    they span more than ten times.

    Each point's `customdata` is its candidate's tag; the last trace is empty, for the page's ring
    around the selected one.
    """
    offered = [
        axis
        for axis in SWITCH
        if axis in OBJECTIVES or any(_at(r, axis) is not None for r in records)
    ]
    figures = {axis: _traces(records, objectives, axis) for axis in offered}
    first = next(iter(SWITCH))
    figure = go.Figure(figures[first])
    base = next((r for r in records if r.origin == REFERENCE and r.complete), None)
    if base is not None:
        figure.add_hline(
            base.val_error,
            line={"dash": "dash", "width": 1, "color": DOMINATED[1]},
            annotation_text=html.escape(base.name),
        )
    switch = [
        {
            "label": title,
            "method": "update",
            "args": [
                {"x": [t.x for t in traces], "y": [t.y for t in traces]},
                {"xaxis.title.text": f"overhead in {title}, %"},
            ],
        }
        for (title, traces) in ((SWITCH[axis], traces) for axis, traces in figures.items())
    ]
    scales = [
        {"label": name, "method": "relayout", "args": [{"xaxis.type": name}]}
        for name in ("linear", "log")
    ]
    wide = [
        at
        for r in records
        if r.complete
        for axis in offered
        if (at := _at(r, axis)) is not None and at > 0
    ]
    menus = [switch, scales] if wide and max(wide) > 10 * min(wide) else [switch]
    figure.update_xaxes(title=f"overhead in {SWITCH[first]}, %", zeroline=True)
    return laid_out(figure).update_layout(
        margin={"t": 50},
        updatemenus=[
            {
                "type": "dropdown",
                "buttons": buttons,
                "direction": "down",
                "x": 0.32 * i,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
            }
            for i, buttons in enumerate(menus)
        ],
    )


def _at(record: Record, axis: str) -> float | None:
    """The overhead, in percent; None where it is not known."""
    found: float | None = getattr(record, axis)
    return found


def _traces(records: Sequence[Record], objectives: Sequence[str], axis: str) -> list[go.Scatter]:
    tested = [r for r in records if r.complete and r.test_error is not None]
    own = front_line([r for r in main_records(records) if _at(r, axis) is not None], axis)
    ring = _ring(
        {
            "mode": "markers",
            "marker": {"symbol": "circle-open", "size": 20, "line": {"width": 3}, "color": INK},
        }
    )
    lines = [
        _line("optimistic front: as measured once", own, axis, [r.val_error for r in own]),
        *([_confident(tested, axis)] if tested else []),
    ]
    points = [_points(group, axis) for group in groups(records, objectives)]
    return [*lines, *points, *_unfinished(records, axis), _tested(tested, axis), ring]


def _unfinished(records: Sequence[Record], axis: str) -> list[go.Scatter]:
    """Stopped candidates at the error of their last rung; failed ones, which have none, above
    everything.
    """
    top = max(
        (
            error
            for r in records
            for error in (r.val_error, *r.rung_errors[-1:])
            if error is not None
        ),
        default=100.0,
    )
    kinds = {
        "stopped early, after a shorter training": (
            STOPPED,
            [(r, r.rung_errors[-1]) for r in records if r.stopped and r.rung_errors],
        ),
        "failed": (FAILED, [(r, top + 1) for r in records if r.failure]),
    }
    return [
        markers(
            name, shape, colour, [_at(r, axis) for r, _ in found], [error for _, error in found], []
        ).update(customdata=[r.tag for r, _ in found], hoverinfo="none")
        for name, ((shape, colour), found) in kinds.items()
        if found
    ]


def _confident(tested: Sequence[Record], axis: str) -> go.Scatter:
    """The front of the upper ends of the finalists' intervals, or of their means where there is one
    seed.
    """
    found = {r.number: mean(r.test_errors) for r in tested}
    high = {number: one.mean if one.high is None else one.high for number, one in found.items()}
    kept = front_line(
        [replace(r, val_error=high[r.number]) for r in tested if _at(r, axis) is not None], axis
    )
    return _line(
        "confident front: upper ends of the finalists' intervals",
        kept,
        axis,
        [r.val_error for r in kept],
    ).update(visible="legendonly", line={"dash": "solid", "color": INK})


def _line(
    name: str, kept: Sequence[Record], axis: str, errors: Sequence[float | None]
) -> go.Scatter:
    return go.Scatter(
        x=[_at(r, axis) for r in kept],
        y=errors,
        name=name,
        mode="lines",
        line={"shape": "hv", "color": FRONT[1], "dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )


def draw_progress(lines: Mapping[str, Sequence[tuple[int, float]]]) -> go.Figure:
    """Hypervolume against epochs of training, a line for each arm."""
    looks = ({"color": FRONT[1]}, {"color": DOMINATED[1], "dash": "dash"})
    traces = [
        go.Scatter(
            x=[spent for spent, _ in line],
            y=[100 * volume for _, volume in line],
            name=name,
            mode="lines",
            line={"shape": "hv", "width": 2, **look},
            hovertemplate="%{x} epochs: %{y:.0f} %<extra></extra>",
        )
        for (name, line), look in zip(lines.items(), looks, strict=False)
    ]
    figure = go.Figure(traces)
    figure.update_xaxes(title="epochs of training spent", rangemode="tozero")
    return laid_out(figure, "hypervolume, % of the larger arm's").update_layout(height=340)


def draw_curves(records: Sequence[Record]) -> go.Figure | None:
    """Validation error after each epoch, a line for each candidate that was measured more than
    once; None if there is none.
    """
    measured = [r for r in records if len(r.val_errors) > 1 and r.origin in (REFERENCE, SEARCH)]
    if not measured:
        return None
    # One trace for all: a trace for each of a thousand candidates would take seconds to draw.
    figure = go.Figure(
        go.Scatter(
            x=[x for r in measured for x in (*range(1, len(r.val_errors) + 1), None)],
            y=[y for r in measured for y in (*r.val_errors, None)],
            customdata=[r.tag for r in measured for _ in range(len(r.val_errors) + 1)],
            name="a candidate",
            mode="lines+markers",
            line={"width": 1, "color": FRONT[1]},
            marker={"size": 4},
            opacity=0.5,
            hoverinfo="none",
        )
    )
    figure.add_trace(_ring({"mode": "lines", "line": {"width": 4, "color": REFERENCES[0][1]}}))
    figure.update_xaxes(title="epoch", dtick=max(1, max(len(r.val_errors) for r in measured) // 10))
    return laid_out(figure, "validation error, %").update_layout(height=340, showlegend=False)


def _ring(look: Mapping[str, Any]) -> go.Scatter:
    """An empty trace, which the page fills with the points of the selected candidate."""
    return go.Scatter(x=[], y=[], meta="ring", showlegend=False, hoverinfo="skip", **look)


def laid_out(figure: go.Figure, y: str = "error, %") -> go.Figure:
    """The figure with what all figures have in common: its title of the y-axis, its font and its
    legend below.
    """
    figure.update_layout({"yaxis.title.text": y})
    return figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "color": INK},
        height=560,
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "h", "y": -0.16, "x": 0},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)"},
    )


def markers(
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


def _points(group: Group, axis: str) -> go.Scatter:
    records = group.records
    x, y = [_at(r, axis) for r in records], [r.objective("error") for r in records]
    bars = [
        standard_error(r.val_error, r.val_images)
        for r in records
        if r.val_error is not None and r.val_images is not None
    ]
    return markers(group.name, group.shape, group.colour, x, y, bars).update(
        customdata=[r.tag for r in records], hoverinfo="none"
    )


def _tested(records: Sequence[Record], axis: str) -> go.Scatter:
    return go.Scatter(
        x=[_at(r, axis) for r in records],
        y=[r.test_error for r in records],
        name="mean test error of finalists",
        visible="legendonly",
        mode="markers",
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": INK}},
        error_y={
            "array": [mean(r.test_errors).sd or 0.0 for r in records],
            "thickness": 0.8,
            "width": 2,
            "color": INK,
        },
        customdata=[r.tag for r in records],
        hoverinfo="none",
    )
