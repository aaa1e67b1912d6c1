"""The Pareto front: the records that no other beats. numpy only."""

from collections.abc import Sequence

import numpy as np

from bam_search.search.record import Record, costs_of


def nondominated(values: np.ndarray) -> np.ndarray:
    """(n, m) values to minimise -> (n,) bool: True where no row is at least as good in all columns and better in one."""
    no_worse = np.logical_and.reduce([column[:, None] <= column for column in values.T])
    return np.asarray(~(no_worse & ~no_worse.T).any(0))


def front(records: Sequence[Record], objectives: Sequence[str]) -> list[Record]:
    """The complete records on the front of the objectives (keys of OBJECTIVES), cheapest first, then best first."""
    complete = [record for record in records if record.complete]
    if not complete:
        return []
    values = np.array([[record.objective(key) for key in objectives] for record in complete])
    kept = [record for record, keep in zip(complete, nondominated(values), strict=True) if keep]
    costs = costs_of(objectives)
    return sorted(kept, key=lambda record: ([record.objective(key) for key in costs], record.val_error, record.number))


def hypervolume(values: np.ndarray, worst: np.ndarray) -> float:
    """The volume between (n, m) values to minimise and the point `worst`; a row that is not below `worst` everywhere adds nothing.

    By slices along the last column, as in Carlos Fonseca et al., "An improved dimension-sweep algorithm for the hypervolume indicator",
    CEC 2006, without its data structures: fronts here have tens of members.
    """
    values = values[(values < worst).all(1)]
    if not len(values):
        return 0.0
    if values.shape[1] == 1:
        return float(worst[0] - values.min())
    values = values[np.argsort(values[:, -1], kind="stable")]
    depths = np.diff(values[:, -1], append=worst[-1])
    if values.shape[1] == 2:
        return float(depths @ (worst[0] - np.minimum.accumulate(values[:, 0])))
    return sum(float(depth) * hypervolume(values[: i + 1, :-1], worst[:-1]) for i, depth in enumerate(depths) if depth > 0)
