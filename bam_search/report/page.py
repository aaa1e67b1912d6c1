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
    """The whole page as HTML, with plotly.js in it ("inline"), or to be loaded from its makers'
    server ("cdn").
    """
    banner = f'<p class="warning">{html.escape(context.warning)}</p>' if context.warning else ""
    sections = [
        ("The answer", _answer(records)),
        (
            "Accuracy against overhead",
            embedded(draw(records, context.objectives)) + DETAIL + paragraph(READING),
        ),
        ("The finalists", html_table(finalist_table(records, context.costs), FINALISTS)),
        (
            "Against the references",
            html_table(difference_table(records, context.costs), DIFFERENCES),
        ),
        ("The paper's figures beside ours", _paper(context.paper, records)),
        ("Where attention helps", _helps(records, context.choice_space)),
        ("Was the search worth it?", _progress(records, context) + _worth(records, context)),
        ("Training curves", embedded(curves) if (curves := draw_curves(records)) else ""),
        (
            "The front of the search",
            html_table(shown(pareto_front(main_records(records), context.objectives))),
        ),
        (
            "All candidates",
            (PARALLEL if records else "")
            + html_table(shown(records), kind="all")
            + _stopped(records)
            + _failures(records),
        ),
        ("How it was run", _definitions({**context.about, **_totals(records)})),
    ]
    behaviour = f"{as_script(payload(context, records))}<script>{(ASSETS / 'page.js').read_text(encoding='utf-8')}</script>"
    return document(context.title, _subtitle(context.about) + banner, sections, behaviour, plotlyjs)


def document(
    title: str,
    top: str,
    sections: Sequence[tuple[str, str]],
    behaviour: str = "",
    plotlyjs: str = "inline",
) -> str:
    """A whole page: the title and headings as text, `top`, the sections' contents and the scripts
    of its `behaviour` as HTML.

    A section without content is left out. The page can load nothing from anywhere, but for
    plotly.js where `plotlyjs` is "cdn"; "none" is for pages without figures.
    """
    library, source = LIBRARIES[plotlyjs]()
    policy = f"default-src 'none'; script-src 'unsafe-inline' {source}; style-src 'unsafe-inline'; img-src data: blob:"
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    body = "\n".join(
        f"<section><h2>{html.escape(name)}</h2>\n{content}</section>"
        for name, content in sections
        if content
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(title)}</title><style>{style}</style>{library}</head>
<body><h1>{html.escape(title)}</h1>{top}
{body}
{behaviour}
</body></html>
"""


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
    "Each point is one candidate, trained once and scored on validation images that were held out of its training; bars are one binomial "
    "standard error of those images, and the spread between training seeds comes on top. A member of the front is beaten by no candidate "
    "in error, parameters and MACs together; the dotted line is the front of its panel alone. The crosses (click the legend) are mean test "
    "errors of the finalists, trained again with fresh seeds on all training images. MACs are multiply-adds for one image. 'conv + fc' is "
    "the convention that papers publish; 'all' adds batch normalisation, pooling and elementwise operators at one operation an element. An "
    "option that a placement does not write has its default: bam is bam(r=16,d=4), se is se(r=16)."
)
FINALISTS = (
    "The references, the front of the search, the front to expect once the noise of single trainings is averaged out, and the best of the "
    "random search, trained again with seeds that the search has not seen, on all training images, each training measured once on the test "
    "set. Intervals are 90 %, Student's t over seeds. 'On the front' is the probability that no finalist of at most its costs has a lower "
    "mean, given the noise that all finalists together show. 'Promised' and 'kept' are points better than the first reference, on "
    "validation in the search and on test here: what was luck is not kept. Further seeds went to those of which membership was least clear."
)
DIFFERENCES = (
    "Differences of test error in points, paired by seed: what a seed does to all placements alike drops out. Negative is better. Each "
    "interval is of 90 % by itself, not of all jointly; a tie is one with zero in it."
)
HELPS = (
    "Change of the validation error in points (negative helps), from an additive model of all records, with 90 % intervals; a module at a "
    "site at its average setting, an option's value beside the mean of its values. Left out of the model, a record is predicted to within "
    "{left_out:.2f} points; the plain mean of the others does so to within {left_out_mean:.2f}. {records} records. "
    "The search chose these records, and the model is simpler than a network: in simulated studies of known truth such intervals contained "
    "it in 77 % of cases, so take them as hints; the finalists' differences are the evidence."
)


VERDICTS = {"tie": "a tie with", "better": "better than", "worse": "worse than"}


def answer_line(answer: Answer) -> str:
    """'at most +2 % parameters: layer1=bam (#7), 81.63 ± 0.21 (3) % test error, better than BAM in
    every block by 0.60 points (...)'.
    """
    record, beside = answer.record, answer.beside
    error = (
        f"{test_text(record)} % test error"
        if record.test_errors
        else f"{error_text(record)} % validation error"
    )
    said = f"{answer.question}: {record.placement} ({record.name or f'#{record.tag}'}), {error}"
    if beside is None:
        return said
    d = beside.difference
    interval = (
        "one seed"
        if d.low is None or d.high is None
        else f"90 % interval {-d.high:+.2f} to {-d.low:+.2f}"
    )
    return f"{said}, {VERDICTS[d.word]} {beside.other.name} by {-d.mean:+.2f} points ({interval}, n = {d.n})"


def verdict_lines(records: Sequence[Record]) -> list[str]:
    """A sentence for each reference, and for the random search, that sets the search's winner
    beside it; none without finalists.

    Without a search the first reference is set beside the others.
    """
    best = recommended(records)
    if best is not None:
        first = f"The search's winner, {best.placement} (#{best.tag}), is"
        return [
            first,
            *(_verdict(found) for found in compare_to(records, best, (REFERENCE, RANDOM))),
        ]
    references = [r for r in records if r.origin == REFERENCE and r.test_errors]
    beside = [
        found
        for other in references[1:]
        for found in compare_to(records, other, (REFERENCE,))
        if found.other is references[0]
    ]
    lines = [f"{found.record.name}: {_verdict(found)}" for found in beside]
    return ["The references beside the first one:", *lines] if lines else []


def _verdict(found: ComparedTo) -> str:
    """'better than SE in every block: -0.61 points of test error, 90 % interval -1.02 to -0.20, n =
    3; ...'.
    """
    d, record, other = found.difference, found.record, found.other
    name = other.name or f"the best random placement, {other.placement}"
    interval = (
        "no interval with one seed"
        if d.low is None
        else f"90 % interval {d.low:+.2f} to {d.high:+.2f}"
    )
    costs = f"{record.params_overhead:+.2f} % parameters against {other.params_overhead:+.2f} %"
    return f"{VERDICTS[d.word]} {name}: {d.mean:+.2f} points of test error, {interval}, n = {d.n}; {costs}"


def _subtitle(about: Mapping[str, str]) -> str:
    parts = [about[key] for key in ("Question", "Backbone", "Data", "Variant") if key in about]
    return "".join(paragraph(part) for part in parts[:1]) + paragraph(" · ".join(parts[1:]))


def _answer(records: Sequence[Record]) -> str:
    verdicts = verdict_lines(records)
    first = paragraph(verdicts[0], "") + _list(verdicts[1:]) if verdicts else ""
    tested = any(record.complete and record.test_errors for record in records)
    measure = "mean test error of the finalists" if tested else "validation error"
    lines = [answer_line(answer) for answer in answers(records)]
    if not lines:
        return paragraph("No candidate has been trained to the end.")
    return f"<p>Least {measure} for each overhead budget, beside the best reference within it:</p>{_list(lines)}{first}"


def _helps(records: Sequence[Record], choice_space: ChoiceSpace) -> str:
    found, without = site_effects(records, choice_space), ablations(records)
    text = ""
    if found:
        reading = HELPS.format(
            left_out=found.left_out, left_out_mean=found.left_out_mean, records=found.records
        )
        text = '<div id="heat" class="scroll"></div>' + html_table(
            effect_table(found.effects), reading
        )
    if without:
        text += "<h3>The winner without each of its sites</h3>" + html_table(
            ablation_table(without)
        )
    return text


def _paper(paper: Paper, records: Sequence[Record]) -> str:
    claim = (
        paragraph(f"The paper, as our source texts report it: {paper.claim}", "")
        if paper.claim
        else ""
    )
    figures = html_table(paper_table(paper, records))
    return claim + figures + (paragraph(paper.apart) if claim or figures else "")


def _progress(records: Sequence[Record], context: ReportContext) -> str:
    lines = progress(records, context.objectives, context.startup)
    return embedded(draw_progress(lines)) if lines else ""


def _worth(records: Sequence[Record], context: ReportContext) -> str:
    lines = []
    beside = search_vs_random(records, context.objectives, context.startup)
    for name, arm in (
        (("The search", beside.search), ("Random search", beside.random)) if beside else ()
    ):
        epochs = counted(arm[0], "epoch")
        lines.append(
            f"{name}: {epochs} of training, least validation error {arm[1]:.2f} %, hypervolume {100 * arm[2]:.0f} %"
        )
    found = stopping(records, context.objectives)
    if found:
        share = found.saved / (found.spent + found.saved) if found.saved else 0
        stopped, epochs = (
            counted(found.stopped, "candidate"),
            counted(found.spent + found.saved, "epoch"),
        )
        audited = counted(found.control, "candidate")
        lines.append(f"Rungs stopped {stopped}, and saved {found.saved} of {epochs} ({share:.0%})")
        lines.append(
            f"Of {audited} that were hopeless and trained on all the same, {found.wrong} ended on the front"
        )
    for rung in found.rungs if found else ():
        tau = rung.agreement
        text = (
            "too few"
            if tau is None
            else f"{tau.mean:.2f} ({tau.low:.2f} to {tau.high:.2f}, {tau.n} candidates)"
        )
        lines.append(
            f"Rank correlation of {counted(rung.epochs, 'epoch')} with the full training, Kendall's tau: {text}"
        )
    return _list(lines) if lines else ""


def _stopped(records: Sequence[Record]) -> str:
    lines = [
        f"#{record.tag} {record.placement}: stopped {record.stopped}"
        for record in records
        if record.stopped
    ]
    return (
        f"<details><summary>{len(lines)} stopped early</summary>{_list(lines)}</details>"
        if lines
        else ""
    )


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
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{paragraph(reading)}'


def _table_row(row: Mapping[Hashable, str]) -> str:
    tag = f' data-tag="{html.escape(row["#"])}"' if "#" in row else ""
    drawn = ' class="drawn"'  # the page draws the row's placement there
    cells = (
        f"<td{drawn if tag and name == 'placement' else ''}>{html.escape(str(value))}</td>"
        for name, value in row.items()
    )
    return f"<tr{tag}>{''.join(cells)}</tr>"


def _failures(records: Sequence[Record]) -> str:
    texts = [
        (record, text)
        for record in records
        for text in (record.failure, record.test_failure)
        if text
    ]
    return "".join(
        f"<h3>Candidate {record.tag} failed</h3><pre>{html.escape(text)}</pre>"
        for record, text in texts
    )


def _totals(records: Sequence[Record]) -> dict[str, str]:
    """What came of all trainings together."""
    own, kept = main_records(records), [record for record in records if record.complete]
    trained = sum(
        seconds or 0 for record in records for seconds in (record.seconds, record.test_seconds)
    )
    uncounted = sorted({name for record in records for name in record.uncounted})
    counts = [
        f"{len(own)} references and searched ones, {len(records) - len(own)} beside the search",
        f"{len(kept)} trained to the end",
    ]
    counts += [
        f"{sum(bool(getattr(r, key)) for r in records)} {word}"
        for key, word in (("stopped", "stopped early"), ("failure", "failed"))
    ]
    return {
        "Candidates": ", ".join(counts),
        "Training time": f"{trained:,.0f} s, summed over all trainings",
        "Operators not counted": ", ".join(uncounted) or "none",
    }


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
