"""Statistics over several seeds: means, their intervals, the noise, rank correlation.

The model of what a final training measures is

    value = mean of its placement + effect of its seed, the same for all placements + noise

with noise of one size for all. Placements are compared by least-squares means, which say what each
would have had with all seeds; where all placements had the same seeds these are the plain means.

The libraries are numpy and scipy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.sparse.csgraph import connected_components

from bam_search.study.record import Record

LEVEL = 0.9
"""The probability of the intervals of means and effects."""
VERDICT_LEVEL = 0.95
"""The probability of the intervals of differences, which verdicts are made by.

At 0.9 simulated studies of equal placements said "better" in 6 % of cases (LOG.md).
"""
RESAMPLES = 500
"""Of the bootstrap interval of a rank correlation."""
BLOCK = 1000
"""How many rows of a table of all pairs of candidates are in memory at once."""
POWER = 0.8
"""The probability with which a difference of the smallest size that can be told is told."""


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a final training's noise, with its degrees of freedom."""

    sd: float
    degrees: int

    def smallest_difference(self, n: int) -> float:
        """The difference between two placements of `n` seeds that is told apart with POWER."""
        quantiles = np.asarray(stats.t.ppf([(1 + VERDICT_LEVEL) / 2, POWER], self.degrees))
        return float(quantiles.sum()) * self.sd * float((2 / n) ** 0.5)


@dataclass(frozen=True)
class Mean:
    """The mean of `n` values, their standard deviation and the mean's interval.

    With one value neither is known (None).
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """What a - b is, with its interval; both had `n` seeds."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def turned(self) -> "Difference":
        """The difference b - a."""
        if self.low is None or self.high is None:
            return Difference(-self.mean, None, None, self.n)
        return Difference(-self.mean, -self.high, -self.low, self.n)


def mean(values: Sequence[float], centre: float | None = None, level: float = LEVEL) -> Mean:
    """The mean, with Student's t interval of probability `level`.

    `centre` is the mean if that is known better than from these values alone.
    """
    n = len(values)
    centre = float(np.mean(values)) if centre is None else centre
    if n < 2:
        return Mean(centre, None, None, None, n)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / n**0.5
    return Mean(centre, sd, centre - half, centre + half, n)


def central_interval(draws: np.ndarray, level: float) -> tuple[float, float]:
    """The interval of probability `level` with as many draws below it as above."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class TwoWay:
    """Final trainings as a two-way layout.

    `values` is (n,); row i is of `records[placement[i]]` with `seeds[seed[i]]`.
    """

    records: tuple[Record, ...]
    seeds: tuple[int, ...]
    values: np.ndarray
    placement: np.ndarray
    seed: np.ndarray

    @classmethod
    def of(cls, records: Sequence[Record]) -> "TwoWay":
        """The values to minimise of all final trainings of these records."""
        seeds = tuple(sorted({seed for record in records for seed in record.test_seeds}))
        rows = [
            (value, i, seeds.index(seed))
            for i, record in enumerate(records)
            for value, seed in zip(record.test_objectives, record.test_seeds, strict=True)
        ]
        values, placement, seed = np.array(rows).reshape(-1, 3).T
        return cls(tuple(records), seeds, values, placement.astype(int), seed.astype(int))

    @property
    def of_placements(self) -> np.ndarray:
        """(n, records): 1 where a row is of a record."""
        return np.eye(len(self.records))[self.placement]

    @property
    def of_seeds(self) -> np.ndarray:
        """(n, seeds): 1 where a row is of a seed."""
        return np.eye(len(self.seeds))[self.seed]

    @property
    def design(self) -> np.ndarray:
        """(n, records + seeds): both."""
        return np.concatenate([self.of_placements, self.of_seeds], axis=1)


def noise(records: Sequence[Record]) -> Noise | None:
    """The noise of final trainings: what a mean for each placement and each seed does not explain.

    It is estimated from all records with several final trainings; None if these are too few.
    """
    used = [record for record in records if len(record.test_metrics) > 1]
    if len(used) < 2:
        return None
    layout = TwoWay.of(used)
    design = layout.design
    solved, _, rank, _ = np.linalg.lstsq(design, layout.values, rcond=None)
    degrees = len(layout.values) - int(rank)
    if degrees < 1:
        return None
    left = layout.values - design @ solved
    return Noise(float(np.sqrt(left @ left / degrees)), degrees)


def least_squares_means(records: Sequence[Record]) -> list[float]:
    """Each record's least-squares mean, of values to minimise; every record has some.

    It is the mean over the seeds of all records that are connected with it: that share a seed with
    it, or with a record that does, and so on.
    """
    means = [0.0] * len(records)
    for members in _connected(records):
        layout = TwoWay.of([records[i] for i in members])
        solved = np.linalg.lstsq(layout.design, layout.values, rcond=None)[0]
        level = solved[len(members) :].mean()
        for i, effect in zip(members, solved, strict=False):
            # Without the solver's last digits, which would decide between equals.
            means[i] = round(float(effect + level), 9)
    return means


def _connected(records: Sequence[Record]) -> list[list[int]]:
    """The numbers of records that are connected by common seeds, group by group."""
    if not records:
        return []
    seeds = [set(record.test_seeds) for record in records]
    shared = [[not a.isdisjoint(b) for b in seeds] for a in seeds]
    count, group = connected_components(np.array(shared), directed=False)
    return [np.flatnonzero(group == i).tolist() for i in range(count)]


def rank_correlation(
    short: Sequence[float], full: Sequence[float], level: float = LEVEL
) -> Mean | None:
    """Kendall's tau of two rankings, with a bootstrap interval over candidates.

    None for fewer than 4 candidates, or where one of the rankings is constant.

    A resample in which a ranking is constant has no tau and is left out of the interval. With few
    candidates there is nearly always one, and `scipy.stats.bootstrap` then gives no interval; with
    many the two are the same, draw by draw.
    """
    x, y = np.array(short), np.array(full)
    n = len(x)
    if n < 4 or len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    as_they_are = np.ones(n)
    resamples = (np.bincount(one, minlength=n) for one in drawn)
    times = np.array([as_they_are, *resamples], np.float32)  # exact: sums stay below 2 ** 24
    tau, *resampled = _kendall_tau(x, y, times)
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Mean(float(tau), None, float(low), float(high), n)


def _kendall_tau(x: np.ndarray, y: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each resample; NaN where x or y is constant there.

    `times`, (resamples, n), says how many times each of the n pairs is in it. All resamples come
    from one table of which pairs of candidates agree: `scipy.stats.kendalltau`, resample by
    resample, took 93 % of the time of a page's findings.
    """
    agreement = np.zeros(len(times))
    for rows in np.array_split(np.arange(len(x)), math.ceil(len(x) / BLOCK)):
        agrees = _order(x, rows) * _order(y, rows)
        agreement += ((times @ agrees.T.astype(np.float32)) * times[:, rows]).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return agreement / np.sqrt(_unequal_pairs(x, times) * _unequal_pairs(y, times))


def _order(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """1 where x of a row is greater than another, -1 where it is less, else 0."""
    return np.subtract(x[rows, None] > x, x[rows, None] < x, dtype=np.int8)


def _unequal_pairs(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How many ordered pairs of each resample have two different values of x."""
    order = np.argsort(x)
    first = np.unique(x[order], return_index=True)[1]
    of_value = np.add.reduceat(times[:, order].astype(float), first, axis=1)
    pairs: np.ndarray = of_value.sum(axis=1) ** 2 - (of_value**2).sum(axis=1)
    return pairs
