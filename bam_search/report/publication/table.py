"""The table for a paper: the references, the recommended and the best placement, or all tested.

The numbers are those of the overview and of the page's table of finalists.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from bam_search.analysis.findings import Findings
from bam_search.analysis.overview import Overview, Standing
from bam_search.analysis.recommendation import TIMES
from bam_search.analysis.statistics import mean
from bam_search.errors import UserError
from bam_search.report.front_figure import best_words
from bam_search.report.payload import ReportContext
from bam_search.report.publication.caption import bibtex, table_caption
from bam_search.report.publication.latex import AT_MOST_A_LINE, escaped, label, stacked
from bam_search.report.tables import fit_texts, further_texts, harmless, measured_times
from bam_search.study.record import Record

WIDE, LONGEST = 36, 60
"""If a name is longer than this, names are broken into lines; a longer placement stands by tag."""


def latex(context: ReportContext, findings: Findings, is_all: bool) -> str:
    """The table with rules of the package booktabs, made smaller where it is too wide."""
    heads, *body = cells = _cells(findings, is_all)
    is_long = max(len(row[0]) for row in cells) > WIDE
    begin = r"\raggedright " if is_long else ""
    lines_of_cells = [[escaped(heads[0]), *map(stacked, heads[1:])]]
    lines_of_cells += [list(map(escaped, row)) for row in body]
    header, *rows = [begin + " & ".join(row) + r" \\" for row in lines_of_cells]
    columns = (r"p{0.24\linewidth}" if is_long else "l") + "r" * (len(cells[0]) - 1)
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        r"\begin{table*}[t]",
        r"\centering\footnotesize",
        rf"\caption{{{escaped(_caption(context, findings, is_all))}}}",
        label("tab", context.title.removeprefix("bam_search: ")),
        r"\smallskip",
        r"\setlength{\tabcolsep}{4pt}",
        rf"{AT_MOST_A_LINE}{{\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        header,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table*}",
    ]
    return "\n".join(lines)


def markdown(context: ReportContext, findings: Findings, is_all: bool) -> str:
    """The table as GitHub shows it, the caption below."""
    header, *rows = _cells(findings, is_all)
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(map(_markdown, row))} |" for row in (header, rule, *rows)]
    return "\n".join([*lines, "", _markdown(_caption(context, findings, is_all))])


def csv(_context: ReportContext, findings: Findings, is_all: bool) -> str:
    """One row a placement, one column a number, none of them rounded."""
    overview = _overview(findings)
    rows = [_values(findings, overview, one) for one in _shown(overview, is_all)]
    return pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n").rstrip("\n")


def citations(context: ReportContext, _findings: Findings, _is_all: bool) -> str:
    """What to cite, for BibTeX."""
    return bibtex(context)


FORMS: Mapping[str, Callable[[ReportContext, Findings, bool], str]] = {
    "latex": latex,
    "markdown": markdown,
    "csv": csv,
    "bibtex": citations,
}
"""What the table can be written as."""


def _overview(findings: Findings) -> Overview:
    """The overview. Raises UserError if nothing has been tested."""
    if findings.overview is None:
        raise UserError(
            "nothing has been tested yet, so there is no table",
            "the table is of final trainings, which come after the search",
        )
    return findings.overview


def _shown(overview: Overview, is_all: bool) -> list[Standing]:
    """All that was tested, or the references, the recommended and the best one."""
    special = (overview.baseline, overview.recommended, overview.best)
    return [
        one
        for one in overview.standings
        if is_all or one.record.is_reference or any(one.record is record for record in special)
    ]


def role(findings: Findings, overview: Overview, record: Record) -> str:
    """'recommended', 'least top-1 error', both, or nothing."""
    roles = {"recommended": overview.recommended, best_words(findings.metric): overview.best}
    return ", ".join(name for name, one in roles.items() if one is record)


def _values(findings: Findings, overview: Overview, one: Standing) -> dict[str, Any]:
    """A row of the CSV file."""
    record, test, beside = one.record, findings.finals.means[one.record.number], one.beside
    further = record.test_further
    difference = beside.difference if beside else None
    latency = record.latency_interval or (None, None)
    deployed = record.deployed_latency_interval or (None, None)
    return {
        "candidate": record.tag,
        "origin": record.origin,
        "name": harmless(record.name),
        "role": role(findings, overview, record),
        "placement": harmless(record.placement),
        "data": harmless(record.data),
        "metric": harmless(findings.metric.title),
        "mean": test.mean,
        "sd": test.sd,
        "mean_low_90": test.low,
        "mean_high_90": test.high,
        "n": test.n,
        **{f"mean {harmless(title)}": mean(each).mean for title, each in further.items()},
        "mean_training": _mean(record.train_metrics),
        "mean_generalisation_gap": _mean(record.generalisation_gaps),
        "hierarchical_mean": one.expected,
        "beside": harmless(overview.baseline.label) if difference else "",
        "difference": difference and difference.mean,
        "difference_low_95": difference and difference.low,
        "difference_high_95": difference and difference.high,
        "common_seeds": difference and difference.n,
        "verdict": beside.verdict if beside else "",
        "params": record.params,
        "params_overhead_percent": record.params_overhead,
        "macs_conv_fc": record.macs_conv_fc,
        "macs_conv_fc_overhead_percent": record.macs_conv_fc_overhead,
        "macs": record.macs,
        "macs_overhead_percent": record.macs_overhead,
        "latency_overhead_percent": record.latency_overhead,
        "latency_low_95": latency[0],
        "latency_high_95": latency[1],
        "deployed_latency_overhead_percent": record.deployed_latency_overhead,
        "deployed_latency_low_95": deployed[0],
        "deployed_latency_high_95": deployed[1],
        "training_seconds": record.test_seconds and record.test_seconds / test.n,
    }


def _cells(findings: Findings, is_all: bool) -> list[list[str]]:
    """The header and the rows as text."""
    overview, metric = _overview(findings), findings.metric
    shown = _shown(overview, is_all)
    times = measured_times([one.record for one in shown])
    scale, prefix = (
        (1e9, "G") if max(one.record.macs_conv_fc for one in shown) >= 1e9 else (1e6, "M")
    )
    more = list(dict.fromkeys(title for one in shown for title in _more_texts(one.record)))
    rows = [_row(findings, overview, one, scale, more, times) for one in shown]
    titles = [
        "placement",
        f"test {metric.title}",
        *more,
        "n",
        metric.difference_title("difference"),
        "params, M",
        "+%",
        f"MACs, {prefix}",
        "+%",
        *(f"{TIMES[key]}, +%" for key in times),
    ]
    return [titles, *rows]


def _row(
    findings: Findings,
    overview: Overview,
    one: Standing,
    scale: float,
    more: Sequence[str],
    times: Sequence[str],
) -> list[str]:
    """A row as text.

    `more` are titles of what is measured beside the metric, `times` the overheads in time.
    """
    record, metric = one.record, findings.metric
    test = findings.finals.means[record.number]
    measured = [getattr(record, key) for key in times]
    spread = "" if test.sd is None else f" ± {metric.text(test.sd)}"
    return [
        _name(findings, overview, record),
        f"{metric.text(test.mean)}{spread}",
        *(_more_texts(record).get(title, "–") for title in more),
        str(test.n),
        _difference(one),
        f"{record.params / 1e6:.3f}",
        f"{record.params_overhead:.2f}",
        f"{record.macs_conv_fc / scale:.3f}",
        f"{record.macs_conv_fc_overhead:.2f}",
        *("–" if time is None else str(round(time)) for time in measured),
    ]


def _mean(values: Sequence[float]) -> float | None:
    """The mean; None of what was not measured."""
    return mean(values).mean if values else None


def _more_texts(record: Record) -> dict[str, str]:
    """What is measured beside the metric, by column: on test samples, then the fit."""
    further = {f"test {title}": text for title, text in further_texts(record).items()}
    return further | fit_texts(record)


def _caption(context: ReportContext, findings: Findings, is_all: bool) -> str:
    shown = [one.record for one in _shown(_overview(findings), is_all)]
    return table_caption(context, findings, [one for one in shown if _stands_by_tag(one)])


def _stands_by_tag(record: Record) -> bool:
    return not record.is_reference and len(record.placement) > LONGEST


def _name(findings: Findings, overview: Overview, record: Record) -> str:
    """'BAM in every block', 'layer3=bam(d=1) (recommended)'."""
    placement = f"#{record.tag}" if _stands_by_tag(record) else record.placement
    name = record.name if record.is_reference else placement
    words = role(findings, overview, record)
    return f"{name} ({words})" if words else name


def _difference(one: Standing) -> str:
    """'-0.99 (-1.57 to -0.43)'; a dash where there is none."""
    if one.beside is None:
        return "–"
    metric, difference = one.record.metric, one.beside.difference
    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = f" ({metric.range(difference.low, difference.high)})"
    return metric.signed(difference.mean) + interval


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
