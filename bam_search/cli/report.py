"""`report`: write the page of a study again, or check a page against its records.

A page can be written while the study still runs.
"""

import time
from pathlib import Path

import click

from bam_search.analysis.findings import Findings
from bam_search.errors import UserError
from bam_search.report.page import write_report
from bam_search.report.payload import read
from bam_search.report.verify import verify
from bam_search.search.store import read_records

SHOWN = 20
"""How many differences are printed; the others are counted."""


def show(folder: Path, plotlyjs: str, every: float | None) -> None:
    """Write the page of the study in `folder` anew.

    With `every`, look for new records after so many seconds, write it again, and never return.

    Raises UserError.
    """
    context, _, _ = read(folder / "index.html")
    before = None
    while True:
        records = read_records(folder)
        if records != before:
            page = write_report(folder, context, Findings.of(records, context), plotlyjs)
            click.echo(f"report: {page}" if before is None else f"{len(records)} candidates")
        if every is None:
            return
        before = records
        time.sleep(every)


def check(path: Path) -> int:
    """Return the exit code: 0 if each number of the page follows from its records, else 1.

    Prints the differences. `path` is a page or the folder of a report.
    """
    page = path / "index.html" if path.is_dir() else path
    numbers, wrong = verify(page)
    for line in wrong[:SHOWN]:
        click.echo(line)
    if wrong:
        hidden = len(wrong) - SHOWN
        more = f", {hidden} more not shown" if hidden > 0 else ""
        click.echo(
            f"error: {page} differs from its own records in {len(wrong)} places{more}", err=True
        )
        return 1
    click.echo(f"verified: {numbers:,} numbers of {page} follow from its records")
    return 0


def asked(path: Path, plotlyjs: str, every: float | None, only_verify: bool) -> int:
    """Do what the command line asks for, and return the exit code. Raises UserError."""
    if only_verify:
        return check(path)
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder", "name a study's folder; with --verify a page will do"
        )
    show(path, plotlyjs, every)
    return 0
