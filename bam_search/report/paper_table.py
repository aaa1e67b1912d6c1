"""The paper's figures beside ours: a table with a row for each figure, and what of ours is not the
paper's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bam_search.report.findings import compare_to
from bam_search.report.tables import difference_text, error_text, test_text
from bam_search.search.published import MARKS, Marked, PublishedFigure, beside, minus
from bam_search.search.record import REFERENCE, Record


@dataclass(frozen=True)
class Paper:
    """What the paper says about a study, and how this run of it differs: `data` and `recipe` are
    words for ours, `data` empty if equal.
    """

    claim: str = ""
    entries: tuple[PublishedFigure, ...] = ()
    net: str = ""
    data: str = ""
    recipe: str = ""

    @property
    def shown(self) -> tuple[PublishedFigure, ...]:
        """The entries that belong beside this run's network."""
        return beside(self.entries, self.net)

    @property
    def apart(self) -> str:
        """'Not the paper's: the net (small, not resnet50), the data (15,000 training images ...),
        the recipe (ours, of 2 epochs). ...'
        """
        nets = ", ".join(dict.fromkeys(entry.net for entry in self.shown if entry.net != self.net))
        parts = [f"the net ({self.net}, not {nets})"] if nets else []
        parts += [f"the data ({self.data})"] if self.data else []
        parts += [f"the recipe ({self.recipe})"]
        return f"Not the paper's: {', '.join(parts)}. Differences compare better than errors do."


def paper_table(paper: Paper, records: Sequence[Record]) -> pd.DataFrame:
    """A row for each of the paper's figures with the reference of ours that it belongs to, as text."""
    ours = {record.name: record for record in records if record.origin == REFERENCE}
    base = next(iter(ours.values()), None)
    rows = []
    for entry in paper.shown:
        record = ours.get(entry.reference)
        first = base.name if base else ""
        rows.append(
            {
                "what": entry.reference,
                "the paper's net": entry.net,
                "its error, %": _marked(entry.error, ".2f"),
                f"minus {first}": _marked(minus(entry, paper.entries, first), "+.2f"),
                "its params, M": _marked(entry.params, "g"),
                "its GFLOPs": _marked(entry.gflops, "g"),
                "our net": paper.net,
                "our error, %": _our_error(record),
                f"ours minus {first}": _our_difference(record, base, records),
                "our params, M": "" if record is None else f"{record.params / 1e6:.3f}",
                "our MACs conv+fc, G": "" if record is None else f"{record.macs_conv_fc / 1e9:.4f}",
            }
        )
    return pd.DataFrame(rows)


def _marked(figure: Marked | None, form: str) -> str:
    """'20.00 (as our source texts report it)'."""
    return "" if figure is None else f"{figure[0]:{form}} ({MARKS[figure[1]]})"


def _our_error(record: Record | None) -> str:
    if record is None:
        return "not run"
    return f"{test_text(record)} test" if record.test_errors else f"{error_text(record)} validation"


def _our_difference(record: Record | None, base: Record | None, records: Sequence[Record]) -> str:
    """Of test errors, paired by seed, where both are finalists; else of validation errors."""
    if record is None or base is None or record is base:
        return ""
    tested = (
        [found for found in compare_to(records, record, (REFERENCE,)) if found.other is base]
        if record.test_errors
        else []
    )
    if tested:
        return f"{difference_text(tested[0].difference)} on test"
    if record.val_error is None or base.val_error is None:
        return ""
    return f"{record.val_error - base.val_error:+.1f} on validation"
