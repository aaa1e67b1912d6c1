"""The figures: numbers from records first, then the drawing.

What the page makes of clicks is in assets/page.js.
"""

import html
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from bam_search.analysis.final_metrics import FinalMetrics
from bam_search.analysis.findings import Findings
from bam_search.analysis.pareto import front_line
from bam_search.analysis.recommendation import AXES
from bam_search.analysis.statistics import Mean
from bam_search.study.record import METRIC, OBJECTIVES, Record, main_records
from bam_search.tasks.metric import Metric

INK = "#222222"
REFERENCES = (
    ("diamond", "#d55e00"),
    ("square", "#cc79a7"),
    ("triangle-up", "#e69f00"),
    ("star", "#009e73"),
    ("hexagon", "#882255"),
)
"""Shape and colour of each reference in turn.

The colours are of Okabe and Ito's palette, which colour-blind readers can tell apart too.
"""
FRONT = ("circle", "#0072b2")
DOMINATED = ("circle-open", "#8a8a8a")
LOOKS = {
    "random search": ("cross-thin-open", "#8a8a8a"),
    "searched, dominated": DOMINATED,
    "searched, on the front": FRONT,
}
"""Shape and colour of each group of candidates, in the order in which they are drawn."""
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


def groups(findings: Findings) -> list[Group]:
    """The complete records in groups, none of them empty.

    First the random search, then dominated and front members of the search, then each reference.
    """
    complete = [record for record in findings.records if record.complete]
    on_front = {record.number for record in findings.front}
    members: dict[str, list[Record]] = {}
    for record in complete:
        members.setdefault(_group_name(record, on_front), []).append(record)
    candidates = [
        Group(name, *look, tuple(members[name])) for name, look in LOOKS.items() if name in members
    ]
    return candidates + _reference_groups(complete)


def _group_name(record: Record, on_front: Collection[int]) -> str:
    """The group of a candidate; empty for a reference or an ablation, which are in none."""
    if record.is_random:
        return "random search"
    if not record.is_searched:
        return ""
    return "searched, on the front" if record.number in on_front else "searched, dominated"


def _reference_groups(complete: Sequence[Record]) -> list[Group]:
    references = [record for record in complete if record.is_reference]
    looks = itertools.cycle(REFERENCES)
    return [
        Group(record.name, *look, (record,))
        for record, look in zip(references, looks, strict=False)
    ]


def draw(findings: Findings) -> go.Figure:
    """The validation metric against an overhead, with a switch to the other overheads.

    Where overheads span more than ten times, a second switch has a logarithmic scale. Each point's
    `customdata` is its candidate's tag; the last trace is empty, for the page's ring around the
    selected one.
    """
    records = findings.records
    axes = _known_axes(records)
    traces = {axis: _traces(findings, axis) for axis in axes}
    first = next(iter(SWITCH))
    figure = go.Figure(traces[first])
    _add_backbone_line(figure, records)
    figure.update_xaxes(title=_axis_title(first), zeroline=True)
    switches = [_axis_buttons(traces)]
    if _span_ten_times(records, axes):
        switches.append(_scale_buttons())
    dropdowns = [_dropdown(buttons, 0.32 * i) for i, buttons in enumerate(switches)]
    figure = laid_out(figure, findings.metric.title)
    return figure.update_layout(margin={"t": 50}, updatemenus=dropdowns)


def _known_axes(records: Sequence[Record]) -> list[str]:
    """The axes of SWITCH that every record has, and those that any of these records has."""
    return [axis for axis in SWITCH if axis in OBJECTIVES or _with_overhead(records, axis)]


def _axis_title(axis: str) -> str:
    return f"overhead in {SWITCH[axis]}, %"


def _add_backbone_line(figure: go.Figure, records: Sequence[Record]) -> None:
    """A dashed line at the validation of the first complete reference, if there is one."""
    references = [r for r in records if r.is_reference and r.complete]
    if not references:
        return
    first = references[0]
    figure.add_hline(
        first.val_metric,
        line={"dash": "dash", "width": 1, "color": DOMINATED[1]},
        annotation_text=html.escape(first.name),
    )


def _axis_buttons(traces: Mapping[str, Sequence[go.Scatter]]) -> list[dict[str, Any]]:
    """Buttons that put another overhead on the axis of x, from the traces by overhead."""
    buttons = []
    for axis, of_axis in traces.items():
        data = {"x": [trace.x for trace in of_axis], "y": [trace.y for trace in of_axis]}
        layout = {"xaxis.title.text": _axis_title(axis)}
        buttons.append({"label": SWITCH[axis], "method": "update", "args": [data, layout]})
    return buttons


def _scale_buttons() -> list[dict[str, Any]]:
    return [
        {"label": name, "method": "relayout", "args": [{"xaxis.type": name}]}
        for name in ("linear", "log")
    ]


def _span_ten_times(records: Sequence[Record], axes: Sequence[str]) -> bool:
    """Whether the greatest positive overhead is over ten times the least."""
    complete = [record for record in records if record.complete]
    overheads = [_at(record, axis) for record in complete for axis in axes]
    positive = [overhead for overhead in overheads if overhead is not None and overhead > 0]
    return bool(positive) and max(positive) > 10 * min(positive)


def _dropdown(buttons: Sequence[Mapping[str, Any]], x: float) -> dict[str, Any]:
    """A switch above the figure, `x` of its width from the left."""
    return {
        "type": "dropdown",
        "buttons": buttons,
        "direction": "down",
        "x": x,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
    }


def _at(record: Record, axis: str) -> float | None:
    """The overhead, in percent; None where it is not known."""
    overhead: float | None = getattr(record, axis)
    return overhead


def _traces(findings: Findings, axis: str) -> list[go.Scatter]:
    """All traces of the figure over this overhead; as many, and in the same order, for each."""
    records = findings.records
    tested = [record for record in records if record.is_finalist]
    lines = [_optimistic(main_records(records), axis)]
    if tested:
        lines.append(_confident(tested, findings.finals, axis))
    points = [_points(group, axis) for group in groups(findings)]
    circle = {"symbol": "circle-open", "size": 20, "line": {"width": 3}, "color": INK}
    ring = _ring({"mode": "markers", "marker": circle})
    crosses = _tested(tested, findings, axis)
    return [*lines, *points, *_unfinished(findings, axis), crosses, ring]


def _unfinished(findings: Findings, axis: str) -> list[go.Scatter]:
    """Stopped candidates at the value of their last rung, failed ones beyond the worst of all.

    A failed candidate has no value. A kind of which there is none has no trace.
    """
    records = findings.records
    stopped = [record for record in records if record.stopped and record.rung_metrics]
    failed = [record for record in records if record.failure]
    last_values = [record.rung_metrics[-1] for record in stopped]
    beyond = [_beyond(findings.metric, records)] * len(failed)
    traces = []
    if stopped:
        name = "stopped early, after a shorter training"
        traces.append(_unfinished_points(name, STOPPED, stopped, last_values, axis))
    if failed:
        traces.append(_unfinished_points("failed", FAILED, failed, beyond, axis))
    return traces


def _beyond(metric: Metric, records: Sequence[Record]) -> float:
    """Worse than all trainings to the end and last rungs, by a twentieth of their range."""
    values = [record.val_metric for record in records if record.val_metric is not None]
    values += [record.rung_metrics[-1] for record in records if record.rung_metrics]
    minimised = [metric.minimised(value) for value in values] or [0.0]
    worst = max(minimised)
    return metric.minimised(worst + ((worst - min(minimised)) / 20 or 1.0))


def _unfinished_points(
    name: str,
    look: tuple[str, str],
    records: Sequence[Record],
    values: Sequence[float],
    axis: str,
) -> go.Scatter:
    shape, colour = look
    overheads = [_at(record, axis) for record in records]
    trace = markers(name, shape, colour, overheads, values, [])
    return trace.update(customdata=_tags(records), hoverinfo="none")


def _optimistic(records: Sequence[Record], axis: str) -> go.Scatter:
    """The front of the values that the search measured, each of one training."""
    line = front_line(_with_overhead(records, axis), axis)
    return _line("optimistic front: as measured once", line, axis)


def _confident(tested: Sequence[Record], finals: FinalMetrics, axis: str) -> go.Scatter:
    """The front of the worse ends of the finalists' intervals.

    Where there is one seed, and so no interval, it is of the means.
    """
    pessimistic = [
        replace(record, val_metric=_worse_end(record.metric, finals.means[record.number]))
        for record in _with_overhead(tested, axis)
    ]
    line = front_line(pessimistic, axis)
    name = "confident front: worse ends of the finalists' intervals"
    look = {"dash": "solid", "color": INK}
    return _line(name, line, axis).update(visible="legendonly", line=look)


def _with_overhead(records: Sequence[Record], axis: str) -> list[Record]:
    return [record for record in records if _at(record, axis) is not None]


def _worse_end(metric: Metric, test: Mean) -> float:
    end = test.low if metric.larger_is_better else test.high
    return test.mean if end is None else end


def _line(name: str, records: Sequence[Record], axis: str) -> go.Scatter:
    """A line in steps through the validation values of these records."""
    return go.Scatter(
        x=[_at(record, axis) for record in records],
        y=[record.val_metric for record in records],
        name=name,
        mode="lines",
        line={"shape": "hv", "color": FRONT[1], "dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )


def _tags(records: Sequence[Record]) -> list[str]:
    return [record.tag for record in records]


def draw_curves(findings: Findings) -> go.Figure | None:
    """The validation metric after each epoch, a line for each reference of several epochs.

    None if there is none.
    """
    measured = [r for r in main_records(findings.records) if len(r.epoch_metrics) > 1]
    if not measured:
        return None
    longest = max(len(record.epoch_metrics) for record in measured)
    figure = go.Figure(_curves(measured))
    figure.add_trace(_ring({"mode": "lines", "line": {"width": 4, "color": REFERENCES[0][1]}}))
    figure.update_xaxes(title="epoch", dtick=max(1, longest // 10))
    return laid_out(figure, f"validation {findings.metric.title}").update_layout(
        height=340, showlegend=False
    )


def _curves(records: Sequence[Record]) -> go.Scatter:
    """The curves of all records as one trace, with a gap of None after each.

    A trace for each of a thousand candidates would take seconds to draw.
    """
    epochs: list[int | None] = []
    values: list[float | None] = []
    tags: list[str] = []
    for record in records:
        count = len(record.epoch_metrics)
        epochs += [*range(1, count + 1), None]
        values += [*record.epoch_metrics, None]
        tags += [record.tag] * (count + 1)
    return go.Scatter(
        x=epochs,
        y=values,
        customdata=tags,
        name="a candidate",
        mode="lines+markers",
        line={"width": 1, "color": FRONT[1]},
        marker={"size": 4},
        opacity=0.5,
        hoverinfo="none",
    )


def _ring(look: Mapping[str, Any]) -> go.Scatter:
    """An empty trace, which the page fills with the points of the selected candidate."""
    return go.Scatter(x=[], y=[], meta="ring", showlegend=False, hoverinfo="skip", **look)


def laid_out(figure: go.Figure, y: str) -> go.Figure:
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
    """A group's points, with bars of one standard error."""
    records = group.records
    overheads = [_at(record, axis) for record in records]
    values = [record.value(METRIC) for record in records]
    bars = [record.val_standard_error or 0.0 for record in records]
    trace = markers(group.name, group.shape, group.colour, overheads, values, bars)
    return trace.update(customdata=_tags(records), hoverinfo="none")


def _tested(records: Sequence[Record], findings: Findings, axis: str) -> go.Scatter:
    """Crosses at the means of the finals, with bars of one standard deviation over seeds."""
    tests = [findings.finals.means[record.number] for record in records]
    bars = [test.sd or 0.0 for test in tests]
    return go.Scatter(
        x=[_at(record, axis) for record in records],
        y=[test.mean for test in tests],
        name=html.escape(f"mean test {findings.metric.name} of finalists"),
        visible="legendonly",
        mode="markers",
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": INK}},
        error_y={"array": bars, "thickness": 0.8, "width": 2, "color": INK},
        customdata=_tags(records),
        hoverinfo="none",
    )
