"""The report: one HTML file that opens offline.

All text from the study is escaped; plotly.js is in the file once.
"""

import html
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from bam_search.files import write
from bam_search.report.figures import draw, draw_curves, draw_progress
from bam_search.report.findings import (
    ComparedTo,
    Rung,
    SiteEffects,
    Stopping,
    ablations,
    compare_to,
    progress,
    recommended,
    search_vs_random,
    site_effects,
    stopping,
)
from bam_search.report.paper_table import Paper, paper_table
from bam_search.report.payload import ReportContext, as_script, payload
from bam_search.report.tables import (
    Answer,
    ablation_table,
    answers,
    difference_table,
    effect_table,
    error_text,
    finalist_table,
    front_csv,
    records_csv,
    shown,
    test_text,
)
from bam_search.search.pareto import pareto_front
from bam_search.search.record import RANDOM, REFERENCE, Record, main_records
from bam_search.search.statistics import Difference
from bam_search.space.search_space import ChoiceSpace
from bam_search.words import counted

ASSETS = Path(__file__).parent / "assets"


def write_report(
    folder: Path, context: ReportContext, records: Sequence[Record], plotlyjs: str = "inline"
) -> Path:
    """Write index.html, records.csv and front.csv into `folder`, and return the page's path."""
    write(folder / "records.csv", records_csv(records))
    write(folder / "front.csv", front_csv(main_records(records), context.objectives))
    write(folder / "index.html", page(context, records, plotlyjs))
    return folder / "index.html"


def page(context: ReportContext, records: Sequence[Record], plotlyjs: str = "inline") -> str:
    """The whole page as HTML.

    `plotlyjs` is "inline" for plotly.js in the page, or "cdn" to load it from its makers' server.
    """
    warning = context.warning
    banner = f'<p class="warning">{html.escape(warning)}</p>' if warning else ""
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    behaviour = f"{as_script(payload(context, records))}<script>{script}</script>"
    top = _subtitle(context.about) + banner
    return document(context.title, top, _sections(context, records), behaviour, plotlyjs)


def _sections(context: ReportContext, records: Sequence[Record]) -> list[tuple[str, str]]:
    """The page's headings, each with its content as HTML, in the page's order."""
    costs = context.costs
    return [
        ("The answer", _answer(records)),
        ("Accuracy against overhead", _accuracy(records, context.objectives)),
        ("The finalists", html_table(finalist_table(records, costs), FINALISTS)),
        ("Against the references", html_table(difference_table(records, costs), DIFFERENCES)),
        ("The paper's figures beside ours", _paper(context.paper, records)),
        ("Where attention helps", _helps(records, context.choice_space)),
        ("Was the search worth it?", _progress(records, context) + _worth(records, context)),
        ("Training curves", _curves(records)),
        ("The front of the search", _search_front(records, context.objectives)),
        ("All candidates", _all_candidates(records)),
        ("How it was run", _definitions({**context.about, **_totals(records)})),
    ]


def _accuracy(records: Sequence[Record], objectives: Sequence[str]) -> str:
    return embedded(draw(records, objectives)) + DETAIL + paragraph(READING)


def _curves(records: Sequence[Record]) -> str:
    figure = draw_curves(records)
    return embedded(figure) if figure else ""


def _search_front(records: Sequence[Record], objectives: Sequence[str]) -> str:
    return html_table(shown(pareto_front(main_records(records), objectives)))


def _all_candidates(records: Sequence[Record]) -> str:
    parallel = PARALLEL if records else ""
    table = html_table(shown(records), kind="all")
    return parallel + table + _stopped(records) + _failures(records)


def document(
    title: str,
    top: str,
    sections: Sequence[tuple[str, str]],
    behaviour: str = "",
    plotlyjs: str = "inline",
) -> str:
    """A whole page as HTML.

    `title` and the headings of `sections` are text; `top`, the sections' contents and the scripts
    of `behaviour` are HTML. A section without content is left out. The page can load nothing from
    anywhere, but for plotly.js where `plotlyjs` is "cdn"; "none" is for pages without figures.
    """
    library, source = LIBRARIES[plotlyjs]()
    policy = (
        f"default-src 'none'; script-src 'unsafe-inline' {source}; "
        "style-src 'unsafe-inline'; img-src data: blob:"
    )
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    body = "\n".join(_section(name, content) for name, content in sections if content)
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{viewport}
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(title)}</title><style>{style}</style>{library}</head>
<body><h1>{html.escape(title)}</h1>{top}
{body}
{behaviour}
</body></html>
"""


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{html.escape(heading)}</h2>\n{content}</section>"


def _from_cdn() -> tuple[str, str]:
    source = f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js"
    return f'<script src="{source}"></script>', source


LIBRARIES: Mapping[str, Callable[[], tuple[str, str]]] = {
    "inline": lambda: (f"<script>{get_plotlyjs()}</script>", ""),
    "cdn": _from_cdn,
    "none": lambda: ("", ""),
}
"""How plotly.js comes into a page: its script element, and the address that the page may load."""
DETAIL = '<div id="detail" hidden aria-live="polite"></div>'
PARALLEL = '<div id="parallel"></div>'
READING = (
    "Each point is one candidate, trained once and scored on validation images that were held out "
    "of its training; bars are one binomial standard error of those images, and the spread between "
    "training seeds comes on top. A member of the front is beaten by no candidate in error, "
    "parameters and MACs together; the dotted line is the front of its panel alone. "
    "The crosses (click the legend) are mean test errors of the finalists, trained again with "
    "fresh seeds on all training images. MACs are multiply-adds for one image. "
    "'conv + fc' is the convention that papers publish; 'all' adds batch normalisation, pooling "
    "and elementwise operators at one operation an element. An option that a placement does not "
    "write has its default: bam is bam(r=16,d=4), se is se(r=16)."
)
FINALISTS = (
    "The references, the front of the search, the front to expect once the noise of single "
    "trainings is averaged out, and the best of the random search, trained again with seeds that "
    "the search has not seen, on all training images, each training measured once on the test set. "
    "Intervals are 90 %, Student's t over seeds. 'On the front' is the probability that no "
    "finalist of at most its costs has a lower mean, given the noise that all finalists together "
    "show. 'Promised' and 'kept' are points better than the first reference, on validation in the "
    "search and on test here: what was luck is not kept. "
    "Further seeds went to those of which membership was least clear."
)
DIFFERENCES = (
    "Differences of test error in points, paired by seed: what a seed does to all placements alike "
    "drops out. Negative is better. Each interval is of 90 % by itself, not of all jointly; "
    "a tie is one with zero in it."
)
HELPS = (
    "Change of the validation error in points (negative helps), from an additive model of all "
    "records, with 90 % intervals; a module at a site at its average setting, an option's value "
    "beside the mean of its values. Left out of the model, a record is predicted to within "
    "{left_out:.2f} points; the plain mean of the others does so to within {left_out_mean:.2f}. "
    "{records} records. The search chose these records, and the model is simpler than a network: "
    "in simulated studies of known truth such intervals contained it in 77 % of cases, so take "
    "them as hints; the finalists' differences are the evidence."
)
VERDICTS = {"tie": "a tie with", "better": "better than", "worse": "worse than"}


def answer_line(answer: Answer) -> str:
    """The answer in a sentence, with the best other reference beside it.

    'at most +2 % parameters: layer1=bam (#7), 81.63 ± 0.21 (3) % test error, better than BAM in
    every block by +0.60 points (...)'.
    """
    record = answer.record
    name = record.name or f"#{record.tag}"
    sentence = f"{answer.question}: {record.placement} ({name}), {_measured_error(record)}"
    if answer.beside is None:
        return sentence
    rival, difference = answer.beside.other, answer.beside.difference
    verdict = f"{VERDICTS[difference.word]} {rival.name} by {-difference.mean:+.2f} points"
    return f"{sentence}, {verdict} ({_improvement(difference)}, n = {difference.n})"


def _measured_error(record: Record) -> str:
    """'81.63 ± 0.21 (3) % test error', or the validation error where no test was made."""
    if record.test_errors:
        return f"{test_text(record)} % test error"
    return f"{error_text(record)} % validation error"


def _improvement(difference: Difference) -> str:
    """The interval of how much better, which is the difference's with its signs turned."""
    if difference.low is None or difference.high is None:
        return "one seed"
    return f"90 % interval {-difference.high:+.2f} to {-difference.low:+.2f}"


def verdict_lines(records: Sequence[Record]) -> list[str]:
    """Sentences that compare the search's winner to each reference and to the random search.

    Without a search the other references are compared to the first one. Empty without finalists.
    """
    best = recommended(records)
    if best is None:
        return _reference_lines(records)
    first = f"The search's winner, {best.placement} (#{best.tag}), is"
    compared = compare_to(records, best, (REFERENCE, RANDOM))
    return [first, *map(_verdict, compared)]


def _reference_lines(records: Sequence[Record]) -> list[str]:
    """The other references beside the first one; empty where none can be compared to it."""
    tested = [r for r in records if r.origin == REFERENCE and r.test_errors]
    lines = []
    for reference in tested[1:]:
        compared = compare_to(records, reference, (REFERENCE,))
        to_first = [one for one in compared if one.other is tested[0]]
        lines += [f"{reference.name}: {_verdict(one)}" for one in to_first]
    return ["The references beside the first one:", *lines] if lines else []


def _verdict(compared: ComparedTo) -> str:
    """One comparison in a sentence.

    'better than SE in every block: -0.61 points of test error, 90 % interval -1.02 to -0.20,
    n = 3; ...'.
    """
    difference, record, other = compared.difference, compared.record, compared.other
    verdict = f"{VERDICTS[difference.word]} {_rival_name(other)}"
    points = f"{difference.mean:+.2f} points of test error"
    interval = _test_interval(difference)
    costs = f"{record.params_overhead:+.2f} % parameters against {other.params_overhead:+.2f} %"
    return f"{verdict}: {points}, {interval}, n = {difference.n}; {costs}"


def _rival_name(record: Record) -> str:
    return record.name or f"the best random placement, {record.placement}"


def _test_interval(difference: Difference) -> str:
    if difference.low is None:
        return "no interval with one seed"
    return f"90 % interval {difference.low:+.2f} to {difference.high:+.2f}"


def _subtitle(about: Mapping[str, str]) -> str:
    """The first thing that `about` says in a paragraph, the others in a second one."""
    keys = ("Question", "Backbone", "Data", "Variant")
    first, *others = [about[key] for key in keys if key in about] or [""]
    return paragraph(first) + paragraph(" · ".join(others))


def _answer(records: Sequence[Record]) -> str:
    lines = [answer_line(answer) for answer in answers(records)]
    if not lines:
        return paragraph("No candidate has been trained to the end.")
    tested = any(record.complete and record.test_errors for record in records)
    measure = "mean test error of the finalists" if tested else "validation error"
    reading = f"Least {measure} for each overhead budget, beside the best reference within it:"
    return f"<p>{reading}</p>{_list(lines)}{_verdicts(verdict_lines(records))}"


def _verdicts(lines: Sequence[str]) -> str:
    return paragraph(lines[0], "") + _list(lines[1:]) if lines else ""


def _helps(records: Sequence[Record], choice_space: ChoiceSpace) -> str:
    """The effects of sites and options, then what leaving a site of the winner out changes."""
    effects = site_effects(records, choice_space)
    without = ablations(records)
    text = _effects(effects) if effects else ""
    if without:
        heading = "<h3>The winner without each of its sites</h3>"
        text += heading + html_table(ablation_table(without))
    return text


def _effects(found: SiteEffects) -> str:
    reading = HELPS.format(
        left_out=found.left_out, left_out_mean=found.left_out_mean, records=found.records
    )
    table = html_table(effect_table(found.effects), reading)
    return '<div id="heat" class="scroll"></div>' + table


def _paper(paper: Paper, records: Sequence[Record]) -> str:
    """The paper's claim, its figures beside ours, and what of ours is not the paper's."""
    claim = ""
    if paper.claim:
        claim = paragraph(f"The paper, as our source texts report it: {paper.claim}", "")
    figures = html_table(paper_table(paper, records))
    apart = paragraph(paper.apart) if claim or figures else ""
    return claim + figures + apart


def _progress(records: Sequence[Record], context: ReportContext) -> str:
    lines = progress(records, context.objectives, context.startup)
    return embedded(draw_progress(lines)) if lines else ""


def _worth(records: Sequence[Record], context: ReportContext) -> str:
    """What the search found beside the random search, and what the rungs saved, as a list."""
    lines: list[str] = []
    compared = search_vs_random(records, context.objectives, context.startup)
    if compared:
        lines += [
            _arm_line("The search", compared.search),
            _arm_line("Random search", compared.random),
        ]
    stops = stopping(records, context.objectives)
    if stops:
        lines += _stopping_lines(stops)
    return _list(lines) if lines else ""


def _arm_line(name: str, arm: tuple[int, float, float]) -> str:
    spent, error, volume = arm
    return (
        f"{name}: {counted(spent, 'epoch')} of training, "
        f"least validation error {error:.2f} %, hypervolume {100 * volume:.0f} %"
    )


def _stopping_lines(stops: Stopping) -> list[str]:
    without_rungs = stops.spent + stops.saved
    share = stops.saved / without_rungs if stops.saved else 0
    stopped, epochs = counted(stops.stopped, "candidate"), counted(without_rungs, "epoch")
    return [
        f"Rungs stopped {stopped}, and saved {stops.saved} of {epochs} ({share:.0%})",
        f"Of {counted(stops.control, 'candidate')} that were hopeless and trained on all the same, "
        f"{stops.wrong} ended on the front",
        *map(_rung_line, stops.rungs),
    ]


def _rung_line(rung: Rung) -> str:
    tau, text = rung.agreement, "too few"
    if tau is not None:
        text = f"{tau.mean:.2f} ({tau.low:.2f} to {tau.high:.2f}, {tau.n} candidates)"
    epochs = counted(rung.epochs, "epoch")
    return f"Rank correlation of {epochs} with the full training, Kendall's tau: {text}"


def _stopped(records: Sequence[Record]) -> str:
    """A list to unfold of the candidates that were stopped, and why; empty if there are none."""
    stopped = [record for record in records if record.stopped]
    if not stopped:
        return ""
    lines = [f"#{record.tag} {record.placement}: stopped {record.stopped}" for record in stopped]
    summary = f"<summary>{len(lines)} stopped early</summary>"
    return f"<details>{summary}{_list(lines)}</details>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def html_table(frame: pd.DataFrame, reading: str = "", kind: str = "") -> str:
    """A table and how to read it; empty without rows.

    A row whose column "#" is a candidate's tag can be selected.
    """
    if not len(frame):
        return ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in frame.columns)
    body = "".join(_table_row(row) for row in frame.to_dict("records"))
    rows = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    table = f'<div class="scroll"><table class="{kind}">{rows}</table></div>'
    return table + paragraph(reading)


def _table_row(row: Mapping[Hashable, str]) -> str:
    selectable = "#" in row
    tag = f' data-tag="{html.escape(row["#"])}"' if selectable else ""
    cells = ""
    for name, value in row.items():
        # The page draws the placement of a row that can be selected into this cell.
        drawn = ' class="drawn"' if selectable and name == "placement" else ""
        cells += f"<td{drawn}>{html.escape(str(value))}</td>"
    return f"<tr{tag}>{cells}</tr>"


def _failures(records: Sequence[Record]) -> str:
    """The tracebacks of failed trainings, of the search and of the finals."""
    parts = []
    for record in records:
        for text in filter(None, (record.failure, record.test_failure)):
            heading = f"<h3>Candidate {record.tag} failed</h3>"
            parts.append(f"{heading}<pre>{html.escape(text)}</pre>")
    return "".join(parts)


def _totals(records: Sequence[Record]) -> dict[str, str]:
    """What came of all trainings together."""
    uncounted = sorted({name for record in records for name in record.uncounted})
    return {
        "Candidates": _outcomes(records),
        "Training time": f"{_training_seconds(records):,.0f} s, summed over all trainings",
        "Operators not counted": ", ".join(uncounted) or "none",
    }


def _outcomes(records: Sequence[Record]) -> str:
    """'12 references and searched ones, 4 beside the search, 9 trained to the end, ...'."""
    main = len(main_records(records))
    counts = (
        f"{main} references and searched ones",
        f"{len(records) - main} beside the search",
        f"{sum(record.complete for record in records)} trained to the end",
        f"{sum(bool(record.stopped) for record in records)} stopped early",
        f"{sum(bool(record.failure) for record in records)} failed",
    )
    return ", ".join(counts)


def _training_seconds(records: Sequence[Record]) -> float:
    seconds: list[float] = []
    for record in records:
        seconds += [record.seconds or 0, record.test_seconds or 0]
    return sum(seconds)


def _definitions(about: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>"
        for key, value in about.items()
    )
    return f'<div class="scroll"><table>{rows}</table></div>'


def embedded(figure: go.Figure) -> str:
    """A figure as HTML; plotly.js is in the page's head."""
    # Plotly's own button uploads the chart to its makers: a report leaves no machine by itself.
    config = {
        "displaylogo": False,
        "responsive": True,
        "showSendToCloud": False,
        "toImageButtonOptions": {"format": "svg"},
    }
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def paragraph(text: str, kind: str = "note") -> str:
    """Text as a paragraph; empty for none."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if text else ""
