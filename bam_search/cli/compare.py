"""`compare`: several finished studies in one front and one page."""

from collections.abc import Sequence
from pathlib import Path

import click

from bam_search.errors import UserError
from bam_search.report import comparison as report


def compare(folders: Sequence[Path], out: Path) -> None:
    """Write the page that compares the reports in `folders` to `out`, and say the joint front.

    Raises UserError.
    """
    check_free(out)
    comparison = report.compare(
        [
            report.read_study(folder, name)
            for folder, name in zip(folders, _names(folders), strict=True)
        ]
    )
    if comparison.warning:
        click.echo(f"warning: {comparison.warning}", err=True)
    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"report: {report.write_comparison(out, comparison)}")
    click.echo(f"the joint front of {sum(map(len, comparison.points.values()))} candidates")
    click.echo(report.front_table(comparison).to_string(index=False))


def check_free(out: Path) -> None:
    """Raises UserError if a study is in the folder: its own page would be lost."""
    if (out / "study.json").exists():
        raise UserError(
            f"{out} holds a study of its own, with a page",
            "write the comparison elsewhere, with --out another/folder",
        )


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its last part, or the whole path where two would be called alike.

    Raises UserError if they are no two.
    """
    places = [folder.resolve() for folder in folders]
    if len(places) < 2:
        raise UserError(
            f"there is nothing to compare with {len(places)} folder{'s' * (not places)}",
            "name the folders of two or more reports",
        )
    for storage, folder in zip(places, folders, strict=True):
        if places.count(storage) > 1:
            raise UserError(f"{folder} is named twice", "name each folder once")
    short = [storage.name for storage in places]
    return [
        name if short.count(name) == 1 else str(folder)
        for name, folder in zip(short, folders, strict=True)
    ]
