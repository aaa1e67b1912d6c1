"""Whether a page says what its own data say: every number derived anew from the records that the
page carries, every table made anew.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bam_search.report.page import page
from bam_search.report.payload import ReportContext, found, read
from bam_search.search.record import Record

CLOSE = 1e-9
"""How far two floats may be apart, relatively: versions of numpy and scipy differ in the last
digits.
"""


def verify(path: Path) -> tuple[int, list[str]]:
    """How many numbers were derived anew, and each difference in a sentence.

    Raises UserError if it is no page of this version.
    """
    context, records, kept = read(path)
    again = json.loads(json.dumps(found(context, records)))
    wrong = [
        f"{name}: {there!r} on the page, {here!r} from its records"
        for name, there, here in _unlike("", kept, again)
    ]
    wrong += list(_costs(context, records))
    there, here = _sections(path.read_text(encoding="utf-8")), _sections(page(context, records))
    for name in dict.fromkeys([*there, *here]):
        if there.get(name) != here.get(name):
            wrong.append(f"the section {name!r} is not what the page's records give")
    return _count(kept) + 4 * len(records), wrong


def _costs(context: ReportContext, records: list[Record]) -> Iterator[str]:
    """Overheads that are not those of the counts, and counts of MACs that are not their operators'
    sum.
    """
    for record in records:
        for key, base in context.base.items():
            count, said = getattr(record, key), getattr(record, f"{key}_overhead")
            if not math.isclose(100 * (count - base) / base, said, rel_tol=1e-6, abs_tol=1e-6):
                yield f"#{record.tag}: {key} of {count:,} are {100 * (count - base) / base:+.4f} % over the backbone's, not {said:+.4f} %"
        if record.by_operator and sum(record.by_operator.values()) != record.macs:
            yield f"#{record.tag}: its operators have {sum(record.by_operator.values()):,} MACs together, not {record.macs:,}"


def _unlike(name: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ: the place, and both."""
    if isinstance(there, dict) and isinstance(here, dict) and there.keys() == here.keys():
        for key in there:
            yield from _unlike(f"{name}.{key}".lstrip("."), there[key], here[key])
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (one, other) in enumerate(zip(there, here, strict=True)):
            yield from _unlike(f"{name}[{i}]", one, other)
    elif isinstance(there, float) and isinstance(here, (int, float)):
        if not math.isclose(there, here, rel_tol=CLOSE, abs_tol=CLOSE):
            yield name, there, here
    elif there != here:
        yield name, there, here


def _sections(text: str) -> dict[str, str]:
    """The page's sections by heading, without figures: these carry names that plotly draws anew."""
    bare = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    bare = re.sub(r'<div id="[0-9a-f-]{36}"[^>]*>', "", bare)
    return dict(re.findall(r"<section><h2>(.*?)</h2>(.*?)</section>", bare, flags=re.DOTALL))


def _count(value: Any) -> int:
    if isinstance(value, (dict, list)):
        return sum(map(_count, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)
