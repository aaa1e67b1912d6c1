"""Statistics over several seeds: means, paired differences, probabilities of being on the front.

The model of what a final training measures is

    value = mean of its placement + effect of its seed, the same for all placements + noise

with noise of one size for all. Differences are between the same seeds, so the effect of the seed
cancels. The noise is estimated from all finalists together.

The libraries are numpy and scipy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from bam_search.analysis.pareto import nondominated
from bam_search.study.record import Record

LEVEL = 0.9
"""The probability of all intervals."""
DRAWS = 4000


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a final training's noise, with its degrees of freedom."""

    sd: float
    degrees: int


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
    """The mean of a - b over their `n` common seeds, with its interval."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def turned(self) -> "Difference":
        """The difference b - a."""
        if self.low is None or self.high is None:
            return replace(self, mean=-self.mean)
        return replace(self, mean=-self.mean, low=-self.high, high=-self.low)


def mean(values: Sequence[float], level: float = LEVEL) -> Mean:
    """The mean, with Student's t interval of probability `level`."""
    n, centre = len(values), float(np.mean(values))
    if n < 2:
        return Mean(centre, None, None, None, n)
    sd = float(np.std(values, ddof=1))
    low, high = _student_interval(centre, sd / n**0.5, n - 1, level)
    return Mean(centre, sd, low, high, n)


def _student_interval(
    centre: float, standard_error: float, degrees: int, level: float
) -> tuple[float, float]:
    """Student's t interval of probability `level`.

    Equal values have a standard error of 0 and an interval without width, where
    `scipy.stats.t.interval` has none.
    """
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * standard_error
    return centre - half, centre + half


def noise(records: Sequence[Record]) -> Noise | None:
    """The noise of final trainings: what a mean for each placement and each seed does not explain.

    It is estimated from all records with several final trainings; None if these are too few.
    """
    used = [record for record in records if len(record.test_metrics) > 1]
    if len(used) < 2:
        return None
    seeds = sorted({seed for record in used for seed in record.test_seeds})
    rows, values = [], []
    for i, record in enumerate(used):
        for seed, value in zip(record.test_seeds, record.test_metrics, strict=True):
            row = np.zeros(len(used) + len(seeds))
            row[[i, len(used) + seeds.index(seed)]] = 1
            rows.append(row)
            values.append(value)
    design = np.array(rows)
    solved, _, rank, _ = np.linalg.lstsq(design, np.array(values), rcond=None)
    degrees = len(values) - int(rank)
    if degrees < 1:
        return None
    left = np.array(values) - design @ solved
    return Noise(float(np.sqrt(left @ left / degrees)), degrees)


def difference(
    a: Record, b: Record, spread: Noise | None, level: float = LEVEL
) -> Difference | None:
    """The difference a - b over the seeds that both have; None if they have none in common.

    `spread` is the noise of final trainings; without it the difference has no interval.
    """
    of_a = dict(zip(a.test_seeds, a.test_metrics, strict=True))
    of_b = dict(zip(b.test_seeds, b.test_metrics, strict=True))
    values = [value - of_b[seed] for seed, value in of_a.items() if seed in of_b]
    if not values:
        return None
    n, centre = len(values), float(np.mean(values))
    if spread is None:
        return Difference(centre, None, None, n)
    low, high = _student_interval(centre, spread.sd * (2 / n) ** 0.5, spread.degrees, level)
    return Difference(centre, low, high, n)


def membership(
    records: Sequence[Record], costs: Sequence[str], spread: Noise | None
) -> list[float]:
    """The probability of each record that its placement is on the front of mean and `costs`.

    All records have final trainings. Means are drawn DRAWS times around the measured ones, with a
    width from the noise and the number of seeds; costs are known. Without noise (`spread` is None)
    the probabilities are 0 or 1, from the measured means.
    """
    means = np.array([np.mean(r.test_objectives) for r in records])
    cost_rows = [[r.objective(key) for key in costs] for r in records]
    known = np.array(cost_rows).reshape(len(records), -1)
    if spread is None:
        return [float(on) for on in nondominated(np.column_stack([means, known]))]
    rng = np.random.default_rng(0)
    width = spread.sd / np.sqrt([len(r.test_metrics) for r in records])
    scale = np.sqrt(spread.degrees / rng.chisquare(spread.degrees, DRAWS))[:, None]
    drawn = means + width * scale * rng.standard_normal((DRAWS, len(records)))
    # A record is beaten in a draw where another one that costs no more has a lower mean.
    costs_no_more = (known[:, None] <= known[None]).all(2) & ~np.eye(len(records), dtype=bool)
    beaten = [(drawn[:, costs_no_more[:, i]] < drawn[:, [i]]).any(1) for i in range(len(records))]
    return [float(share) for share in 1 - np.stack(beaten, axis=1).mean(0)]


def rank_correlation(
    short: Sequence[float], full: Sequence[float], level: float = LEVEL
) -> Mean | None:
    """Kendall's tau of two rankings, with a bootstrap interval over candidates.

    None for fewer than 4 candidates, or where one of the rankings is constant.

    A resample in which a ranking is constant has no tau and is left out of the interval. With few
    candidates there is nearly always one, and `scipy.stats.bootstrap` then gives no interval; with
    many the two are the same, draw by draw.
    """
    pairs = np.array([short, full]).T
    if len(pairs) < 4 or len(np.unique(pairs[:, 0])) < 2 or len(np.unique(pairs[:, 1])) < 2:
        return None
    rng = np.random.default_rng(0)
    taus = []
    for _ in range(500):
        resampled = pairs[rng.integers(len(pairs), size=len(pairs))]
        taus.append(stats.kendalltau(*resampled.T).statistic)
    low, high = np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2])
    tau = float(stats.kendalltau(*pairs.T).statistic)
    return Mean(tau, None, float(low), float(high), len(pairs))
