"""The first screen in words: what to do, why, at what cost, and the few rows that show it."""

from collections.abc import Sequence
from dataclasses import dataclass

from bam_search.analysis.final_metrics import ComparedTo
from bam_search.analysis.findings import Findings
from bam_search.analysis.overview import Overview, Standing
from bam_search.analysis.recommendation import TIMES
from bam_search.report.forest import WIDTH, Forest, Scale, forest
from bam_search.report.front_figure import FrontFigure, best_words, front_figure
from bam_search.report.sentences import (
    believability_lines,
    promising_line,
    times_words,
    trial_words,
    within,
    within_words,
)
from bam_search.report.tables import measured_times, verdict_text
from bam_search.space.placement import Placement
from bam_search.study.record import Record
from bam_search.words import counted, counted_range

FEW = 3
"""So many sites are named in the headline; more are counted."""
SHORT = 4
"""Names of attention modules of at most so many letters are acronyms: BAM, CBAM, SE."""


@dataclass(frozen=True)
class Advice:
    """What to do in a few words, the placement to write for it, and why."""

    headline: str
    placement: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A row of the first screen's table: a record, what it is there, and its numbers as text."""

    record: Record
    name: str
    role: str
    expected: str
    forest: Forest | None
    difference: str
    verdict: str
    words: str
    costs: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class FirstScreen:
    """All of the first screen.

    Attributes:
        advice: the recommendation, said once.
        trial: what speaks against the trainings; empty if nothing does.
        chips: what else to know of the tests.
        figure: None if nothing was tested, and then there are no rows.
        baseline: what rows are beside: the name of no attention.
        rows: the references, the recommended record and the best one.
        ticks: the numbers of the rows' forest plots, and their pixels, of `width`.
        costs: the titles of the rows' costs, of the times those that were measured.
    """

    advice: Advice
    trial: tuple[str, ...]
    chips: tuple[str, ...]
    figure: FrontFigure | None
    baseline: str
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    width: int
    costs: tuple[str, ...]


def first_screen(findings: Findings, sample: str) -> FirstScreen:
    """The first screen of a study; `sample` is what one is called, "image" for example."""
    overview = findings.overview
    shown = [] if overview is None else _shown(overview)
    scale = Scale.of([one.beside.difference for one in shown if one.beside is not None])
    return FirstScreen(
        advice=advice(findings),
        trial=_trial(findings),
        chips=_chips(findings, sample),
        figure=front_figure(findings),
        baseline=overview.baseline.label if overview else "",
        rows=tuple(_row(findings, one, scale) for one in shown),
        ticks=tuple(scale.ticks),
        width=WIDTH,
        costs=("params, %", "MACs, %", *_time_title(findings)),
    )


def _trial(findings: Findings) -> tuple[str, ...]:
    """What speaks against the trainings, unless the advice says it."""
    believable = findings.believability
    if believable is None or believable.near_chance:
        return ()
    words = trial_words(findings.metric, believable)
    return (words,) if words else ()


def advice(findings: Findings) -> Advice:
    """What follows from the study."""
    overview, believable = findings.overview, findings.believability
    if overview is None:
        return Advice("Nothing has been tested yet", "", _so_far(findings))
    if overview.recommended is None:
        lines = tuple(believability_lines(findings.metric, believable))
        return Advice("Nothing is recommended", "", lines)
    if not overview.recommended.has_attention:
        return Advice("Use no attention", "", _without(findings))
    record = overview.recommended
    headline = f"Use {record.name}" if record.is_reference else put_words(record.parsed_placement)
    return Advice(headline, record.placement, _evidence(findings, overview, record))


def _so_far(findings: Findings) -> tuple[str, ...]:
    n = findings.outcomes.complete
    if not n:
        return ("No candidate has been trained to the end yet.",)
    trained = f"{counted(n, 'candidate')} trained in the search so far"
    return (f"{trained}: single validations, which only the finals can tell from luck.",)


def _without(findings: Findings) -> tuple[str, ...]:
    found = findings.recommendation
    assert found is not None
    lines = [f"No placement is shown to help{within_words(findings, found)}."]
    if found.promising is not None:
        lines.append(f"{promising_line(found.promising)}.")
    return tuple(lines)


def put_words(placement: Placement) -> str:
    """'Put BAM at layer3', 'Put BAM at layer1 and SE at layer2', 'Put BAM at 9 sites'."""
    by_module: dict[str, list[str]] = {}
    for site, choice in placement.choices:
        by_module.setdefault(choice.module, []).append(site)
    parts = [f"{module_words(module)} at {_sites(sites)}" for module, sites in by_module.items()]
    return f"Put {_and(parts)}"


def module_words(module: str) -> str:
    """'BAM' for bam: a short name is an acronym."""
    return module.upper() if len(module) <= SHORT else module


def _sites(sites: Sequence[str]) -> str:
    return _and(sites) if len(sites) <= FEW else f"{len(sites)} sites"


def _and(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _evidence(findings: Findings, overview: Overview, record: Record) -> tuple[str, ...]:
    standing, metric = overview.standing(record), findings.metric
    if standing.beside is None:
        value = metric.with_unit(metric.text(standing.expected))
        first = f"Test {metric.name} {value}"
    elif standing.beside.verdict == "unclear":
        first = _untold(standing.beside)
    else:
        first = _gain(standing.beside)
    return f"{first}, for {costs_words(record)}.", _others(findings, overview)


def _gain(beside: ComparedTo) -> str:
    """'1.01 points less test top-1 error than no attention (95 % interval ...)'."""
    metric, difference = beside.record.metric, beside.difference
    word = "more" if difference.mean > 0 else "less"
    turned = difference if difference.mean > 0 else difference.turned
    amount = metric.with_difference_unit(metric.text(turned.mean))
    text = f"{amount} {word} test {metric.name} than {beside.other.label}"
    seeds = counted(difference.n, "common seed")
    if turned.low is None or turned.high is None:
        return f"{text} ({seeds})"
    ends = f"{metric.text(turned.low)} to {metric.text(turned.high)}"
    return f"{text} (95 % interval {ends}, {seeds})"


def _untold(beside: ComparedTo) -> str:
    """'Not told from no attention within 0.41 points (-0.06, 95 % interval ...)'."""
    metric, difference = beside.record.metric, beside.difference
    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = f", 95 % interval {metric.range(difference.low, difference.high)}"
    return (
        f"Cannot be told from {beside.other.label}{within(beside)} "
        f"({metric.signed(difference.mean)}{interval}, {counted(difference.n, 'common seed')})"
    )


def costs_words(record: Record) -> str:
    """'+1.55 % parameters, +0.30 % MACs, +26 % time as trained and +72 % time as deployed'."""
    words = [
        f"{record.params_overhead:+z.2f} % parameters",
        f"{record.macs_conv_fc_overhead:+z.2f} % MACs",
    ]
    return _and([*words, *times_words(record)])


def _others(findings: Findings, overview: Overview) -> str:
    """What else was tested, beside the recommended one."""
    best, beside, metric = overview.best, overview.best_beside, findings.metric
    if best is overview.recommended:
        return "Nothing else that was tested is expected to be better."
    value = metric.with_unit(metric.text(overview.standing(best).expected))
    name = best.name if best.is_reference else f"#{best.tag}"
    told = "" if beside is None else within(beside)
    return (
        f"It is the cheapest that nothing tested is measurably better than: the "
        f"{best_words(metric)}, {value} by {name} for {costs_words(best)}, cannot be told from "
        f"it{told}."
    )


def _chips(findings: Findings, sample: str) -> tuple[str, ...]:
    """What else to know of the tests, in a few words each."""
    overview = findings.overview
    if overview is None:
        return ()
    words = [f"test {sample}s used for finals only"]
    seeds = [finalist.test.n for finalist in findings.finalists]
    if seeds:
        words.insert(0, f"{counted(len(seeds), 'finalist')}, {counted_range(seeds, 'seed')} each")
    beside = overview.random_beside
    if beside is not None:
        words.append(f"{_verdict_of(beside)} the best of as much random search")
    return tuple(words)


def _verdict_of(compared: ComparedTo) -> str:
    if compared.verdict == "unclear":
        return f"cannot be told{within(compared)} from"
    return f"{compared.verdict} than"


def _shown(overview: Overview) -> list[Standing]:
    """The references in the study's order, then the recommended record, then the best one."""
    references = [one for one in overview.standings if one.record.is_reference]
    references.sort(key=lambda one: one.record.number)
    shown = [overview.standing(overview.baseline), *references]
    if overview.recommended is not None:
        shown.append(overview.standing(overview.recommended))
    shown.append(overview.standing(overview.best))
    return list({one.record.number: one for one in shown}.values())


def _row(findings: Findings, standing: Standing, scale: Scale) -> Row:
    record, beside, metric = standing.record, standing.beside, findings.metric
    costs = [f"{record.params_overhead:+z.2f}", f"{record.macs_conv_fc_overhead:+z.2f}"]
    times = [getattr(record, key) for key in measured_times(findings.records)]
    if times:
        costs.append(" · ".join("–" if time is None else f"{round(time):+}" for time in times))
    return Row(
        record=record,
        name=record.label if record.is_reference else f"#{record.tag}",
        role=_role(findings, record),
        expected=metric.text(standing.expected),
        forest=None if beside is None else forest(scale, beside.difference, beside.verdict),
        difference="" if beside is None else metric.signed(beside.difference.mean),
        verdict="" if beside is None else beside.verdict,
        words=_row_words(findings, standing),
        costs=tuple(costs),
        seeds=len(record.test_metrics),
    )


def _time_title(findings: Findings) -> tuple[str, ...]:
    """The title of the one column with times, 'time as trained · as deployed, %'; () without it."""
    titles = [TIMES[key] for key in measured_times(findings.records)]
    words = " · ".join([*titles[:1], *(title.removeprefix("time ") for title in titles[1:])])
    return (f"{words}, %",) if titles else ()


def _role(findings: Findings, record: Record) -> str:
    overview = findings.overview
    if overview is not None and record is overview.recommended:
        return "recommended"
    if overview is not None and record is overview.best:
        return best_words(findings.metric)
    return ""


def _row_words(findings: Findings, standing: Standing) -> str:
    """'baseline', 'better', or 'cannot tell within 0.57'."""
    beside = standing.beside
    if beside is None:
        is_baseline = findings.overview and standing.record is findings.overview.baseline
        return "baseline" if is_baseline else "no seed in common"
    return verdict_text(beside)
