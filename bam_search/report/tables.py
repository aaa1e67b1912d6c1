"""Tables from records: the CSV files, and what the page and the closing lines say."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from bam_search.errors import UserError
from bam_search.search.front import front
from bam_search.search.record import REFERENCE, SEARCH, Record, standard_error

BUDGETS = (0.5, 1.0, 2.0, 5.0, 10.0, float("inf"))
"""Overheads in percent for which the best placement is named."""

AXES = {"params_overhead": "parameters", "macs_conv_fc_overhead": "MACs (conv + fc)"}
"""The overheads that the figures and the answers are about."""


TEXTS = tuple(field.name for field in fields(Record) if field.type in (str, "str"))
"""The fields of a record that are text; the others are numbers or JSON."""


@dataclass(frozen=True)
class Answer:
    """The record with the least validation error among those whose overhead on `axis` is at most `budget` percent."""

    axis: str
    budget: float
    record: Record

    @property
    def question(self) -> str:
        """'at most +2 % parameters'."""
        return f"at any {AXES[self.axis]}" if self.budget == float("inf") else f"at most +{self.budget:g} % {AXES[self.axis]}"


@dataclass(frozen=True)
class Verdict:
    """The best searched record beside the best reference, both by validation error; the difference is of errors on the test set.

    `difference` is searched minus reference in points, `margin` twice its standard error from the number of images alone.
    """

    searched: Record
    reference: Record
    difference: float
    margin: float

    @property
    def word(self) -> str:
        """'better', 'worse' or 'a tie'."""
        if abs(self.difference) < self.margin:
            return "a tie"
        return "better" if self.difference < 0 else "worse"


def answers(records: Sequence[Record]) -> list[Answer]:
    """For each axis the best record within each budget, a budget that changes nothing left out."""
    found: list[Answer] = []
    for axis in AXES:
        last = None
        for budget in BUDGETS:
            within = [r for r in records if r.complete and r.objective(axis) <= budget]
            best = min(within, key=lambda r: (r.objective("error"), r.objective(axis), r.number), default=None)
            if best is not None and best is not last:
                found.append(Answer(axis, budget, best))
            last = best
    return found


def verdict(records: Sequence[Record]) -> Verdict | None:
    """The best searched against the best reference; None unless both were tested."""
    best = {}
    for origin in (SEARCH, REFERENCE):
        tested = [r for r in records if r.origin == origin and r.complete and r.test_error is not None]
        if not tested:
            return None
        best[origin] = min(tested, key=lambda r: (r.val_error, r.number))
    searched, reference = best[SEARCH], best[REFERENCE]
    assert searched.test_error is not None
    assert reference.test_error is not None
    errors = [standard_error(r.test_error, r.test_images) for r in (searched, reference) if r.test_error is not None and r.test_images]
    margin = 2 * sum(error**2 for error in errors) ** 0.5
    return Verdict(searched, reference, searched.test_error - reference.test_error, margin)


def records_csv(records: Sequence[Record]) -> str:
    """Every field of every record."""
    frame = pd.DataFrame([record.to_dict() for record in records])
    for column in ("by_operator", "uncounted", "val_errors", "train_losses"):
        if column in frame:
            frame[column] = [json.dumps(value) for value in frame[column]]
    return frame.to_csv(index=False)


def read_records(folder: Path) -> list[Record]:
    """The records of a report, from its records.csv. Raises UserError if there is none, or it is not one of this version."""
    path = folder / "records.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        return [Record.from_dict({key: _parsed(key, value) for key, value in row.items()}) for row in rows]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "name the folder of a report") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the records.csv of a report of this version") from None


def front_csv(records: Sequence[Record], objectives: Sequence[str]) -> str:
    """The front, cheapest first."""
    return records_csv(front(records, objectives))


def _parsed(key: str, value: str) -> Any:
    """A cell of records.csv as the record has it; an empty one is None, or an empty text where the record holds text."""
    if key in TEXTS:
        return value
    return json.loads(value) if value else None


def shown(records: Sequence[Record]) -> pd.DataFrame:
    """The columns that a person compares, as text."""
    return pd.DataFrame([_row(record) for record in records])


def error_text(record: Record) -> str:
    """'81.2 ± 1.0', or why there is none."""
    if record.val_error is None or record.val_images is None:
        return "failed"
    return f"{record.val_error:.1f} ± {standard_error(record.val_error, record.val_images):.1f}"


def _row(record: Record) -> dict[str, str]:
    return {
        "#": str(record.number),
        "origin": record.origin,
        "name": record.name,
        "placement": record.placement,
        "validation error, %": error_text(record),
        "test error, %": "" if record.test_error is None else f"{record.test_error:.2f}",
        "params, M": f"{record.params / 1e6:.3f}",
        "params, +%": f"{record.params_overhead:+.2f}",
        "MACs conv+fc, M": f"{record.macs_conv_fc / 1e6:.3f}",
        "MACs conv+fc, +%": f"{record.macs_conv_fc_overhead:+.2f}",
        "MACs all, +%": f"{record.macs_overhead:+.2f}",
        "seconds": "" if record.seconds is None else f"{record.seconds:.1f}",
    }
