"""The Pareto front: the records that no other beats. numpy only."""

from collections.abc import Sequence

import numpy as np

from bam_search.search.record import Record, costs_of


def nondominated(values: np.ndarray) -> np.ndarray:
    """(n, m) values to minimise -> (n,) bool: True where no row is at least as good in all columns and better in one."""
    no_worse = (values[:, None] <= values[None]).all(2)
    better = (values[:, None] < values[None]).any(2)
    return np.asarray(~(no_worse & better).any(0))


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
    values = np.unique(values[(values < worst).all(1)], axis=0)
    if not len(values):
        return 0.0
    if values.shape[1] == 1:
        return float(worst[0] - values.min())
    values = values[np.argsort(values[:, -1], kind="stable")]
    ends = np.append(values[1:, -1], worst[-1])
    depths = ends - values[:, -1]
    return sum(depth * hypervolume(_front_rows(values[: i + 1, :-1]), worst[:-1]) for i, depth in enumerate(depths) if depth > 0)


def _front_rows(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[nondominated(values)])
