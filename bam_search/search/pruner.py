"""Rungs: short trainings first, and which candidates are worth a longer one. numpy only.

Costs are known before training, so a candidate can be hopeless after a short training: when one
that costs no more is better by more than the noise. How much a short training says is learned from
the candidates that have gone all the way.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.search.record import Record
from bam_search.words import counted

MIN_RECORDS = 6
"""With fewer candidates that went all the way nothing is stopped: a line through five points says
little.
"""


@dataclass(frozen=True)
class Forecast:
    """error after the full training = `intercept` + `slope` * error after a short one, to within
    the standard deviation `sd`.

    `explained` is the share of the variance of full errors that short ones explain (R squared).
    """

    intercept: float
    slope: float
    sd: float
    explained: float

    def full(self, short: float) -> float:
        """The full error to expect after a short training's."""
        return self.intercept + self.slope * short


def forecast(records: Sequence[Record], epochs: int) -> Forecast | None:
    """What trainings of `epochs` epochs say, from the records that have both; None if these are
    fewer than LEAST.
    """
    pairs = np.array(
        [
            (short, r.val_error)
            for r in records
            if (short := at_rung(r, epochs)) is not None and r.complete
        ]
    )
    if len(pairs) < MIN_RECORDS:
        return None
    short, full = pairs.T
    spread = ((short - short.mean()) ** 2).sum()
    # A short training that is better never makes the forecast worse: a negative slope is noise.
    slope = (
        max(0.0, float((short - short.mean()) @ (full - full.mean()) / spread)) if spread else 0.0
    )
    left = full - full.mean() - slope * (short - short.mean())
    total = float(((full - full.mean()) ** 2).sum())
    sd = float(np.sqrt(left @ left / (len(pairs) - 2)))
    return Forecast(
        float(full.mean() - slope * short.mean()),
        slope,
        sd,
        1 - float(left @ left) / total if total else 0.0,
    )


def at_rung(record: Record, epochs: int) -> float | None:
    """The record's error after a training of `epochs` epochs below the full number; None if it has
    none.
    """
    return dict(zip(record.rung_epochs, record.rung_errors, strict=True)).get(epochs)


def should_stop(
    record: Record, others: Sequence[Record], costs: Sequence[str], margin: float
) -> str:
    """Why `record` need not be trained further, from its last rung; empty if it should be.

    It need not if one of `others` that went all the way costs no more on any of `costs`, and its
    full error is below the one to expect of `record` by more than `margin` standard deviations of
    such a difference.
    """
    epochs = record.rung_epochs[-1]
    found = forecast(others, epochs)
    if found is None:
        return ""
    expected = found.full(record.rung_errors[-1])
    rivals = [
        r
        for r in others
        if r.complete and all(r.objective(key) <= record.objective(key) for key in costs)
    ]
    best = min(rivals, key=lambda r: r.objective("error"), default=None)
    # The forecast's scatter is that of the candidate's own training; the rival's is about as large.
    noise = margin * found.sd * 2**0.5
    if best is None or best.objective("error") + noise >= expected:
        return ""
    return (
        f"after {counted(epochs, 'epoch')}: {expected:.1f} % to expect after all, and #{best.number} costs no more with "
        f"{best.objective('error'):.1f} %, better by more than the noise of {noise:.1f}"
    )


def in_control_group(seed: int, number: int, share: float) -> bool:
    """Whether this candidate is trained to the end even if it is hopeless: a `share` of all, to see
    how often stopping is wrong.
    """
    return zlib.crc32(f"{seed}:audit:{number}".encode()) < share * 2**32
