"""The findings in sentences, for the page and for the closing lines of a run."""

from collections.abc import Sequence

from bam_search.analysis.answers import Answer
from bam_search.analysis.baseline import SearchSummary
from bam_search.analysis.final_metrics import ComparedTo
from bam_search.analysis.findings import Findings, Outcomes
from bam_search.analysis.pruning import Rung, Stopping
from bam_search.analysis.statistics import Difference
from bam_search.report.tables import test_text, validation_text
from bam_search.study.record import Record
from bam_search.tasks.metric import Metric
from bam_search.words import counted

VERDICTS = {"tie": "a tie with", "better": "better than", "worse": "worse than"}


def answer_line(answer: Answer) -> str:
    """The answer in a sentence, with the best other reference beside it.

    'at most +2 % parameters: layer1=bam (#7), 81.63 ± 0.21 (3) % test top-1 error, better than BAM
    in every block: -0.60 points (...)'.
    """
    record = answer.record
    name = record.name or f"#{record.tag}"
    sentence = f"{answer.question}: {record.placement} ({name}), {_measured(answer)}"
    if answer.comparison is None:
        return sentence
    compared, metric = answer.comparison, record.metric
    difference = compared.difference
    points = metric.with_difference_unit(metric.signed(difference.mean))
    interval = _interval(metric, difference) or "one seed"
    verdict = f"{VERDICTS[compared.verdict]} {compared.other.name}: {points}"
    return f"{sentence}, {verdict} ({interval}, n = {difference.n})"


def _measured(answer: Answer) -> str:
    """'81.63 ± 0.21 (3) % test top-1 error', or the validation where no test was made."""
    metric = answer.record.metric
    if answer.test is not None:
        return f"{metric.with_unit(test_text(metric, answer.test))} test {metric.name}"
    return f"{metric.with_unit(validation_text(answer.record))} validation {metric.name}"


def _interval(metric: Metric, difference: Difference) -> str:
    """'90 % interval -1.02 to -0.20'; empty where there is none."""
    if difference.low is None or difference.high is None:
        return ""
    return f"90 % interval {metric.range(difference.low, difference.high)}"


def verdict_lines(findings: Findings) -> list[str]:
    """Sentences that compare the recommended record to each reference and to the random search.

    Without a search the other references are compared to the first one. Empty without finalists.
    """
    best = findings.recommended
    if best is None:
        return _reference_lines(findings)
    first = f"The search's winner, {best.placement} (#{best.tag}), is"
    return [first, *map(_verdict, findings.comparisons[best.number])]


def _reference_lines(findings: Findings) -> list[str]:
    """The other references beside the first one; empty where none can be compared to it."""
    tested = findings.tested_references
    lines = []
    for reference in tested[1:]:
        compared = findings.comparison(reference, tested[0])
        if compared is not None:
            lines.append(f"{reference.name}: {_verdict(compared)}")
    return ["The references beside the first one:", *lines] if lines else []


def _verdict(compared: ComparedTo) -> str:
    """One comparison in a sentence.

    'better than SE in every block: -0.61 points of test top-1 error, 90 % interval -1.02 to -0.20,
    n = 3; ...'.
    """
    difference, record, other = compared.difference, compared.record, compared.other
    metric = record.metric
    verdict = f"{VERDICTS[compared.verdict]} {_rival_name(other)}"
    points = f"{metric.with_difference_unit(metric.signed(difference.mean))} of test {metric.name}"
    interval = _interval(metric, difference) or "no interval with one seed"
    costs = f"{record.params_overhead:+.2f} % parameters against {other.params_overhead:+.2f} %"
    return f"{verdict}: {points}, {interval}, n = {difference.n}; {costs}"


def _rival_name(record: Record) -> str:
    return record.name or f"the best random placement, {record.placement}"


def worth_lines(findings: Findings) -> list[str]:
    """What the search found beside the random search, and what the rungs cost or saved."""
    lines: list[str] = []
    compared, stops = findings.search_vs_random, findings.stopping
    if compared:
        lines += [
            _summary_line(findings.metric, "The search", compared.search),
            _summary_line(findings.metric, "Random search", compared.random),
        ]
    if stops:
        lines += _stopping_lines(stops)
    return lines


def _summary_line(metric: Metric, name: str, summary: SearchSummary) -> str:
    best = metric.with_unit(metric.text(summary.best_value))
    return (
        f"{name}: {counted(summary.epochs, 'epoch')} of training, "
        f"best validation {metric.name} {best}, hypervolume {100 * summary.hypervolume:.0f} %"
    )


def _stopping_lines(stops: Stopping) -> list[str]:
    stopped, control = counted(stops.stopped, "candidate"), counted(stops.control, "candidate")
    spent, without = counted(stops.spent, "epoch"), counted(stops.without, "epoch")
    return [
        f"Rungs stopped {stopped}: the search took {spent}, and without rungs it would have taken "
        f"{without}",
        f"Control group: of {control} trained on although the pruner would have stopped them, "
        f"{stops.wrong} ended on the front",
        *map(_rung_line, stops.rungs),
    ]


def _rung_line(rung: Rung) -> str:
    tau, text = rung.agreement, "too few"
    if tau is not None:
        text = f"{tau.mean:.2f} ({tau.low:.2f} to {tau.high:.2f}, {tau.n} candidates)"
    epochs = counted(rung.epochs, "epoch")
    return f"Rank correlation of {epochs} with the full training, Kendall's tau: {text}"


def stopped_lines(records: Sequence[Record]) -> list[str]:
    """The candidates that were stopped, and why."""
    return [
        f"#{record.tag} {record.placement}: stopped {record.stopped}"
        for record in records
        if record.stopped
    ]


def outcomes_line(outcomes: Outcomes) -> str:
    """'12 references and searched candidates, 4 random ones and ablations, 9 trained ...'."""
    return (
        f"{outcomes.main} references and searched candidates, "
        f"{outcomes.others} random ones and ablations, "
        f"{outcomes.complete} trained to the end, {outcomes.stopped} stopped early, "
        f"{outcomes.failed} failed"
    )
