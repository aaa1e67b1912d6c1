"""What the paper says about the references of a study, each figure with its mark.

No torch, no optuna.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bam_search.config import strict
from bam_search.tasks.metric import Metric

Mark = Literal["S", "C", "M"]
MARKS: dict[Mark, str] = {
    "S": "as our source texts report it",
    "C": "computed independently",
    "M": "from memory, confirmed by nothing",
}
"""Where a figure comes from, the surest source first. Every figure is shown with these words."""

ERROR = Metric("top-1 error", "%")
"""What the paper's figures measure: they belong beside values of this metric only."""

Marked = tuple[float, Mark]


@strict
@dataclass(frozen=True)
class PublishedFigure:
    """The paper's figures for `reference`, a reference of the study, each as [value, mark].

    `net` is the search space that holds the paper's network, `mirror` a small one that stands in
    for it on a CPU. `error` is ERROR on the test set of `data`, `params` is in millions, `gflops`
    in 1e9 multiply-adds.
    """

    reference: str
    net: str
    mirror: str = ""
    error: Marked | None = None
    params: Marked | None = None
    gflops: Marked | None = None
    data: str = "CIFAR-100"


def beside(entries: Sequence[PublishedFigure], space: str) -> tuple[PublishedFigure, ...]:
    """The entries to show beside a run on `space`.

    These are the entries of its network, or of the network that it mirrors; all if there are none.
    """
    of_space = tuple(entry for entry in entries if space in (entry.net, entry.mirror))
    return of_space or tuple(entries)


def minus(entry: PublishedFigure, entries: Sequence[PublishedFigure], base: str) -> Marked | None:
    """The entry's error minus that of the reference `base` on the same net, in points.

    It has the mark of the less sure one of the two. None if one of them is not known, or if the
    entry is that of `base` itself.
    """
    base_errors = [e.error for e in entries if (e.reference, e.net) == (base, entry.net)]
    base_error = base_errors[0] if base_errors else None
    if entry.error is None or base_error is None or entry.reference == base:
        return None
    mark = max(entry.error[1], base_error[1], key=list(MARKS).index)
    return entry.error[0] - base_error[0], mark
