"""The paper's figures beside ours: a table of them, and what of ours is not the paper's."""

from dataclasses import dataclass

import pandas as pd

from bam_search.analysis.findings import Findings
from bam_search.report.tables import difference_text, test_text, validation_text
from bam_search.study.published import MARKS, Marked, PublishedFigure, beside, minus
from bam_search.study.record import Record


@dataclass(frozen=True)
class Paper:
    """What the paper says about a study, and how this run of it differs.

    `net` is the name of our network; `data`, `recipe` and `metric` are words for ours, `data` and
    `metric` empty if they are the paper's.
    """

    claim: str = ""
    entries: tuple[PublishedFigure, ...] = ()
    net: str = ""
    data: str = ""
    recipe: str = ""
    metric: str = ""

    @property
    def shown(self) -> tuple[PublishedFigure, ...]:
        """The entries that belong beside this run's network."""
        return beside(self.entries, self.net)

    @property
    def apart(self) -> str:
        """What of ours is not the paper's, in a sentence.

        'Not the paper's: the net (small, not resnet50), the data (15,000 training images ...),
        the recipe (ours, of 2 epochs). ...'
        """
        nets = ", ".join(dict.fromkeys(entry.net for entry in self.shown if entry.net != self.net))
        differences = []
        if nets:
            differences.append(f"the net ({self.net}, not {nets})")
        if self.metric:
            differences.append(f"the metric ({self.metric})")
        if self.data:
            differences.append(f"the data ({self.data})")
        differences.append(f"the recipe ({self.recipe})")
        return (
            f"Not the paper's: {', '.join(differences)}. Differences compare better than values do."
        )


def paper_table(paper: Paper, findings: Findings) -> pd.DataFrame:
    """A row of text for each of the paper's figures, with the reference of ours that it is for."""
    ours = {record.name: record for record in findings.records if record.is_reference}
    first = next(iter(ours.values()), None)
    first_name = first.name if first else ""
    rows = []
    for entry in paper.shown:
        record = ours.get(entry.reference)
        row = {
            **_paper_columns(paper, entry, first_name),
            "our net": paper.net,
            "our error, %": _our_error(record, findings),
            f"ours minus {first_name}": _our_difference(record, first, findings),
            **_our_costs(record),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _paper_columns(paper: Paper, entry: PublishedFigure, first: str) -> dict[str, str]:
    return {
        "what": entry.reference,
        "the paper's net": entry.net,
        "its error, %": _marked(entry.error, ".2f"),
        f"minus {first}": _marked(minus(entry, paper.entries, first), "+.2f"),
        "its params, M": _marked(entry.params, "g"),
        "its GFLOPs": _marked(entry.gflops, "g"),
    }


def _our_costs(record: Record | None) -> dict[str, str]:
    """The costs of our reference as text; empty where it was not run."""
    params, macs = "our params, M", "our MACs conv+fc, G"
    if record is None:
        return {params: "", macs: ""}
    return {params: f"{record.params / 1e6:.3f}", macs: f"{record.macs_conv_fc / 1e9:.4f}"}


def _marked(figure: Marked | None, form: str) -> str:
    """'20.00 (as our source texts report it)'."""
    return "" if figure is None else f"{figure[0]:{form}} ({MARKS[figure[1]]})"


def _our_error(record: Record | None, findings: Findings) -> str:
    if record is None:
        return "not run"
    test, metric = findings.finals.mean(record), findings.metric
    return (
        f"{validation_text(record)} validation"
        if test is None
        else f"{test_text(metric, test)} test"
    )


def _our_difference(record: Record | None, first: Record | None, findings: Findings) -> str:
    """The difference of final trainings, paired by seed; of validation where one has no test."""
    if record is None or first is None or record is first:
        return ""
    compared = findings.comparison(record, first)
    if compared is not None:
        return f"{difference_text(compared)} on test"
    if record.val_metric is None or first.val_metric is None:
        return ""
    return f"{record.val_metric - first.val_metric:+z.1f} on validation"
