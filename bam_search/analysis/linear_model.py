"""Bayesian linear regression in which each group of effects has a scale of its own.

    values = flat effects + effects of group 1 + effects of group 2 + ... + noise

Nothing is known of the flat effects beforehand. An effect of a group is normal around 0 with the
group's standard deviation, its scale, of which a half-Cauchy distribution, WIDTH times as wide as
the noise, is known beforehand. Scales are averaged over on a grid, by how well they explain the
values; the noise is integrated out. Everything is exact but the grid.

Sources: Christopher Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.5; Andrew
Gelman, "Prior distributions for variance parameters in hierarchical models", Bayesian Analysis
1(3), 2006, for the half-Cauchy.

The libraries are numpy and scipy.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

SCALES = np.geomspace(0.08, 40, 8)
"""The scales of a group that are averaged over, in units of the noise's standard deviation."""
PAIRS = 2000
"""Half the number of draws that intervals are made of."""
CHUNK = 64
"""So many points of the grid are computed at a time: their matrices stay small."""
LEAST = 1e-12
"""No sum of squares is taken to be smaller than this, so that its logarithm is finite."""
WIDTH = 3.0
"""Narrower ones make intervals too short where effects are as large as the noise (LOG.md)."""


@dataclass(frozen=True, eq=False)
class Regression:
    """Values and what they are to be explained by.

    Attributes:
        values: (n,) of equal noise.
        flat: (n, f) columns of the flat effects, which may depend on each other.
        groups: (n, p) columns of each group's effects; a column of zeros has an effect that nothing
            is learnt of.
    """

    values: np.ndarray
    flat: np.ndarray
    groups: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class _Reduced:
    """A regression without its flat effects: normal equations of what they leave to explain.

    `degrees` are those of freedom, `group` is each column's, and `seen` says which columns any
    value has; `gram` and `along` are of these.
    """

    gram: np.ndarray
    along: np.ndarray
    left: float
    degrees: int
    group: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True, eq=False)
class _AtScales:
    """The posterior of the effects at given scales.

    Attributes:
        scales: of all columns.
        mean: of all effects, 0 where nothing is learnt.
        factor: the Cholesky factor, lower, of the precision of the seen columns' effects, each in
            units of its scale; the noise's variance apart.
        left: the sum of squares that nothing explains.
    """

    scales: np.ndarray
    mean: np.ndarray
    factor: np.ndarray
    left: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of the effects after the values.

    `logs` are those of the weights of all points of the grid of `scales`, one row a point.
    """

    regression: Regression
    reduced: _Reduced
    scales: np.ndarray
    logs: np.ndarray

    @property
    def evidence(self) -> float:
        """The log of the probability of the values, up to a constant of their number."""
        return float(np.logaddexp.reduce(self.logs))

    def sample(self, pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws in pairs that lie opposite each other, so that means are exact.

        Returns (2 * pairs, f) flat effects and (2 * pairs, p) effects of all groups. Of flat
        effects that depend on each other only what the values determine is meant.
        """
        weights = np.exp(self.logs - self.logs.max())
        ends = np.round(pairs * np.cumsum(weights / weights.sum())).astype(int)
        counts = np.diff(ends, prepend=0)
        columns = np.concatenate(self.regression.groups, axis=1)
        inverse = np.linalg.pinv(self.regression.flat).T
        flat, effects = [], []
        for i in np.flatnonzero(counts):
            at = _at(self.reduced, self.scales[i])
            noise, deviations = _drawn(at, self.reduced, int(counts[i]), rng)
            normal = rng.standard_normal((len(noise), len(self.regression.values)))
            for sign in (1, -1):
                of_groups = at.mean + sign * deviations
                effects.append(of_groups)
                # The noise goes through the estimate of the flat effects as the values do.
                left = self.regression.values - of_groups @ columns.T
                flat.append((left + sign * noise[:, None] * normal) @ inverse)
        return np.concatenate(flat), np.concatenate(effects)


def fit(regression: Regression) -> Posterior | None:
    """The posterior; None without a degree of freedom: then nothing is known of the noise."""
    reduced = _reduced(regression)
    if reduced.degrees < 1:
        return None
    scales = np.array(list(itertools.product(SCALES, repeat=len(regression.groups))))
    logs = [_evidence(reduced, scales[i : i + CHUNK]) for i in range(0, len(scales), CHUNK)]
    return Posterior(regression, reduced, scales, np.concatenate(logs))


def _reduced(regression: Regression) -> _Reduced:
    columns = np.concatenate(regression.groups, axis=1)
    sizes = [group.shape[1] for group in regression.groups]
    seen = np.abs(columns).sum(axis=0) > 0
    basis = _basis(regression.flat)
    x = columns - basis @ (basis.T @ columns)
    y = regression.values - basis @ (basis.T @ regression.values)
    return _Reduced(
        gram=x[:, seen].T @ x[:, seen],
        along=x[:, seen].T @ y,
        left=float(y @ y),
        degrees=len(y) - basis.shape[1],
        group=np.repeat(np.arange(len(sizes)), sizes),
        seen=seen,
    )


def _basis(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what these columns span."""
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, singular > 1e-9 * max(singular, default=1.0)])


def _evidence(reduced: _Reduced, scales: np.ndarray) -> np.ndarray:
    """(g,) logs of the probability of the values and of (g, groups) scales, up to a constant."""
    d = scales[:, reduced.group[reduced.seen]]
    factors = np.linalg.cholesky(_precision(reduced, d))
    explained = np.linalg.solve(factors, (d * reduced.along)[..., None])[..., 0]
    left = np.maximum(reduced.left - (explained**2).sum(1), LEAST)
    log_determinants = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    # A step of the grid is as long as its scale: the points are even in the logarithm.
    prior = np.sum(np.log(scales) - np.log1p((scales / WIDTH) ** 2), axis=1)
    return np.asarray(prior - 0.5 * log_determinants - 0.5 * reduced.degrees * np.log(left))


def _precision(reduced: _Reduced, d: np.ndarray) -> np.ndarray:
    """(..., p, p) precisions of the seen columns' effects, each in units of its scale (..., p)."""
    return np.asarray(np.eye(d.shape[-1]) + d[..., :, None] * reduced.gram * d[..., None, :])


def _at(reduced: _Reduced, scales: np.ndarray) -> _AtScales:
    of_columns = scales[reduced.group]
    d = of_columns[reduced.seen]
    factor = np.linalg.cholesky(_precision(reduced, d))
    mean = np.zeros(len(of_columns))
    mean[reduced.seen] = d * cho_solve((factor, True), d * reduced.along, check_finite=False)
    left = max(reduced.left - float(reduced.along @ mean[reduced.seen]), LEAST)
    return _AtScales(of_columns, mean, factor, left)


def _drawn(
    at: _AtScales, reduced: _Reduced, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the noise's standard deviation, (draws,), and of the effects' deviations.

    These are from the posterior's mean at given scales, (draws, p).
    """
    noise = np.sqrt(at.left / rng.chisquare(reduced.degrees, draws))
    normal = rng.standard_normal((draws, len(at.scales)))
    seen = reduced.seen
    normal[:, seen] = solve_triangular(at.factor, normal[:, seen].T, trans="T", lower=True).T
    return noise, noise[:, None] * at.scales * normal
