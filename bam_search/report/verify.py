"""Whether a page says what its own records say.

The page is made again from the records that it carries, and all of it is compared: data, tables,
figures, sentences, scripts and styles, whatever they are. The records themselves can be forged by
whoever makes a page; only the study's own trials, or training again, speak for them.
"""

import html
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

from bam_search.analysis.findings import Findings
from bam_search.report.page import page
from bam_search.report.payload import DATA, PLOTLY, ReportContext, read
from bam_search.study.published import ERROR
from bam_search.study.record import Record

CLOSE = 1e-9
"""How far two floats may be apart, relatively: numpy's versions differ in the last digits."""
NUMBER = re.compile(r"-?\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)")
"""A number that is no integer."""
IN_NUMBERS = "-.eE+0123456789"
ELEMENT = re.compile(r"<(script|style|title)\b.*?</\1>", re.DOTALL)
"""An element whose text is not HTML."""
HEADING = re.compile(r"<h[1-4]\b[^>]*>(.*?)</h[1-4]>", re.DOTALL)
SHOWN = 40
"""How many characters of a difference are shown, before and after its beginning."""


@dataclass(frozen=True)
class Verdict:
    """What came of a check: the number of records, and what is wrong, each in a sentence."""

    records: int
    wrong: tuple[str, ...]


def verify(path: Path) -> Verdict:
    """Check a page, and tell of records that contradict themselves and of the first difference.

    Raises UserError if it is no page of this version.
    """
    context, records, values = read(path)
    wrong = [text for record in records for text in _contradictions(context, record)]
    wrong += _other_plotly(values["plotly"]) or _first_difference(
        path.read_text(encoding="utf-8"),
        page(context, Findings.of(records, context), values["plotlyjs"]),
    )
    return Verdict(len(records), tuple(wrong))


def _other_plotly(version: str) -> list[str]:
    """A sentence if another version of plotly than the installed one made the page."""
    if version == PLOTLY:
        return []
    return [f"it was made with plotly {version}, which can make it again; here is {PLOTLY}"]


def _contradictions(context: ReportContext, record: Record) -> Iterator[str]:
    """What of a record contradicts the rest of it, or the page."""
    yield from _wrong_metric(context, record)
    yield from _wrong_overheads(context, record)
    yield from _wrong_sum(record)
    yield from _wrong_classes(record)


def _wrong_metric(context: ReportContext, record: Record) -> Iterator[str]:
    """A metric that is not the page's, as far as a record says which it is."""
    recorded, there = record.metric, context.metric
    if (recorded.identity, recorded.decimals) != (there.identity, there.decimals):
        yield f"#{record.tag}: it measures {record.metric}, and the page {context.metric}"


def _wrong_overheads(context: ReportContext, record: Record) -> Iterator[str]:
    """Each overhead that is not the one of the record's count."""
    for key, backbone in context.base.items():
        count, stated = getattr(record, key), getattr(record, f"{key}_overhead")
        overhead = 100 * (count - backbone) / backbone
        if not math.isclose(overhead, stated, rel_tol=1e-6, abs_tol=1e-6):
            yield (
                f"#{record.tag}: {key} of {count:,} are {overhead:+z.4f} % "
                f"over the backbone's, not {stated:+z.4f} %"
            )


def _wrong_sum(record: Record) -> Iterator[str]:
    """A count of MACs that is not the sum of its operators'."""
    total = sum(record.by_operator.values())
    if record.by_operator and total != record.macs:
        yield f"#{record.tag}: its operators have {total:,} MACs together, not {record.macs:,}"


def _wrong_classes(record: Record) -> Iterator[str]:
    """An error that is not the mean of its classes' errors, each rounded to two decimals."""
    if record.metric.identity != ERROR.identity or not record.test_by_class:
        return
    total = sum(record.test_class_samples)
    for seed, stated, classes in zip(
        record.test_seeds, record.test_metrics, record.test_by_class, strict=True
    ):
        pairs = zip(classes, record.test_class_samples, strict=True)
        wrong = sum((error or 0.0) * samples for error, samples in pairs)
        if not math.isclose(wrong / total, stated, abs_tol=0.01):
            yield (
                f"#{record.tag}: its classes have {wrong / total:.2f} % errors together "
                f"with seed {seed}, not {stated:.2f} %"
            )


def _first_difference(there: str, here: str) -> Iterator[str]:
    """Where two texts first differ, in a sentence; nothing where they differ in last digits only.

    `there` is the page, `here` what its records give.
    """
    at = _unlike_at(there, here)
    if at is None:
        return
    place = _place(there, at[0])
    one, other = (
        repr(_excerpt(text, start)) for text, start in zip((there, here), at, strict=True)
    )
    if place == DATA_PLACE:
        values = (json.loads(DATA.findall(text)[0]) for text in (there, here))
        name, one, other = next(_unlike(*values), ("", one, other))
        place = f"{place} {name}".rstrip()
    yield f"{place}: {one} on the page, {other} from its records"


def _unlike_at(there: str, here: str) -> tuple[int, int] | None:
    """The offsets at which two texts first differ; None where they are alike.

    Numbers that are no integers may differ by CLOSE.
    """
    if there == here:
        return None
    first = _equal_beginning(there, here)
    while first and there[first - 1] in IN_NUMBERS:
        first -= 1
    tokens = [_tokens(text[first:]) for text in (there, here)]
    starts = [list(accumulate(map(len, words), initial=first)) for words in tokens]
    for i, (one, other) in enumerate(zip_longest(*tokens, fillvalue="")):
        if one != other and not (i % 2 and _close(one, other)):
            equal = _equal_beginning(one, other)
            return starts[0][i] + equal, starts[1][i] + equal
    return None


def _tokens(text: str) -> list[str]:
    """The text in parts: every second one is a number that is no integer."""
    parts, end = [], 0
    for number in NUMBER.finditer(text):
        parts += [text[end : number.start()], number.group()]
        end = number.end()
    return [*parts, text[end:]]


def _close(one: str, other: str) -> bool:
    """Whether two numbers are equal to within CLOSE; none is as the end of a text is."""
    if not one or not other:
        return False
    return math.isclose(float(one), float(other), rel_tol=CLOSE, abs_tol=CLOSE)


def _equal_beginning(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


DATA_PLACE = "the data"


def _place(text: str, offset: int) -> str:
    """What a person calls the place of a page."""
    data = DATA.search(text)
    if data and data.start() <= offset < data.end():
        return DATA_PLACE
    elements = list(ELEMENT.finditer(text))
    inside = next((one for one in elements if one.start() <= offset < one.end()), None)
    heading = _heading_before(text, offset, [one.span() for one in elements])
    if inside is None:
        return heading
    name = {"title": "the title", "style": "the style sheet"}.get(inside[1])
    return name or f"a script in {heading}"


def _heading_before(text: str, offset: int, but: list[tuple[int, int]]) -> str:
    """The last heading before the offset, in quotes; those within `but` are none."""
    headings = [
        one[1]
        for one in HEADING.finditer(text, 0, offset)
        if not any(start <= one.start() < end for start, end in but)
    ]
    if not headings:
        return "the top of the page"
    words = html.unescape(re.sub(r"<[^>]*>", "", headings[-1]))
    return f"{' '.join(words.split())!r}"


def _excerpt(text: str, offset: int) -> str:
    """The text around an offset, on one line."""
    return " ".join(text[max(0, offset - SHOWN) : offset + SHOWN].split())


def _unlike(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two values of JSON differ: the place, and both."""
    match there, here:
        case dict(), dict() if there.keys() == here.keys():
            for key in there:
                yield from _unlike(there[key], here[key], f"{name}.{key}".lstrip("."))
        case list(), list() if len(there) == len(here):
            for i, (one, other) in enumerate(zip(there, here, strict=True)):
                yield from _unlike(one, other, f"{name}[{i}]")
        case float(), int() | float() if math.isclose(there, here, rel_tol=CLOSE, abs_tol=CLOSE):
            return
        case _ if there != here:
            yield name, there, here
