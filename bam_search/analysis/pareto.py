"""The Pareto front, and its hypervolume. numpy only."""

import math
from collections.abc import Sequence

import numpy as np

from bam_search.study.record import METRIC, Record, costs_of


def nondominated(values: np.ndarray) -> np.ndarray:
    """Which rows are on the Pareto front: (n, m) values to minimise -> (n,) bool.

    A row is on it if no other row is at least as good in all columns and better in one.
    """
    on_front = np.zeros(len(values), dtype=bool)
    left = np.lexsort(values.T[::-1])
    while len(left):
        # No remaining row dominates the first in lexical order, so it is on the front.
        first = values[left[0]]
        on_front[left[(values[left] == first).all(1)]] = True
        left = left[~(first <= values[left]).all(1)]
    return on_front


def dominated_in_draws(draws: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """(draws, n): where each of n candidates is beaten by one that costs no more.

    `draws` are (draws, n) values to minimise, `costs` is (n, m) of known costs.
    """
    costs_no_more = (costs[:, None] <= costs[None]).all(2) & ~np.eye(len(costs), dtype=bool)
    beaten = [(draws[:, costs_no_more[:, i]] < draws[:, [i]]).any(1) for i in range(len(costs))]
    return np.stack(beaten, axis=1)


def pareto_front(records: Sequence[Record], objectives: Sequence[str]) -> list[Record]:
    """The complete records on the Pareto front, cheapest first, then best first.

    `objectives` are keys of `bam_search.study.record.OBJECTIVES`.
    """
    complete = [record for record in records if record.complete]
    if not complete:
        return []
    values = np.array([[record.objective(key) for key in objectives] for record in complete])
    front = [complete[i] for i in np.flatnonzero(nondominated(values))]
    costs = costs_of(objectives)

    def order(record: Record) -> tuple[list[float], float, int]:
        return [record.objective(key) for key in costs], record.objective(METRIC), record.number

    return sorted(front, key=order)


def front_line(records: Sequence[Record], axis: str) -> list[Record]:
    """The Pareto front of the metric against the one overhead `axis`, cheapest first."""
    complete = [record for record in records if record.complete]
    line: list[Record] = []
    least = math.inf
    for record in sorted(complete, key=lambda r: _cost_value_number(r, axis)):
        value = record.objective(METRIC)
        if value < least:
            line.append(record)
            least = value
    return line


def _cost_value_number(record: Record, axis: str) -> tuple[float, float, int]:
    return getattr(record, axis), record.objective(METRIC), record.number


def hypervolume(values: np.ndarray, worst: np.ndarray) -> float:
    """The volume between (n, m) values to minimise and the (m,) point `worst`.

    A row that is not below `worst` everywhere adds nothing.

    The volume is summed in slices along the last column, as in Carlos Fonseca et al., "An improved
    dimension-sweep algorithm for the hypervolume indicator", CEC 2006, without its data structures:
    fronts here have tens of members.
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
    volume = 0.0
    for i, depth in enumerate(depths):
        if depth > 0:
            volume += float(depth) * hypervolume(values[: i + 1, :-1], worst[:-1])
    return volume


def hypervolume_improvements(
    front: np.ndarray, values: np.ndarray, worst: np.ndarray
) -> np.ndarray:
    """(k,): the hypervolume that each row of `values` would add to the front.

    Args:
        front: (n, m) values to minimise.
        values: (k, m) values to minimise.
        worst: (m,) a point above all of these values.
    """
    if front.shape[1] != 3:
        there = hypervolume(front, worst)
        return np.array([hypervolume(np.vstack([front, value]), worst) - there for value in values])
    # A grid over the first two columns. In each cell `depth` is the front's least value of the
    # last column: a new row fills the cell from its own value up to there.
    xs = np.unique(np.append(front[:, 0], values[:, 0].min()))
    ys = np.unique(np.append(front[:, 1], values[:, 1].min()))
    cells = (np.searchsorted(xs, front[:, 0]), np.searchsorted(ys, front[:, 1]))
    depth = np.full((len(xs), len(ys)), worst[2])
    np.minimum.at(depth, cells, front[:, 2])
    depth = np.minimum.accumulate(np.minimum.accumulate(depth, axis=0), axis=1)
    # How much of each cell's width and height each new row covers.
    widths = np.diff(np.maximum(np.append(xs, worst[0]), values[:, 0, None]))
    heights = np.diff(np.maximum(np.append(ys, worst[1]), values[:, 1, None]))
    improvements = [
        width @ np.maximum(depth - value, 0) @ height
        for width, height, value in zip(widths, heights, values[:, 2], strict=True)
    ]
    return np.array(improvements)
