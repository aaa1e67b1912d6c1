"""`figure` and `table`: what a paper shows of a study, from its page alone.

stdout gets the table or the figure's caption.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from bam_search.analysis.findings import Findings
from bam_search.errors import UserError, nearest
from bam_search.report.payload import ReportContext, read
from bam_search.report.publication.caption import figure_caption
from bam_search.report.publication.latex import GRAPHICS, figure_environment
from bam_search.report.publication.table import FORMS
from bam_search.report.publish import page_of
from bam_search.report.tables import called


def write_figure(
    path: Path, out: Path, width: str, latex: bool, costs: Sequence[str], beside: str | None
) -> None:
    """Write the figure to `out`, in the format of its suffix, and print its caption.

    With `latex` print the LaTeX that shows it. `costs` are the overheads that are drawn, none for
    those of the page. Intervals are of differences to the candidate `beside`; None is no attention.

    Raises UserError.
    """
    # Here, as a table needs no Matplotlib.
    from bam_search.report.publication.figure import FORMATS, draw, numbers, save

    if out.suffix not in FORMATS:
        raise UserError(f"a figure cannot be written as {out.name!r}", nearest(out.suffix, FORMATS))
    if latex and out.suffix not in GRAPHICS:
        raise UserError(f"LaTeX shows no {out.suffix}", f"name a file of {' or '.join(GRAPHICS)}")
    context, findings = _read(path, beside)
    figure = draw(numbers(findings, costs), width)
    caption = figure_caption(context, findings, costs)
    try:
        save(out, figure, caption)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}", "try another --out") from None
    click.echo(f"figure: {out}", err=True)
    click.echo(figure_environment(out.name, caption, width) if latex else caption)


def print_table(path: Path, form: str, rows: str | None, beside: str | None) -> None:
    """Print the table in one of FORMS, with differences to the candidate `beside`.

    None is no attention. Raises UserError.
    """
    for option, value in {"--rows": rows, "--beside": beside}.items():
        if form == "bibtex" and value is not None:
            raise UserError(f"{option} goes with a table, --bibtex prints none", "leave one away")
    context, findings = _read(path, beside)
    is_all = form == "csv" if rows is None else rows == "tested"
    click.echo(FORMS[form](context, findings, is_all))


def _compared_to(findings: Findings, name: str, path: Path) -> Findings:
    """The findings with differences to the candidate of this name. Raises UserError."""
    record = called(findings.records, name, path)
    if findings.overview is None or not record.is_tested:
        raise UserError(
            f"--beside {name!r}: it was not tested, so there are no differences to it",
            "only references and finalists are; `table --rows tested` lists them",
        )
    overview = findings.overview.compared_to(record, findings.finals)
    return replace(findings, overview=overview)


def _read(path: Path, beside: str | None) -> tuple[ReportContext, Findings]:
    """The page's context, and its findings with differences to the candidate `beside`."""
    context, records, _ = read(page_of(path))
    findings = Findings.of(records, context)
    return context, findings if beside is None else _compared_to(findings, beside, path)
