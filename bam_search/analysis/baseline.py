"""What the search was worth: its front beside that of a random search of equal training cost.

The only library is numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bam_search.analysis.pareto import hypervolume, nondominated
from bam_search.study.record import METRIC, Record, best_of, search_epochs, startup_of

HypervolumeCurve = list[tuple[int, float]]
"""(epochs spent, hypervolume) after each candidate."""
SEARCH_LINE, RANDOM_LINE = "the search", "random search"
"""The names of the two curves."""


class SearchSummary(NamedTuple):
    """What a search came to: epochs spent, best validation value, hypervolume of its front.

    The hypervolume is of the objectives, with the worst values of both searches as the reference
    point, as a share of the larger one.
    """

    epochs: int
    best_value: float
    hypervolume: float


@dataclass(frozen=True)
class SearchVsRandom:
    """The search and the random search beside it."""

    search: SearchSummary
    random: SearchSummary


def search_vs_random(
    records: Sequence[Record], startup: int, lines: Mapping[str, HypervolumeCurve]
) -> SearchVsRandom | None:
    """The search beside the random search of equal cost; None if there was none.

    `lines` are their hypervolumes, from `progress`.
    """
    if len(lines) < 2:
        return None
    searched, random = _searches(records, startup)
    random_spent = sum(record.epochs for record in random if record.complete)
    search_line, random_line = lines[SEARCH_LINE], lines[RANDOM_LINE]
    return SearchVsRandom(
        search=SearchSummary(search_epochs(searched), _best_value(searched), search_line[-1][1]),
        random=SearchSummary(random_spent, _best_value(random), random_line[-1][1]),
    )


def _best_value(records: Sequence[Record]) -> float:
    """The best value of the complete records, of which there are some."""
    best = best_of(records)
    assert best is not None
    return best.value(METRIC)


def progress(
    records: Sequence[Record], objectives: Sequence[str], startup: int
) -> dict[str, HypervolumeCurve]:
    """The hypervolume of what was found by so many epochs, for "the search" and "random search".

    Random search has no curve if it completed no candidate; the result is empty if the search
    completed none. The hypervolume is of the objectives, with the worst values of both searches as
    the reference point, as a share of the larger one at its end.
    """
    searched, random = _searches(records, startup)
    if not any(record.complete for record in searched):
        return {}
    reference_point = _reference_point([*searched, *random], objectives)
    # The random search has no rungs, and the startup that it shares counts as if trained without.
    lines = {SEARCH_LINE: _volumes(searched, objectives, reference_point, rungs=True)}
    if any(record.complete for record in random):
        lines[RANDOM_LINE] = _volumes(random, objectives, reference_point, rungs=False)
    most = max(line[-1][1] for line in lines.values()) or 1.0
    return {name: _scaled(line, most) for name, line in lines.items()}


def _reference_point(records: Sequence[Record], objectives: Sequence[str]) -> np.ndarray:
    """(objectives,): just above the greatest value of each, so that every record adds volume."""
    complete = [record for record in records if record.complete]
    greatest = [max(record.objective(key) for record in complete) for key in objectives]
    return np.array([value + 1e-9 * max(1.0, abs(value)) for value in greatest])


def _scaled(line: HypervolumeCurve, most: float) -> HypervolumeCurve:
    return [(spent, volume / most) for spent, volume in line]


def _searches(records: Sequence[Record], startup: int) -> tuple[list[Record], list[Record]]:
    """The searched candidates, and those of the random search.

    The random search begins with the search's startup; the second list is empty without one.
    """
    searched = [record for record in records if record.is_searched]
    drawn = [record for record in records if record.is_random]
    if not drawn:
        return searched, []
    return searched, [*startup_of(records, startup), *drawn]


def _volumes(
    records: Sequence[Record], objectives: Sequence[str], reference_point: np.ndarray, rungs: bool
) -> HypervolumeCurve:
    """Epochs spent and the front's hypervolume up to `reference_point`, after each complete record.

    `rungs` says whether the epochs of shorter trainings count.
    """
    line: HypervolumeCurve = []
    spent, front = 0, np.zeros((0, len(objectives)))
    for record in records:
        spent += record.trained_epochs if rungs else record.epochs * record.complete
        if record.complete:
            front = np.vstack([front, [record.objective(key) for key in objectives]])
            front = front[nondominated(front)]
            line.append((spent, hypervolume(front, reference_point)))
    return line
