"""Class by class in the report: a sentence, a table of the largest gains and losses, values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from bam_search.analysis.by_class import ByClass, ClassDifference
from bam_search.study.record import Record
from bam_search.words import counted

SHOWN = 5
"""How many of the largest gains, and of the largest losses, the table has."""


@dataclass(frozen=True)
class ClassTable:
    """What the report says class by class: a sentence, and the rows below it."""

    sentence: str
    table: pd.DataFrame


def class_table(found: ByClass | None, names: Sequence[str], sample: str) -> ClassTable | None:
    """The sentence and the table of the classes with these names; None where nothing is known.

    `sample` is what one sample is called.
    """
    if found is None:
        return None
    shown = found.classes
    if len(shown) > 2 * SHOWN:
        shown = (*shown[:SHOWN], *shown[-SHOWN:])
    rows = [_row(found, one, names, sample) for one in shown]
    return ClassTable(_sentence(found, names), pd.DataFrame(rows))


def class_name(names: Sequence[str], number: int) -> str:
    """The name of a class; its number where the data have no names."""
    return names[number] if number < len(names) else f"class {number}"


def by_class_values(found: ByClass) -> dict[str, Any]:
    """All classes as values for JSON."""
    return {
        "tag": found.record.tag,
        "without": found.without.tag,
        "classes": [list(asdict(one).values()) for one in found.classes],
    }


def _sentence(found: ByClass, names: Sequence[str]) -> str:
    """How many classes are told apart, and which."""
    record, total = found.record, f"{len(found.classes):,} classes"
    what = f"{record.placement} (#{record.tag}) beside no attention, {counted(found.seeds, 'seed')}"
    told = [one for one in found.classes if one.verdict != "unclear"]
    if not told:
        return f"{what}: none of {total} is told apart from noise."
    by_verdict = []
    for verdict in ("better", "worse"):
        of_verdict = [class_name(names, one.number) for one in told if one.verdict == verdict]
        if of_verdict:
            more = f" and {len(of_verdict) - SHOWN} more" if len(of_verdict) > SHOWN else ""
            by_verdict.append(f"{verdict} on {', '.join(of_verdict[:SHOWN])}{more}")
    return f"{what}: of {total}, {len(told)} told apart from noise, {'; '.join(by_verdict)}."


def _row(found: ByClass, one: ClassDifference, names: Sequence[str], sample: str) -> dict[str, str]:
    metric = found.record.metric
    return {
        "class": class_name(names, one.number),
        f"test {sample}s": f"{one.samples:,}",
        f"{metric.title}, without attention": metric.text(one.mean_without),
        f"#{found.record.tag}": metric.text(one.mean),
        "difference": _difference_text(found.record, one),
        "verdict": "cannot tell" if one.verdict == "unclear" else one.verdict,
    }


def _difference_text(record: Record, one: ClassDifference) -> str:
    """'-6.33 (-11.20 to -1.46)'."""
    difference, metric = one.difference, record.metric
    if difference.low is None or difference.high is None:
        return metric.signed(difference.mean)
    return f"{metric.signed(difference.mean)} ({metric.range(difference.low, difference.high)})"
