"""The pruner: which candidates are worth a longer training after a short one (a rung). numpy only.

Costs are known before training. So a candidate can be stopped after a short training, if another
one that costs no more is better by more than the noise. The candidates that were trained to the end
show how well a short training forecasts the error of a full one.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.study.record import Record
from bam_search.words import counted

MIN_RECORDS = 6
"""Nothing is stopped before so many candidates were trained to the end.

A line through five points says little.
"""


@dataclass(frozen=True)
class Forecast:
    """A linear forecast of the error after a full training from that after a short one.

        full error = intercept + slope * short error, with standard deviation sd

    `explained` is the share of the variance of full errors that short ones explain (R squared).
    """

    intercept: float
    slope: float
    sd: float
    explained: float

    def full(self, short: float) -> float:
        """The full error to expect after a short training with the error `short`."""
        return self.intercept + self.slope * short


def forecast(records: Sequence[Record], epochs: int) -> Forecast | None:
    """The forecast from trainings of `epochs` epochs, fitted to the records that have both errors.

    None if these are fewer than MIN_RECORDS.
    """
    complete = [record for record in records if record.complete]
    both = [(record.rung_error(epochs), record.val_error) for record in complete]
    pairs = np.array([pair for pair in both if pair[0] is not None])
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
    and its full error is below the one forecast for `record` by more than `margin` standard
    deviations of such a difference.
    """
    epochs = record.rung_epochs[-1]
    predicted = forecast(others, epochs)
    if predicted is None:
        return ""
    expected = predicted.full(record.rung_errors[-1])
    rivals = [other for other in others if other.complete and _costs_no_more(other, record, costs)]
    best = min(rivals, key=lambda rival: rival.objective("error"), default=None)
    # `sd` is the scatter of the candidate's training; the rival's is about as large.
    noise = margin * predicted.sd * 2**0.5
    if best is None or best.objective("error") + noise >= expected:
        return ""
    return (
        f"after {counted(epochs, 'epoch')}: {expected:.1f} % to expect after all, "
        f"and #{best.number} costs no more with "
        f"{best.objective('error'):.1f} %, better by more than the noise of {noise:.1f}"
    )


def _costs_no_more(a: Record, b: Record, costs: Sequence[str]) -> bool:
    return all(a.objective(key) <= b.objective(key) for key in costs)


def in_control_group(seed: int, number: int, share: float) -> bool:
    """Whether this candidate is trained to the end even if the pruner would stop it.

    The control group is a `share` of all candidates; it shows how often stopping is wrong.
    """
    return zlib.crc32(f"{seed}:audit:{number}".encode()) < share * 2**32
