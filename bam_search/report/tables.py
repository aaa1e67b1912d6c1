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
from bam_search.report.findings import ComparedTo, compare_to, finalists
from bam_search.search.additive import Effect
from bam_search.search.pareto import pareto_front
from bam_search.search.record import REFERENCE, Record, standard_error
from bam_search.search.statistics import Difference, mean

BUDGETS = (0.5, 1.0, 2.0, 5.0, 10.0, float("inf"))
"""Overheads in percent for which the best placement is named."""

AXES = {"params_overhead": "parameters", "macs_conv_fc_overhead": "MACs (conv + fc)"}
"""The overheads that the figures and the answers are about."""


TEXTS = tuple(field.name for field in fields(Record) if field.type in (str, "str"))
"""The fields of a record that are text; the others are numbers or JSON."""


@dataclass(frozen=True)
class Answer:
    """The record of least error among those whose overhead on `axis` is at most `budget` percent.

    `beside` sets it beside the best other reference within the budget; None where one of the two
    was not tested.
    """

    axis: str
    budget: float
    record: Record
    beside: ComparedTo | None

    @property
    def question(self) -> str:
        """'at most +2 % parameters'."""
        return (
            f"at any {AXES[self.axis]}"
            if self.budget == float("inf")
            else f"at most +{self.budget:g} % {AXES[self.axis]}"
        )


def answers(records: Sequence[Record]) -> list[Answer]:
    """For each axis the best record within each budget, a budget that changes nothing left out.

    Best is the least mean test error where there are finalists, else the least validation error.
    """
    contestants = [r for r in records if r.complete and r.test_errors] or [
        r for r in records if r.complete
    ]
    found: list[Answer] = []
    for axis in AXES:
        last = None
        for budget in BUDGETS:
            within = [r for r in contestants if r.objective(axis) <= budget]
            best = min(
                within,
                key=lambda r: (r.test_error or r.objective("error"), r.objective(axis), r.number),
                default=None,
            )
            if best is not None and best is not last:
                found.append(Answer(axis, budget, best, _rival(records, best, axis, budget)))
            last = best
    return found


def _rival(
    records: Sequence[Record], record: Record, axis: str, budget: float
) -> ComparedTo | None:
    within = [
        found
        for found in compare_to(records, record, (REFERENCE,))
        if found.other.objective(axis) <= budget
    ]
    return min(within, key=lambda found: (found.other.test_error, found.other.number), default=None)


def records_csv(records: Sequence[Record]) -> str:
    """Every field of every record; the names of the fields also where there is no record."""
    frame = pd.DataFrame(
        [record.to_dict() for record in records], columns=[field.name for field in fields(Record)]
    )
    for column in frame:
        frame[column] = [
            json.dumps(value) if isinstance(value, (bool, dict, list, tuple)) else value
            for value in frame[column]
        ]
    return frame.to_csv(index=False)


def read_records(folder: Path) -> list[Record]:
    """The records of a report, from its records.csv.

    Raises UserError if there is none, or it is not one of this version.
    """
    path = folder / "records.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        return [
            Record.from_dict({key: _parsed(key, value) for key, value in row.items()})
            for row in rows
        ]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}", "name the folder of a report"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the records.csv of a report of this version") from None


def front_csv(records: Sequence[Record], objectives: Sequence[str]) -> str:
    """The front, cheapest first."""
    return records_csv(pareto_front(records, objectives))


def _parsed(key: str, value: str) -> Any:
    """A cell of records.csv as the record has it; an empty one is None, or an empty text where the
    record holds text.
    """
    if key in TEXTS:
        return value
    return json.loads(value) if value else None


def shown(records: Sequence[Record]) -> pd.DataFrame:
    """The columns that a person compares, as text."""
    return pd.DataFrame([_row(record) for record in records])


def error_text(record: Record) -> str:
    """'81.2 ± 1.0', or why there is none."""
    if record.val_error is None or record.val_images is None:
        return "stopped" if record.stopped else "failed" if record.failure else "–"
    return f"{record.val_error:.1f} ± {standard_error(record.val_error, record.val_images):.1f}"


def finalist_table(records: Sequence[Record], costs: Sequence[str]) -> pd.DataFrame:
    """The finalists as text, the cheapest first."""
    rows = []
    for found in finalists(records, costs):
        record, test = found.record, found.test
        rows.append(
            {
                "#": record.tag,
                "name": record.name or record.origin,
                "placement": record.placement,
                "test error, %": f"{test.mean:.2f}",
                "s.d.": "" if test.sd is None else f"{test.sd:.2f}",
                "90 % interval": "" if test.low is None else f"{test.low:.2f} to {test.high:.2f}",
                "n": str(test.n),
                "on the front": f"{found.p_on_front:.0%}",
                "promised": ""
                if found.validation_gain is None
                else f"{found.validation_gain:+.2f}",
                "kept": "" if found.test_gain is None else f"{found.test_gain:+.2f}",
                **{f"{AXES[key]}, +%": f"{record.objective(key):+.2f}" for key in AXES},
            }
        )
    return pd.DataFrame(rows)


def difference_table(records: Sequence[Record], costs: Sequence[str]) -> pd.DataFrame:
    """Each finalist beside each reference."""
    names = [r.name for r in records if r.origin == REFERENCE and r.test_errors]
    rows = []
    for found in finalists(records, costs):
        beside = {
            a.other.name: difference_text(a.difference)
            for a in compare_to(records, found.record, (REFERENCE,))
        }
        columns = {f"minus {name}": beside.get(name, "") for name in names}
        rows.append({"#": found.record.tag, "placement": found.record.label, **columns})
    return pd.DataFrame(rows)


def ablation_table(found: Sequence[ComparedTo]) -> pd.DataFrame:
    """What leaving a site out changes."""
    return pd.DataFrame(
        [
            {
                "placement": a.record.name,
                "test error minus the winner's": difference_text(a.difference),
            }
            for a in found
        ]
    )


def effect_table(effects: Sequence[Effect]) -> pd.DataFrame:
    """The effects as text."""
    rows = [
        (e.name, f"{e.mean:+.2f}", f"{e.low:+.2f} to {e.high:+.2f}", str(e.records))
        for e in effects
    ]
    return pd.DataFrame(
        rows, columns=["what", "effect on the error, points", "90 % interval", "records with it"]
    )


def difference_text(found: Difference) -> str:
    """'-0.61 (-1.02 to -0.20), n = 3: better'."""
    interval = "" if found.low is None else f" ({found.low:+.2f} to {found.high:+.2f})"
    return f"{found.mean:+.2f}{interval}, n = {found.n}: {found.word}"


def test_text(record: Record) -> str:
    """'81.63 ± 0.21 (3)': the mean test error, the standard deviation over seeds, and their number;
    empty without one.
    """
    if not record.test_errors:
        return ""
    found = mean(record.test_errors)
    return (
        f"{found.mean:.2f}" + ("" if found.sd is None else f" ± {found.sd:.2f}") + f" ({found.n})"
    )


def _row(record: Record) -> dict[str, str]:
    return {
        "#": record.tag,
        "origin": record.origin,
        "name": record.name,
        "placement": record.placement,
        "validation error, %": error_text(record),
        "test error, % (n)": test_text(record),
        "params, M": f"{record.params / 1e6:.3f}",
        "params, +%": f"{record.params_overhead:+.2f}",
        "MACs conv+fc, M": f"{record.macs_conv_fc / 1e6:.3f}",
        "MACs conv+fc, +%": f"{record.macs_conv_fc_overhead:+.2f}",
        "MACs all, +%": f"{record.macs_overhead:+.2f}",
        "seconds": "" if record.seconds is None else f"{record.seconds:.1f}",
    }
