"""Whether a page says what its own data say.

Every number is derived again from the records that the page carries, and every table made again.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bam_search.analysis.findings import Findings
from bam_search.report.page import page
from bam_search.report.payload import ReportContext, found, read
from bam_search.study.record import Record

CLOSE = 1e-9
"""How far two floats may be apart, relatively: numpy's versions differ in the last digits."""


def verify(path: Path) -> tuple[int, list[str]]:
    """How many numbers were derived again, and each difference in a sentence.

    Raises UserError if it is no page of this version.
    """
    context, records, on_page = read(path)
    findings = Findings.of(records, context)
    # By way of JSON, so that tuples are lists as they are on the page.
    derived = json.loads(json.dumps(found(findings)))
    wrong = [
        f"{name}: {there!r} on the page, {here!r} from its records"
        for name, there, here in _unlike("", on_page, derived)
    ]
    for record in records:
        wrong += _wrong_metric(context, record)
        wrong += _wrong_overheads(context, record)
        wrong += _wrong_sum(record)
    wrong += _wrong_sections(path.read_text(encoding="utf-8"), page(context, findings))
    return _count(on_page) + 4 * len(records), wrong


def _wrong_metric(context: ReportContext, record: Record) -> Iterator[str]:
    """A metric that is not the page's; a record does not say which value is chance or the best."""
    there = replace(context.metric, chance=record.metric.chance, best=record.metric.best)
    if record.metric != there:
        yield f"#{record.tag}: it measures {record.metric}, and the page {context.metric}"


def _wrong_overheads(context: ReportContext, record: Record) -> Iterator[str]:
    """Each overhead that is not the one of the record's count."""
    for key, backbone in context.base.items():
        count, stated = getattr(record, key), getattr(record, f"{key}_overhead")
        overhead = 100 * (count - backbone) / backbone
        if not math.isclose(overhead, stated, rel_tol=1e-6, abs_tol=1e-6):
            yield (
                f"#{record.tag}: {key} of {count:,} are {overhead:+.4f} % "
                f"over the backbone's, not {stated:+.4f} %"
            )


def _wrong_sum(record: Record) -> Iterator[str]:
    """A count of MACs that is not the sum of its operators'."""
    total = sum(record.by_operator.values())
    if record.by_operator and total != record.macs:
        yield f"#{record.tag}: its operators have {total:,} MACs together, not {record.macs:,}"


def _wrong_sections(on_page: str, made_again: str) -> Iterator[str]:
    there, here = _sections(on_page), _sections(made_again)
    for name in dict.fromkeys([*there, *here]):
        if there.get(name) != here.get(name):
            yield f"the section {name!r} is not what the page's records give"


def _unlike(name: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ: the place, and both."""
    match there, here:
        case dict(), dict() if there.keys() == here.keys():
            for key in there:
                yield from _unlike(f"{name}.{key}".lstrip("."), there[key], here[key])
        case list(), list() if len(there) == len(here):
            for i, (one, other) in enumerate(zip(there, here, strict=True)):
                yield from _unlike(f"{name}[{i}]", one, other)
        case _ if not _equal(there, here):
            yield name, there, here


def _equal(there: Any, here: Any) -> bool:
    """Whether two values are equal, floats on the page to within CLOSE."""
    if isinstance(there, float) and isinstance(here, (int, float)):
        return math.isclose(there, here, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(there == here)


def _sections(text: str) -> dict[str, str]:
    """The page's sections by heading, without figures: plotly names these at random."""
    bare = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    bare = re.sub(r'<div id="[0-9a-f-]{36}"[^>]*>', "", bare)
    return dict(re.findall(r"<section><h2>(.*?)</h2>(.*?)</section>", bare, flags=re.DOTALL))


def _count(value: Any) -> int:
    """How many numbers a value of JSON has."""
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    if isinstance(value, list):
        return sum(map(_count, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)
