"""`report`: write the page of a study again, or check a page against its records.

A page can be written while the study still runs. A page alone is made again from its own records.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import click

from bam_search.errors import UserError
from bam_search.files import write
from bam_search.report.page import PAGE
from bam_search.report.payload import read
from bam_search.report.publish import page_of, publish, rebuilt
from bam_search.report.verify import verify
from bam_search.search.lock import is_locked
from bam_search.search.status import read_status, state_words

SHOWN = 20
"""How many contradictions are printed; the others are counted."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    path: a study's folder, or a page.
    out: where to write the page of a page; None for the same file.
    plotlyjs: how plotly.js comes into the page.
    every: after how many seconds to look for new records and write again; None for once.
    only_verify: whether to check the page, and write nothing.
    """

    path: Path
    out: Path | None
    plotlyjs: str
    every: float | None
    only_verify: bool


def do(asked: Asked) -> int:
    """Do what is asked, and return the exit code. Raises UserError."""
    path = asked.path
    if asked.only_verify:
        if asked.out is not None or asked.every is not None:
            raise UserError("--verify writes nothing", "leave --out and --watch away")
        return check(page_of(path))
    if path.is_dir():
        if asked.out is not None:
            raise UserError(
                "--out goes with a page, and a study's page lies in its folder",
                f"name {page_of(path)}, or leave --out away",
            )
        show(path, asked.plotlyjs, asked.every)
        return 0
    if asked.every is not None:
        raise UserError(
            "--watch goes with a study's folder: a page gets no new records", "name the folder"
        )
    rebuild(path, asked.out or path, asked.plotlyjs)
    return 0


def show(folder: Path, plotlyjs: str, every: float | None) -> None:
    """Write the page of the study in `folder` anew.

    With `every`, look for new records after so many seconds, write it again, and never return.

    Raises UserError.
    """
    from bam_search.search.store import read_records  # a page alone needs no Optuna

    context, _, _ = read(folder / PAGE)
    before = None
    while True:
        try:
            records = read_records(folder)
        except UserError as error:
            hint = f"`report {page_of(folder)}` makes its page from the records that are in it"
            raise UserError(error.message, hint) from None
        status, runs = read_status(folder), is_locked(folder)
        if (records, status, runs) != before:
            context = replace(context, state=state_words(status, runs))
            page, _ = publish(folder, context, records, plotlyjs)
            click.echo(f"report: {page}" if before is None else f"{len(records)} candidates")
        if every is None:
            return
        before = (records, status, runs)
        time.sleep(max(1.0, every))  # not without rest, however little is asked for


def rebuild(page: Path, out: Path, plotlyjs: str) -> None:
    """Write to `out` what the records of a page give. Raises UserError."""
    text = rebuilt(page, plotlyjs)
    try:
        write(out, text)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}", "try another --out") from None
    click.echo(f"report: {out}")


def check(page: Path) -> int:
    """Return the exit code: 0 if all of the page follows from its records, else 1.

    Prints what does not.
    """
    verdict = verify(page)
    for line in verdict.wrong[:SHOWN]:
        click.echo(line)
    if verdict.wrong:
        hidden = len(verdict.wrong) - SHOWN
        more = f", {hidden} more not shown" if hidden > 0 else ""
        click.echo(f"error: {page} does not follow from its own records{more}", err=True)
        return 1
    click.echo(
        f"verified: all of {page} follows from the {verdict.records} records in it; "
        "whether these are true it cannot tell"
    )
    return 0
