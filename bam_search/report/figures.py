"""The Pareto figure, in two functions: the numbers from records, then the drawing."""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bam_search.report.tables import AXES, error_text, test_text
from bam_search.search.front import front
from bam_search.search.means import mean
from bam_search.search.record import RANDOM, REFERENCE, SEARCH, Record, proper, standard_error

INK = "#222222"
REFERENCES = (("diamond", "#d55e00"), ("square", "#cc79a7"), ("triangle-up", "#e69f00"), ("star", "#009e73"), ("hexagon", "#882255"))
"""Shape and colour of each reference in turn; colours of Okabe and Ito's palette, told apart by colour-blind readers too."""
FRONT = ("circle", "#0072b2")
DOMINATED = ("circle-open", "#8a8a8a")
DRAWN = ("cross-thin-open", "#8a8a8a")


@dataclass(frozen=True)
class Group:
    """Points that are drawn alike: name in the legend, shape, colour, and the records."""

    name: str
    shape: str
    colour: str
    records: tuple[Record, ...]


def groups(records: Sequence[Record], objectives: Sequence[str]) -> list[Group]:
    """Dominated and front members of the search, then each reference; only complete records."""
    on_front = {record.number for record in front(proper(records), objectives)}
    searched = [r for r in records if r.complete and r.origin == SEARCH]
    references = [r for r in records if r.complete and r.origin == REFERENCE]
    found = [
        Group("random search", *DRAWN, tuple(r for r in records if r.complete and r.origin == RANDOM)),
        Group("searched, dominated", *DOMINATED, tuple(r for r in searched if r.number not in on_front)),
        Group("searched, on the front", *FRONT, tuple(r for r in searched if r.number in on_front)),
        *(Group(r.name, *REFERENCES[i % len(REFERENCES)], (r,)) for i, r in enumerate(references)),
    ]
    return [group for group in found if group.records]


def stairs(records: Sequence[Record], axis: str) -> list[Record]:
    """The front of error against this one overhead, cheapest first: the line that is drawn."""
    return front(records, ("error", axis))


def draw(records: Sequence[Record], objectives: Sequence[str]) -> go.Figure:
    """Validation error against both overheads, side by side."""
    figure = make_subplots(1, len(AXES), shared_yaxes=True, horizontal_spacing=0.03)
    for column, (axis, title) in enumerate(AXES.items(), start=1):
        line = stairs(proper(records), axis)
        figure.add_scatter(
            x=[r.objective(axis) for r in line],
            y=[r.val_error for r in line],
            name="front in this panel",
            legendgroup="line",
            mode="lines",
            line={"shape": "hv", "color": FRONT[1], "dash": "dot", "width": 1.5},
            hoverinfo="skip",
            showlegend=column == 1,
            row=1,
            col=column,
        )
        for group in groups(records, objectives):
            figure.add_trace(_points(group, axis, column == 1), row=1, col=column)
        tested = [r for r in records if r.complete and r.test_error is not None]
        figure.add_trace(_tested(tested, axis, column == 1), row=1, col=column)
        figure.update_xaxes(title=f"overhead in {title}, %", zeroline=True, row=1, col=column)
    return laid_out(figure)


def laid_out(figure: go.Figure) -> go.Figure:
    """The figure with what all figures of errors have in common: its title of the y-axis, its font and its legend below."""
    figure.update_yaxes(title="error, %", row=1, col=1)
    return figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "color": INK},
        height=560,
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "h", "y": -0.16, "x": 0},
        hoverlabel={"align": "left"},
    )


def markers(
    name: str, shape: str, colour: str, x: Sequence[float], y: Sequence[float], bars: Sequence[float], hovers: Sequence[str]
) -> go.Scatter:
    """Points with error bars, alike in shape and colour; `name` is text, `hovers` are HTML."""
    return go.Scatter(
        x=x,
        y=y,
        error_y={"array": bars, "thickness": 0.8, "width": 2, "color": colour},
        name=html.escape(name),
        legendgroup=name,
        mode="markers",
        marker={"symbol": shape, "color": colour, "size": 11, "line": {"width": 1, "color": "white"}},
        text=hovers,
        hovertemplate="%{text}<extra></extra>",
    )


def _points(group: Group, axis: str, legend: bool) -> go.Scatter:
    records = group.records
    x, y = [r.objective(axis) for r in records], [r.objective("error") for r in records]
    bars = [standard_error(r.val_error, r.val_images) for r in records if r.val_error is not None and r.val_images is not None]
    return markers(group.name, group.shape, group.colour, x, y, bars, [_hover(r) for r in records]).update(showlegend=legend)


def _tested(records: Sequence[Record], axis: str, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=[r.objective(axis) for r in records],
        y=[r.test_error for r in records],
        name="mean test error of finalists",
        legendgroup="tested",
        showlegend=legend,
        visible="legendonly",
        mode="markers",
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": INK}},
        error_y={"array": [mean(r.test_errors).sd or 0.0 for r in records], "thickness": 0.8, "width": 2, "color": INK},
        text=[_hover(r) for r in records],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(record: Record) -> str:
    placement = "<br>".join(html.escape(line) for line in textwrap.wrap(record.placement, 60))
    lines = [
        f"<b>#{record.tag} {html.escape(record.name or record.origin)}</b>",
        placement,
        f"validation error {error_text(record)} %",
        f"test error {test_text(record)} %" if record.test_errors else "",
        f"parameters {record.params:,} ({record.params_overhead:+.2f} %)",
        f"MACs conv + fc {record.macs_conv_fc:,} ({record.macs_conv_fc_overhead:+.2f} %)",
        f"MACs, all operators {record.macs:,} ({record.macs_overhead:+.2f} %)",
    ]
    return "<br>".join(line for line in lines if line)
