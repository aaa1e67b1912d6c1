"""The Pareto front: the records that no other beats. numpy only."""

from collections.abc import Sequence

import numpy as np

from bam_search.search.record import Record


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
    costs = [key for key in objectives if key != "error"]
    return sorted(kept, key=lambda record: ([record.objective(key) for key in costs], record.val_error, record.number))
