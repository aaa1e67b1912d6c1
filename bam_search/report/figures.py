"""The numbers of the figures under "Explore", which assets/figures.js draws from the records.

A figure names candidates by tag; their values are the records' own, and are in the page once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from bam_search.analysis.final_metrics import FinalMetrics
from bam_search.analysis.findings import Findings
from bam_search.analysis.pareto import front_line
from bam_search.analysis.recommendation import AXES, TIMES
from bam_search.analysis.statistics import Mean
from bam_search.report.front_figure import looks
from bam_search.study.record import OBJECTIVES, Record, main_records
from bam_search.tasks.metric import Metric

CANDIDATES = {
    "random search": ("other", "cross"),
    "searched, dominated": ("other", "circle-open"),
    "searched, on the front": ("front", "circle"),
}
"""Colour and shape of each group of candidates, in the order in which they are drawn."""
STOPPED = ("other", "triangle-down-open")
FAILED = ("failed", "x")
SWITCH = {
    **AXES,
    "macs_overhead": "MACs (all operators)",
    "activations_overhead": "activations",
    **{key: f"{title} (measured, finalists only)" for key, title in TIMES.items()},
    **{OBJECTIVES[key]: f"{title} (predicted)" for key, title in TIMES.items()},
}
"""The overheads that the figure can be switched to."""
TIMED = (*TIMES, *(OBJECTIVES[key] for key in TIMES))
"""Those that a study may not know of any record."""


@dataclass(frozen=True)
class Group:
    """Candidates that are drawn alike: name in the legend, colour, shape, and their tags.

    `values` says what of them is drawn: 'validation' with its standard error, 'last rung', or
    'failed', which is `beyond` all others.
    """

    name: str
    look: str
    shape: str
    values: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Candidates:
    """The figure of single trainings.

    Attributes:
        axes: title of each overhead, by the records' field.
        has_log: whether overheads span more than ten times.
        groups: what is drawn, the first one first.
        beyond: where failed candidates are drawn, worse than all values; None without values.
        fronts: by overhead, the tags of the front of the values that were measured once.
        confident: by overhead, tag and value of the front of the worse ends of the finalists'
            intervals; with one seed, of their means.
        baseline: the tag of the first complete reference, "" if there is none.
    """

    axes: Mapping[str, str]
    has_log: bool
    groups: tuple[Group, ...]
    beyond: float | None
    fronts: Mapping[str, tuple[str, ...]]
    confident: Mapping[str, tuple[tuple[str, float], ...]]
    baseline: str


def candidates(findings: Findings) -> Candidates:
    """The figure's numbers."""
    records = findings.records
    axes = [axis for axis in SWITCH if axis not in TIMED or _with_overhead(records, axis)]
    tested = [record for record in records if record.is_finalist]
    main = main_records(records)
    first = next((r for r in records if r.is_reference and r.complete), None)
    return Candidates(
        axes={axis: SWITCH[axis] for axis in axes},
        has_log=_span_ten_times(records, axes),
        groups=(*groups(findings), *_unfinished(records)),
        beyond=_beyond(findings.metric, records),
        fronts={axis: _tags(front_line(_with_overhead(main, axis), axis)) for axis in axes},
        confident={axis: _confident(tested, findings.finals, axis) for axis in axes},
        baseline="" if first is None else first.tag,
    )


def groups(findings: Findings) -> list[Group]:
    """The complete records in groups, none of them empty.

    First the random search, then dominated and front members of the search, then each reference.
    """
    complete = [record for record in findings.records if record.complete]
    on_front = {record.number for record in findings.front}
    members: dict[str, list[Record]] = {}
    for record in complete:
        members.setdefault(_group_name(record, on_front), []).append(record)
    found = [
        Group(name, *look, "validation", _tags(members[name]))
        for name, look in CANDIDATES.items()
        if name in members
    ]
    of_references = looks(findings.records)
    return found + [
        Group(record.name, *of_references[record.number], "validation", (record.tag,))
        for record in complete
        if record.is_reference
    ]


def _group_name(record: Record, on_front: Collection[int]) -> str:
    """The group of a candidate; empty for a reference or an ablation, which are in none."""
    if record.is_random:
        return "random search"
    if not record.is_searched:
        return ""
    return "searched, on the front" if record.number in on_front else "searched, dominated"


def _unfinished(records: Sequence[Record]) -> list[Group]:
    """Stopped candidates, and failed ones; a kind of which there is none has no group."""
    stopped = [record for record in records if record.stopped and record.rung_metrics]
    failed = [record for record in records if record.failure]
    found = [
        Group("stopped early, after a shorter training", *STOPPED, "last rung", _tags(stopped)),
        Group("failed", *FAILED, "failed", _tags(failed)),
    ]
    return [group for group in found if group.tags]


def _beyond(metric: Metric, records: Sequence[Record]) -> float | None:
    """Worse than all trainings to the end and last rungs, by a twentieth of their range."""
    values = [record.val_metric for record in records if record.val_metric is not None]
    values += [record.rung_metrics[-1] for record in records if record.rung_metrics]
    if not values:
        return None
    minimised = [metric.minimised(value) for value in values]
    worst = max(minimised)
    return metric.minimised(worst + ((worst - min(minimised)) / 20 or 1.0))


def _span_ten_times(records: Sequence[Record], axes: Sequence[str]) -> bool:
    """Whether the greatest positive overhead is over ten times the least."""
    complete = [record for record in records if record.complete]
    overheads = [_at(record, axis) for record in complete for axis in axes]
    positive = [overhead for overhead in overheads if overhead is not None and overhead > 0]
    return bool(positive) and max(positive) > 10 * min(positive)


def _confident(
    tested: Sequence[Record], finals: FinalMetrics, axis: str
) -> tuple[tuple[str, float], ...]:
    pessimistic = [
        replace(record, val_metric=_worse_end(record.metric, finals.means[record.number]))
        for record in _with_overhead(tested, axis)
    ]
    line = front_line(pessimistic, axis)
    return tuple((record.tag, record.val_metric or 0.0) for record in line)


def _worse_end(metric: Metric, test: Mean) -> float:
    end = test.low if metric.larger_is_better else test.high
    return test.mean if end is None else end


def _with_overhead(records: Sequence[Record], axis: str) -> list[Record]:
    return [record for record in records if _at(record, axis) is not None]


def _at(record: Record, axis: str) -> float | None:
    """The overhead, in percent; None where it is not known."""
    overhead: float | None = getattr(record, axis)
    return overhead


def _tags(records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(record.tag for record in records)
