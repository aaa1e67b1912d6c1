"""Bayesian linear regression in which each group of effects has a scale of its own.

    values = flat effects + effects of group 1 + effects of group 2 + ... + noise

Nothing is known of the flat effects beforehand. An effect of a group is normal around 0 with the
group's standard deviation, its scale, of which a half-Cauchy distribution as wide as the noise is
known beforehand. Scales are averaged over on a grid, by how well they explain the values; the noise
is integrated out. Everything is exact but the grid.

Sources: Christopher Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.5; Andrew
Gelman, "Prior distributions for variance parameters in hierarchical models", Bayesian Analysis
1(3), 2006, for the half-Cauchy.

The only library is numpy.
"""

import itertools
from dataclasses import dataclass

import numpy as np

SCALES = np.geomspace(0.06, 6, 7)
"""The scales of a group that are averaged over, in units of the noise's standard deviation."""


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

    `degrees` are those of freedom, `seen` the columns that any value has.
    """

    gram: np.ndarray
    along: np.ndarray
    left: float
    degrees: int
    group: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True, eq=False)
class _AtScales:
    """The posterior of the effects at given scales: mean, root of the covariance, evidence.

    `scales` are those of all columns, `root` is of the seen ones and in units of the noise's
    standard deviation, `left` is the sum of squares that nothing explains.
    """

    scales: np.ndarray
    mean: np.ndarray
    root: np.ndarray
    left: float
    evidence: float


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

    def sample(self, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(draws, f) flat effects and (draws, p) effects of all groups.

        Of flat effects that depend on each other only what the values determine is meant.
        """
        weights = np.exp(self.logs - self.logs.max())
        counts = rng.multinomial(draws, weights / weights.sum())
        chosen = [
            _sampled(_at(self.reduced, self.scales[i]), self.reduced, int(counts[i]), rng)
            for i in np.flatnonzero(counts)
        ]
        effects = np.concatenate([effects for effects, _ in chosen])
        noise = np.concatenate([noise for _, noise in chosen])
        return _flat(self.regression, effects, noise, rng), effects


def fit(regression: Regression) -> Posterior | None:
    """The posterior; None without a degree of freedom: then nothing is known of the noise."""
    reduced = _reduced(regression)
    if reduced.degrees < 1:
        return None
    scales = np.array(list(itertools.product(SCALES, repeat=len(regression.groups))))
    logs = np.array([_at(reduced, point).evidence for point in scales])
    return Posterior(regression, reduced, scales, logs)


def _reduced(regression: Regression) -> _Reduced:
    columns = np.concatenate(regression.groups, axis=1)
    sizes = [group.shape[1] for group in regression.groups]
    basis = _basis(regression.flat)
    x = columns - basis @ (basis.T @ columns)
    y = regression.values - basis @ (basis.T @ regression.values)
    return _Reduced(
        gram=x.T @ x,
        along=x.T @ y,
        left=float(y @ y),
        degrees=len(y) - basis.shape[1],
        group=np.repeat(np.arange(len(sizes)), sizes),
        seen=columns.any(axis=0),
    )


def _basis(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what these columns span."""
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, singular > 1e-9 * max(singular, default=1.0)])


def _at(reduced: _Reduced, scales: np.ndarray) -> _AtScales:
    seen, of_columns = reduced.seen, scales[reduced.group]
    d = of_columns[seen]
    scaled = np.eye(len(d)) + d[:, None] * reduced.gram[np.ix_(seen, seen)] * d
    lower = np.linalg.cholesky(scaled)
    root = d[:, None] * np.linalg.inv(lower).T
    mean = root @ (root.T @ reduced.along[seen])
    left = max(reduced.left - float(reduced.along[seen] @ mean), 1e-12)
    log_determinant = 2 * float(np.log(np.diag(lower)).sum())
    # A step of the grid is as long as its scale: the points are even in the logarithm.
    prior = float(np.sum(np.log(scales) - np.log1p(scales**2)))
    fit = -0.5 * log_determinant - 0.5 * reduced.degrees * np.log(left)
    return _AtScales(of_columns, mean, root, left, fit + prior)


def _sampled(
    at: _AtScales, reduced: _Reduced, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(draws, p) effects, and the (draws,) standard deviations of the noise that go with them."""
    noise = np.sqrt(at.left / rng.chisquare(reduced.degrees, draws))
    effects = at.scales * rng.standard_normal((draws, len(at.scales)))
    seen = reduced.seen
    effects[:, seen] = rng.standard_normal((draws, int(seen.sum()))) @ at.root.T
    effects *= noise[:, None]
    effects[:, seen] += at.mean
    return effects, noise


def _flat(
    regression: Regression, effects: np.ndarray, noise: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(draws, f) flat effects that go with these effects of the groups."""
    columns = np.concatenate(regression.groups, axis=1)
    inverse = np.linalg.pinv(regression.flat)
    left = regression.values - effects @ columns.T
    # The columns of `inverse` have the covariance of the estimate, the noise's variance apart.
    return np.asarray(left @ inverse.T) + noise[:, None] * (
        rng.standard_normal((len(effects), inverse.shape[1])) @ inverse.T
    )
