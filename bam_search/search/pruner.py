"""The pruner: which candidates are worth a longer training after a short one (a rung). numpy only.

Costs are known before training. So a candidate can be stopped after a short training, if another
one that costs no more is better by more than the noise. The candidates that were trained to the end
show how well a short training forecasts the value of a full one.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.study.record import METRIC, Record, trained_after_rung
from bam_search.words import counted

MIN_RECORDS = 6
"""Nothing is stopped before so many candidates were trained to the end.

A line through five points says little.
"""


@dataclass(frozen=True)
class Forecast:
    """A linear forecast of the value after a full training from that after a short one.

        full value = intercept + slope * short value, with standard deviation sd

    Both are values to minimise. `explained` is the share of the variance of full ones that short
    ones explain (R squared).
    """

    intercept: float
    slope: float
    sd: float
    explained: float

    def full(self, short: float) -> float:
        """The full value to expect after a short training with the value `short`."""
        return self.intercept + self.slope * short


def forecast(records: Sequence[Record], epochs: int) -> Forecast | None:
    """The forecast from trainings of `epochs` epochs, fitted to the records that have both values.

    None if these are fewer than MIN_RECORDS.
    """
    both = trained_after_rung(records, epochs)
    pairs = np.array([(r.rung_objectives[epochs], r.objective(METRIC)) for r in both])
    if len(pairs) < MIN_RECORDS:
        return None
    short, full = pairs.T
    x, y = short - short.mean(), full - full.mean()
    squares = (x**2).sum()
    # A better short training never makes the forecast worse: a negative slope is noise.
    slope = max(0.0, float(x @ y / squares)) if squares else 0.0
    left = y - slope * x
    total = float((y**2).sum())
    return Forecast(
        intercept=float(full.mean() - slope * short.mean()),
        slope=slope,
        sd=float(np.sqrt(left @ left / (len(pairs) - 2))),
        explained=1 - float(left @ left) / total if total else 0.0,
    )


def should_stop(
    record: Record, others: Sequence[Record], costs: Sequence[str], margin: float
) -> str:
    """Why `record` should not be trained further, from its last rung; empty if it should be.

    It is stopped if one of `others` that was trained to the end costs no more on any of `costs`,
    and its full value is better than the one forecast for `record` by more than `margin` standard
    deviations of such a difference.
    """
    epochs = record.rung_epochs[-1]
    predicted = forecast(others, epochs)
    if predicted is None:
        return ""
    expected = predicted.full(record.rung_objectives[epochs])
    rivals = [other for other in others if other.complete and _costs_no_more(other, record, costs)]
    best = min(rivals, key=lambda rival: rival.objective(METRIC), default=None)
    # `sd` is the scatter of the candidate's training; the rival's is about as large.
    noise = margin * predicted.sd * 2**0.5
    if best is None or best.objective(METRIC) + noise >= expected:
        return ""
    metric = record.metric
    hoped = metric.with_unit(metric.once(metric.minimised(expected)))
    there = metric.with_unit(metric.once(best.value(METRIC)))
    return (
        f"after {counted(epochs, 'epoch')}: {hoped} to expect after all, "
        f"and #{best.number} costs no more with {there}, "
        f"better by more than the noise of {metric.once(noise)}"
    )


def _costs_no_more(a: Record, b: Record, costs: Sequence[str]) -> bool:
    return all(a.objective(key) <= b.objective(key) for key in costs)


def in_control_group(seed: int, number: int, share: float) -> bool:
    """Whether this candidate is trained to the end even if the pruner would stop it.

    The control group is a `share` of all candidates; it shows how often stopping is wrong.
    """
    return zlib.crc32(f"{seed}:audit:{number}".encode()) < share * 2**32
