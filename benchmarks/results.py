"""Handing over what a benchmark found: figures or rows to a file, talk to stderr."""

import csv
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bam_search.files import write

Rows = list[dict[str, str]]


def deliver(found: Mapping[str, Any], out: Path | None) -> None:
    """Print the figures as JSON, and write them to `out` if there is one."""
    keep(found, out)
    print(json.dumps(found, indent=2))


def keep(found: Mapping[str, Any], out: Path | None) -> None:
    """Write the figures to `out` if there is one."""
    if out:
        write(out, json.dumps(found, indent=2) + "\n")


def rows_of(path: Path) -> Rows:
    """The rows of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rows_done(
    path: Path, columns: Sequence[str], conditions: Sequence[str]
) -> set[tuple[str, ...]]:
    """The values of `conditions` in the rows of a table; a new table gets its header."""
    if not path.exists():
        append_row(path, columns)
    return {tuple(row[name] for name in conditions) for row in rows_of(path)}


def append_row(path: Path, row: Sequence[object]) -> None:
    """Append a row to a table, and print it."""
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)
    print(*row, flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """What is told of several measurements of one thing."""
    return {
        "median": statistics.median(values),
        "mean": statistics.mean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "least": min(values),
        "most": max(values),
        "n": len(values),
    }


def say(text: str) -> None:
    """How far a benchmark is."""
    print(text, file=sys.stderr, flush=True)
