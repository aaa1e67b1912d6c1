"""A page made again from the records that it carries: no database, no torch, no Optuna."""

from pathlib import Path

from bam_search.analysis.findings import Findings
from bam_search.report.page import page
from bam_search.report.payload import read


def rebuilt(path: Path, plotlyjs: str) -> str:
    """The page that the records of the page at `path` give, as HTML.

    `plotlyjs` is as for `page`. Raises UserError if there is no page of this version.
    """
    context, records, _ = read(path)
    return page(context, Findings.of(records, context), plotlyjs)


def page_of(path: Path) -> Path:
    """The page in the folder of a report, or the page itself."""
    return path / "index.html" if path.is_dir() else path
