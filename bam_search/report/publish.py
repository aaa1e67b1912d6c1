"""The report of a study, written where others may see it, and pages made from pages.

It takes records and nothing else: no database, no torch, no Optuna.
"""

from collections.abc import Sequence
from pathlib import Path

from bam_search.analysis.findings import Findings
from bam_search.report.page import PAGE, page, write_report
from bam_search.report.payload import ReportContext, read
from bam_search.report.portable import portable_context, portable_record
from bam_search.study.record import Record


def publish(
    folder: Path, context: ReportContext, records: Sequence[Record], plotlyjs: str = "inline"
) -> tuple[Path, Findings]:
    """Write the report of these records into `folder`, without paths of this machine.

    `plotlyjs` is as for `page`. Returns the path of the page, and what was found.
    """
    context = portable_context(context)
    findings = Findings.of([portable_record(record) for record in records], context)
    return write_report(folder, context, findings, plotlyjs), findings


def rebuilt(path: Path, plotlyjs: str) -> str:
    """The page that the records of the page at `path` give, as HTML.

    Raises UserError if there is no page of this version.
    """
    context, records, _ = read(path)
    return page(context, Findings.of(records, context), plotlyjs)


def page_of(path: Path) -> Path:
    """The page in the folder of a report, or the page itself."""
    return path / PAGE if path.is_dir() else path
