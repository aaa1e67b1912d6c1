"""What several seeds say: means, paired differences, and who is on the front, each with how sure
that is. numpy and scipy.

The model of a final error: its placement's mean, plus what its seed does to all placements alike,
plus noise of one size. Differences are between the same seeds, so what the seed does to all drops
out; the noise is estimated from all finalists together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bam_search.search.pareto import nondominated
from bam_search.search.record import Record

LEVEL = 0.9
"""Of all intervals."""
DRAWS = 4000


@dataclass(frozen=True)
class Noise:
    """The standard deviation of one final error beyond its placement's mean and its seed's effect,
    with its degrees of freedom.
    """

    sd: float
    degrees: int


@dataclass(frozen=True)
class Mean:
    """The mean of `n` values, with its standard deviation and interval; with one value neither is
    known.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """a - b over their `n` common seeds, in points, with its interval; `word` says how a is:
    'better', 'worse' or 'tie'.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def word(self) -> str:
        """A tie is a difference whose interval has zero in it, or that has no interval."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "tie"
        return "better" if self.high < 0 else "worse"


def mean(errors: Sequence[float], level: float = LEVEL) -> Mean:
    """The mean, with Student's t interval."""
    n, centre = len(errors), float(np.mean(errors))
    if n < 2:
        return Mean(centre, None, None, None, n)
    sd = float(np.std(errors, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / n**0.5
    return Mean(centre, sd, centre - half, centre + half, n)


def noise(records: Sequence[Record]) -> Noise | None:
    """The noise of final errors, from all records with several: what a mean for each placement and
    for each seed leaves.
    """
    used = [r for r in records if len(r.test_errors) > 1]
    seeds = sorted({seed for r in used for seed in r.test_seeds})
    cells = [
        (i, seeds.index(seed), error)
        for i, r in enumerate(used)
        for seed, error in zip(r.test_seeds, r.test_errors, strict=True)
    ]
    if len(used) < 2 or not cells:
        return None
    design = np.zeros((len(cells), len(used) + len(seeds)))
    for row, (i, s, _) in enumerate(cells):
        design[row, i] = design[row, len(used) + s] = 1
    errors = np.array([error for *_, error in cells])
    solved, _, rank, _ = np.linalg.lstsq(design, errors, rcond=None)
    degrees = len(cells) - int(rank)
    if degrees < 1:
        return None
    left = errors - design @ solved
    return Noise(float(np.sqrt(left @ left / degrees)), degrees)


def difference(
    a: Record, b: Record, spread: Noise | None, level: float = LEVEL
) -> Difference | None:
    """a - b over the seeds that both have; None if they have none in common."""
    of_b = dict(zip(b.test_seeds, b.test_errors, strict=True))
    values = [
        error - of_b[seed]
        for seed, error in zip(a.test_seeds, a.test_errors, strict=True)
        if seed in of_b
    ]
    if not values:
        return None
    n, centre = len(values), float(np.mean(values))
    if spread is None:
        return Difference(centre, None, None, n)
    half = float(stats.t.ppf((1 + level) / 2, spread.degrees)) * spread.sd * (2 / n) ** 0.5
    return Difference(centre, centre - half, centre + half, n)


def membership(
    records: Sequence[Record], costs: Sequence[str], spread: Noise | None
) -> list[float]:
    """For each record with final errors the probability that its placement is on the front of mean
    error and `costs`.

    Means are drawn around those measured, as wide as the noise and the number of seeds leave them;
    costs are known.
    """
    means = np.array([np.mean(r.test_errors) for r in records])
    known = np.array([[r.objective(key) for key in costs] for r in records]).reshape(
        len(records), -1
    )
    if spread is None:
        return [float(on) for on in nondominated(np.column_stack([means, known]))]
    rng = np.random.default_rng(0)
    width = spread.sd / np.sqrt([len(r.test_errors) for r in records])
    scale = np.sqrt(spread.degrees / rng.chisquare(spread.degrees, DRAWS))[:, None]
    drawn = means + width * scale * rng.standard_normal((DRAWS, len(records)))
    # a beats b where it costs no more anywhere; of equal costs the one of less error.
    cheaper = (known[:, None] <= known[None]).all(2) & ~np.eye(len(records), dtype=bool)
    beaten = np.stack(
        [(drawn[:, cheaper[:, i]] < drawn[:, [i]]).any(1) for i in range(len(records))], axis=1
    )
    return [float(share) for share in 1 - beaten.mean(0)]


def rank_correlation(
    short: Sequence[float], full: Sequence[float], level: float = LEVEL
) -> Mean | None:
    """Kendall's tau of two rankings with a bootstrap interval over candidates; None for fewer than
    4, or where one is constant.
    """
    pairs = np.array([short, full]).T
    if len(pairs) < 4 or len(np.unique(pairs[:, 0])) < 2 or len(np.unique(pairs[:, 1])) < 2:
        return None
    rng = np.random.default_rng(0)
    taus = [
        stats.kendalltau(*pairs[rng.integers(len(pairs), size=len(pairs))].T).statistic
        for _ in range(500)
    ]
    low, high = np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2])
    return Mean(
        float(stats.kendalltau(*pairs.T).statistic), None, float(low), float(high), len(pairs)
    )
