"""The findings in sentences, for the page and for the closing lines of a run."""

import math
from collections.abc import Sequence

from bam_search.analysis.believability import SEED_DEVIATIONS, Believability
from bam_search.analysis.expected import Expected
from bam_search.analysis.final_metrics import ComparedTo
from bam_search.analysis.findings import Findings, Outcomes
from bam_search.analysis.latency import Prediction
from bam_search.analysis.pruning import Rung, Stopping
from bam_search.analysis.recommendation import AXES, TIMES, Answer, Recommendation
from bam_search.analysis.statistics import Difference, Mean
from bam_search.study.record import Record
from bam_search.tasks.metric import Metric
from bam_search.words import counted


def believability_lines(metric: Metric, believable: Believability | None) -> list[str]:
    """What speaks against the trainings; empty if nothing does."""
    if believable is None:
        return []
    if believable.near_chance and metric.chance is not None:
        value, chance = (
            metric.with_unit(metric.once(v)) for v in (believable.value, metric.chance)
        )
        return [
            f"Near chance: without attention validation {metric.name} is {value}, and {chance} by "
            "guessing, so nothing is compared: train for longer or on more samples"
        ]
    words = trial_words(metric, believable)
    return [f"{words}, so verdicts are for trainings of this length"] if words else []


def trial_words(metric: Metric, believable: Believability) -> str:
    """That it is a trial run, and by what rule; empty if it is none."""
    if not believable.short or believable.last_gain is None or believable.seed_sd is None:
        return ""
    gain = metric.with_difference_unit(metric.text(believable.last_gain))
    sd = metric.with_difference_unit(metric.text(believable.seed_sd))
    return (
        f"A trial run: the last epoch still gained {gain}, over {SEED_DEVIATIONS} standard "
        f"deviations between seeds ({sd})"
    )


def recommendation_lines(findings: Findings) -> list[str]:
    """The recommendation, and what it is beside no attention; empty if there is none."""
    found = findings.recommendation
    if found is None:
        return []
    if found.record.has_attention:
        return [
            f"Recommended, as the cheapest that nothing tested is measurably better than: "
            f"{_recommended(found)}"
        ]
    lines = [f"No placement is shown to help{within_words(findings, found)}"]
    if found.promising is not None:
        lines.append(promising_line(found.promising))
    return lines


def within_words(findings: Findings, found: Recommendation) -> str:
    """': below 0.85 points nothing can be told here (3 seeds)'; empty where that is not known."""
    noise, n = findings.finals.noise, len(found.record.test_metrics)
    if noise is None:
        return ": with one seed nothing can be told"
    metric = findings.metric
    smallest = metric.with_difference_unit(metric.text(noise.smallest_difference(n)))
    return f": below {smallest} nothing can be told here ({counted(n, 'seed')})"


def promising_line(compared: ComparedTo) -> str:
    """The most promising placement, and how many seeds could tell whether it helps."""
    record, difference = compared.record, compared.difference
    seeds = ""
    if compared.smallest and difference.mean:
        needed = math.ceil(difference.n * (compared.smallest / difference.mean) ** 2)
        seeds = f"; about {counted(needed, 'seed')} each could tell"
    what = record.name or f"{record.placement} (#{record.tag})"
    words = _difference_words(compared)
    return (
        f"Most promising, worth more seeds, not recommended: {what}, "
        f"{words} beside no attention{seeds}"
    )


WORTH = 0.9
"""A placement is named as worth a test where it is better with at least this chance."""


def expected_lines(findings: Findings) -> list[str]:
    """What the model of effects expects to be better, has not been tested, and is worth a test."""
    return [
        _expected_line(findings.metric, one)
        for one in findings.expected
        if one.chance >= WORTH and not (one.record and one.record.is_tested)
    ]


def _expected_line(metric: Metric, one: Expected) -> str:
    """'Worth a test: layer1=bam, by the model of effects -0.60 points (90 % interval ...) ...'."""
    points = metric.with_difference_unit(metric.signed(one.difference))
    return (
        f"Worth a test: {one.placement.text}, by the model of effects {points} (90 % interval "
        f"{metric.range(one.low, one.high)}) beside {_name(one.beside)}, for no more MACs"
    )


def answer_line(answer: Answer) -> str:
    """The answer in a sentence, with no attention beside it.

    'at most +2 % parameters: layer1=bam (#7), expected test top-1 error 81.63 %, better than no
    attention by 0.60 points (...)'.
    """
    return f"{answer.question}: {_recommended(answer.recommendation)}"


def _recommended(found: Recommendation) -> str:
    """The placement, what to expect of it, and what it is beside no attention."""
    record, metric = found.record, found.record.metric
    expected = metric.with_unit(metric.text(found.expected))
    costs = [f"{record.objective(key):+z.2f} % {title}" for key, title in AXES.items()]
    parts = [
        f"{record.placement} ({_name(record)})",
        f"test {metric.name} {expected}",
        *costs,
        *times_words(record),
    ]
    if found.baseline is not None:
        parts.append(_verdict_words(found.baseline))
    return ", ".join(parts)


def times_words(record: Record) -> list[str]:
    """['+26 % time as trained', '+72 % time as deployed'], those that were measured."""
    return [
        f"{round(record.final_cost(key)):+} % {title}"
        for key, title in TIMES.items()
        if getattr(record, key) is not None
    ]


def latency_lines(latencies: Sequence[Prediction]) -> list[str]:
    """How well the latencies were predicted that the search went by; empty without any."""
    return [_latency_line(one) for one in latencies]


def foresight_lines(tau: Mean | None) -> list[str]:
    """How well the search foresaw the tests of the finalists; empty where that is not known."""
    if tau is None:
        return []
    return [
        f"The search ranked these {tau.n} as their tests do with Kendall's tau {tau.mean:.2f} "
        f"(90 % interval {tau.low:.2f} to {tau.high:.2f}); 1 is the same order, 0 is chance"
    ]


def _latency_line(one: Prediction) -> str:
    placements, tau = counted(one.n, "placement"), one.agreement
    rank = ""
    if tau is not None:
        rank = f", Kendall's tau {tau.mean:.2f} ({tau.low:.2f} to {tau.high:.2f})"
    return (
        f"{TIMES[one.key].capitalize()}, predicted before training: for half of {placements} "
        f"within {one.error:.1f} points of what was then measured, {one.typical:+z.0f} % in the "
        f"middle{rank}"
    )


def _name(record: Record) -> str:
    return record.name or f"#{record.tag}"


def _verdict_words(compared: ComparedTo) -> str:
    """'better than no attention: -0.60 points (95 % credible interval ..., n = 3)'."""
    other, words = _rival_name(compared.other), _difference_words(compared)
    if compared.verdict != "unclear":
        return f"{compared.verdict} than {other}: {words}"
    return f"cannot be told from {other}{within(compared)}: {words}"


def within(compared: ComparedTo) -> str:
    """' within 0.85 points', the smallest difference that could be told; '' if it is not known."""
    metric = compared.record.metric
    if compared.smallest is None:
        return ""
    return f" within {metric.with_difference_unit(metric.text(compared.smallest))}"


def _difference_words(compared: ComparedTo) -> str:
    """'-0.60 points (95 % credible interval -1.02 to -0.20, n = 3)'."""
    metric, difference = compared.record.metric, compared.difference
    points = metric.with_difference_unit(metric.signed(difference.mean))
    interval = _interval(metric, difference) or "no interval"
    return f"{points} ({interval}, n = {difference.n})"


def _interval(metric: Metric, difference: Difference) -> str:
    """'95 % credible interval -1.02 to -0.20'; empty where there is none."""
    if difference.low is None or difference.high is None:
        return ""
    return f"95 % credible interval {metric.range(difference.low, difference.high)}"


def verdict_lines(findings: Findings) -> list[str]:
    """Sentences that compare the recommended record to each reference and random candidate.

    Where no attention is recommended, or nothing, the references are compared to the first one.
    """
    found = findings.recommendation
    if not findings.finals.verdicts:
        return []  # near chance, as has been said
    if found is None or not found.record.has_attention:
        return _reference_lines(findings)
    record = found.record
    compared = findings.comparisons.get(record.number, ())
    lines = [_verdict_words(one) for one in compared]
    return [f"{record.placement} ({_name(record)}) is", *lines] if lines else []


def _reference_lines(findings: Findings) -> list[str]:
    """The other references beside the first one; empty where none can be compared to it."""
    tested = findings.tested_references
    lines = []
    for reference in tested[1:]:
        compared = findings.comparison(reference, tested[0])
        if compared is not None:
            lines.append(f"{reference.name}: {_verdict_words(compared)}")
    return ["The references beside the first one:", *lines] if lines else []


def _rival_name(record: Record) -> str:
    if record.is_random:
        return f"the best random placement, {record.placement}"
    return _name(record)


def stopping_lines(stops: Stopping | None) -> list[str]:
    """What the rungs cost or saved; empty without rungs."""
    if stops is None:
        return []
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
