"""`compare`: several finished studies in one front and one page."""

from collections.abc import Sequence
from pathlib import Path

import click

from bam_search.errors import UserError
from bam_search.report import comparison as report
from bam_search.study.record import RECORDS_FILE, STUDY_FILE


def compare(folders: Sequence[Path], out: Path) -> None:
    """Write the page that compares the reports in `folders` to `out`, and print the joint front.

    Raises UserError.
    """
    check_free(out)
    names = _names(folders)
    studies = [report.read_study(folder, name) for folder, name in zip(folders, names, strict=True)]
    comparison = report.compare(studies)
    if comparison.warning:
        click.echo(f"warning: {comparison.warning}", err=True)
    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"report: {report.write_comparison(out, comparison)}")
    candidates = sum(map(len, comparison.points.values()))
    click.echo(f"the joint front of {candidates} candidates")
    click.echo(report.front_table(comparison).to_string(index=False))


def check_free(out: Path) -> None:
    """Raise UserError if there is a study or a report in `out`, whose page would be lost."""
    if any((out / name).exists() for name in (STUDY_FILE, RECORDS_FILE)):
        raise UserError(
            f"{out} holds a study of its own, with a page",
            "write the comparison elsewhere, with --out another/folder",
        )


def _names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: its last part, or the whole path if two share that part.

    Raises UserError for fewer than two folders, and for a folder that is named twice.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(resolved) < 2:
        raise UserError(
            f"there is nothing to compare with {len(resolved)} folder{'s' * (not resolved)}",
            "name the folders of two or more reports",
        )
    for path, folder in zip(resolved, folders, strict=True):
        if resolved.count(path) > 1:
            raise UserError(f"{folder} is named twice", "name each folder once")
    short = [path.name for path in resolved]
    return [
        name if short.count(name) == 1 else str(folder)
        for name, folder in zip(short, folders, strict=True)
    ]
