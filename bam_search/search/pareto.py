"""The Pareto front: the records that no other beats. numpy only."""

from collections.abc import Sequence

import numpy as np

from bam_search.search.record import Record, costs_of


def nondominated(values: np.ndarray) -> np.ndarray:
    """(n, m) values to minimise -> (n,) bool: True where no row is at least as good in all columns
    and better in one.
    """
    kept = np.zeros(len(values), dtype=bool)
    left = np.lexsort(values.T[::-1])
    while len(left):
        first = values[
            left[0]
        ]  # the first in lexical order is better than none, and none of the rest is better than it
        kept[left[(values[left] == first).all(1)]] = True
        left = left[~(first <= values[left]).all(1)]
    return kept


def pareto_front(records: Sequence[Record], objectives: Sequence[str]) -> list[Record]:
    """The complete records on the front of the objectives (keys of OBJECTIVES), cheapest first,
    then best first.
    """
    complete = [record for record in records if record.complete]
    if not complete:
        return []
    values = np.array([[record.objective(key) for key in objectives] for record in complete])
    kept = [record for record, keep in zip(complete, nondominated(values), strict=True) if keep]
    costs = costs_of(objectives)
    return sorted(
        kept,
        key=lambda record: (
            [record.objective(key) for key in costs],
            record.val_error,
            record.number,
        ),
    )


def hypervolume(values: np.ndarray, worst: np.ndarray) -> float:
    """The volume between (n, m) values to minimise and the point `worst`; a row that is not below
    `worst` everywhere adds nothing.

    By slices along the last column, as in Carlos Fonseca et al., "An improved dimension-sweep
    algorithm for the hypervolume indicator", CEC 2006, without its data structures: fronts here
    have tens of members.
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
    return sum(
        float(depth) * hypervolume(values[: i + 1, :-1], worst[:-1])
        for i, depth in enumerate(depths)
        if depth > 0
    )


def hypervolume_improvements(
    front: np.ndarray, values: np.ndarray, worst: np.ndarray
) -> np.ndarray:
    """(n, m) and (k, m) values to minimise, all below `worst` -> (k,): the hypervolume that each
    row of `values` would add to the front.
    """
    if front.shape[1] != 3:
        there = hypervolume(front, worst)
        return np.array([hypervolume(np.vstack([front, value]), worst) - there for value in values])
    # A grid over the first two columns; `depth` is how far down the last one is still free in each
    # cell.
    xs, ys = (np.unique(np.append(front[:, i], values[:, i].min())) for i in (0, 1))
    depth = np.full((len(xs), len(ys)), worst[2])
    np.minimum.at(
        depth, (np.searchsorted(xs, front[:, 0]), np.searchsorted(ys, front[:, 1])), front[:, 2]
    )
    depth = np.minimum.accumulate(np.minimum.accumulate(depth, axis=0), axis=1)
    wide, high = (
        np.diff(np.maximum(np.append(side, end), values[:, i, None]))
        for i, (side, end) in enumerate(((xs, worst[0]), (ys, worst[1])))
    )
    return np.array(
        [w @ np.maximum(depth - z, 0) @ h for w, h, z in zip(wide, high, values[:, 2], strict=True)]
    )
