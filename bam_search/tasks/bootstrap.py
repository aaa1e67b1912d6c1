"""Resamples of held-out samples, for a standard error by bootstrap."""

import numpy as np

RESAMPLES = 200
"""Their standard deviation is known to 5 %."""


def resamples(n: int) -> np.ndarray:
    """(RESAMPLES, n): how often each of n samples is drawn, n times with replacement.

    As many samples have the same resamples, so that what two models measure on them is paired.
    """
    return np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), RESAMPLES)
