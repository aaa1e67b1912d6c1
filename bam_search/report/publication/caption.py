"""What the figure and the table show, in the words of a caption, and what to cite for them."""

from collections.abc import Iterable, Sequence

from bam_search.analysis.findings import Findings
from bam_search.analysis.overview import Overview
from bam_search.analysis.recommendation import TIMES, TITLES
from bam_search.analysis.statistics import VERDICT_LEVEL
from bam_search.report.payload import ReportContext
from bam_search.report.sentences import believability_lines
from bam_search.study.record import Record
from bam_search.words import counted_range

WORDS = {"macs_conv_fc_overhead": "MACs"}
"""What a caption calls an overhead, where that is not its title."""
BAM = """\
@inproceedings{park2018bam,
  title     = {{BAM}: Bottleneck Attention Module},
  author    = {Park, Jongchan and Woo, Sanghyun and Lee, Joon-Young and Kweon, In So},
  booktitle = {British Machine Vision Conference (BMVC)},
  year      = {2018},
  note      = {arXiv:1807.06514}
}"""
TOOL = """\
@misc{bam_search,
  title     = {{bam\\_search}: where should an attention module go in a {CNN}?},
  author    = {{The bam\\_search authors}},
  year      = {%s},
  note      = {Version %s}
}"""


def figure_caption(context: ReportContext, findings: Findings, costs: Sequence[str] = ()) -> str:
    """The caption of the figure: what it shows, how it was measured, and on what."""
    overview = _tested(findings)
    costs = costs or overview.axes
    return _joined(
        [
            *_warnings(context),
            f"{_metric(findings)} against the overhead in {_costs(costs)}, of "
            f"{_what(context, findings)}",
            f"Points are hierarchical means over {_seeds(overview)}; bars are {VERDICT_LEVEL:.0%} "
            f"credible intervals of the difference to {overview.baseline.label} (dashed), paired "
            "by seed; the line is the Pareto front of the means",
            *_ring(overview),
            *tags_words(record for record in (overview.recommended, overview.best) if record),
            *_how(context, findings, costs),
        ]
    )


def table_caption(context: ReportContext, findings: Findings, by_tag: Sequence[Record] = ()) -> str:
    """The caption of the table, in which the records `by_tag` stand by their tags."""
    overview = _tested(findings)
    return _joined(
        [
            *_warnings(context),
            f"{_metric(findings)} of {_what(context, findings)}",
            f"Means and standard deviations are over {_seeds(overview)} (n)",
            f"Differences are to {overview.baseline.label}, paired by seed, of hierarchical means, "
            "which draw back what is probably luck, with "
            f"{VERDICT_LEVEL:.0%} credible intervals",
            *tags_words(by_tag),
            *_how(context, findings, tuple(overview.fronts)),
        ]
    )


def bibtex(context: ReportContext) -> str:
    """BibTeX's entries of BAM's paper and of this tool, in the version that ran the study."""
    year = context.about.get("Date", "")[:4]
    version = context.about.get("Versions", "").split(",")[0].removeprefix("bam_search ")
    return f"{BAM}\n\n{TOOL % (year, version)}"


def _tested(findings: Findings) -> Overview:
    assert findings.overview is not None  # the figure and the table say so first
    return findings.overview


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(f"{sentence.rstrip('.')}." for sentence in sentences)


def _warnings(context: ReportContext) -> list[str]:
    return [text for text in (context.state, context.warning) if text]


def _metric(findings: Findings) -> str:
    """'Test top-1 error (%)'."""
    unit = f" ({findings.metric.unit})" if findings.metric.unit else ""
    return f"Test {findings.metric.name}{unit}"


def _what(context: ReportContext, findings: Findings) -> str:
    """'10 placements of attention modules in small, trained on CIFAR-100'."""
    overview = _tested(findings)
    data = ", ".join(dict.fromkeys(one.record.data for one in overview.standings))
    net = context.origin.space if context.origin else "the network"
    return f"{len(overview.standings)} placements of attention modules in {net}, trained on {data}"


def _seeds(overview: Overview) -> str:
    """'3 to 9 seeds', '1 seed'."""
    counts = [len(one.record.test_metrics) for one in overview.standings]
    return counted_range(counts, "seed")


def _ring(overview: Overview) -> list[str]:
    if overview.recommended is None:
        return []
    return [
        "The ring marks the recommended one: the cheapest that none of those tested is measurably "
        "better than"
    ]


def tags_words(records: Iterable[Record]) -> list[str]:
    """'#12 is layer1=bam', for each record that is no reference."""
    named = {record.tag: record.placement for record in records if not record.is_reference}
    return [f"#{tag} is {placement}" for tag, placement in named.items()]


def _costs(costs: Sequence[str]) -> str:
    """'parameters and in MACs'."""
    return " and in ".join(WORDS.get(cost, TITLES[cost]) for cost in costs)


def _how(context: ReportContext, findings: Findings, costs: Sequence[str]) -> list[str]:
    """How the trainings were made, and times measured, as the page says it."""
    titles = {"Recipe": "Recipe", "Split": "Data"}
    if any(cost in TIMES for cost in costs):
        titles["Latency"] = "Time"
    known = [
        f"{title}: {context.about[key]}" for key, title in titles.items() if key in context.about
    ]
    return [*believability_lines(findings.metric, findings.believability), *known]
