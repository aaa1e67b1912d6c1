"""What the findings of a study say, for `benchmarks/simulated.py`: the only place that asks them.

The page and the closing lines of a run are made of the same findings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bam_search.analysis.final_metrics import ComparedTo
from bam_search.analysis.findings import Findings
from bam_search.study.record import Record

ANSWERS, RECOMMENDED, TABLE = "answers", "recommended", "finalists' table"
"""Where comparisons stand."""


@dataclass(frozen=True)
class Said:
    """A number with its interval, None where it has none."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """A record beside another: their difference, and whether it is called "better" or "worse"."""

    record: Record
    other: Record
    said: Said
    verdict: str


def told_recommendation(findings: Findings) -> Record | None:
    """The placement that the study recommends; None if it recommends none."""
    found = findings.recommendation
    return None if found is None else found.record


def told_answers(findings: Findings) -> list[Record]:
    """The placements that the lines of the answer name, one for each axis and budget."""
    return [answer.record for answer in findings.answers]


def told_value(findings: Findings, record: Record) -> Said:
    """The expected metric of a tested record, told without an interval."""
    return Said(findings.finals.expected(record), None, None)


def told_comparisons(findings: Findings, where: str) -> list[Comparison]:
    """The comparisons that stand there."""
    recommended = told_recommendation(findings)
    found: Sequence[ComparedTo | None]
    if where == ANSWERS:
        found = [answer.recommendation.baseline for answer in findings.answers]
    elif where == TABLE:
        found = [one for compared in findings.comparisons.values() for one in compared]
    else:
        attends = recommended if recommended and recommended.has_attention else None
        found = findings.comparisons[attends.number] if attends else ()
    return [_comparison(one) for one in found if one is not None]


def told_difference(findings: Findings, record: Record, other: Record) -> Comparison | None:
    """The record beside a reference or random candidate; None if it is beside itself."""
    if record is other:
        return None
    return next(map(_comparison, findings.finals.compare(record, [other])), None)


def told_effects(findings: Findings) -> dict[str, Said]:
    """The effects of modules at sites ("layer1=bam") and of option values ("bam(r=4)")."""
    effects = findings.effects.effects if findings.effects else ()
    return {effect.name: Said(effect.mean, effect.low, effect.high) for effect in effects}


def told_chances(findings: Findings) -> list[tuple[Record, float]]:
    """The finalists, each with its probability to be on their front."""
    return [(finalist.record, finalist.p_on_front) for finalist in findings.finalists]


def _comparison(one: ComparedTo) -> Comparison:
    difference = one.difference
    said = Said(difference.mean, difference.low, difference.high)
    return Comparison(one.record, one.other, said, one.verdict)
