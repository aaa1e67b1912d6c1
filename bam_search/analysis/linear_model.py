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
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

SCALES = np.geomspace(0.08, 40, 8)
"""The scales of a group that are averaged over, in units of the noise's standard deviation."""
PAIRS = 2000
"""Half the number of draws that intervals are made of."""
CHUNK = 1 << 19
"""So many numbers of matrices are computed at a time: they stay in a cache."""
UNLIKELY = 16.0
"""Around a point of the grid that is less likely than the best by e to this, none is looked at."""
LEAST = 1e-12
"""No sum of squares is taken to be smaller than this, so that its logarithm is finite."""
LEAST_REST = 1e-9
"""Of a block that others determine no less than this share is left when it is left out."""
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
        columns = np.concatenate(self.regression.groups, axis=1)
        inverse = np.linalg.pinv(self.regression.flat).T
        flat, effects = [], []
        for mean, noise, deviations in self._draws(pairs, rng):
            normal = rng.standard_normal((len(noise), len(self.regression.values)))
            for sign in (1, -1):
                of_groups = mean + sign * deviations
                effects.append(of_groups)
                # The noise goes through the estimate of the flat effects as the values do.
                left = self.regression.values - of_groups @ columns.T
                flat.append((left + sign * noise[:, None] * normal) @ inverse)
        return np.concatenate(flat), np.concatenate(effects)

    def sample_groups(self, pairs: int, rng: np.random.Generator) -> np.ndarray:
        """(2 * pairs, p) draws of the effects of all groups, as `sample` makes them."""
        draws = self._draws(pairs, rng)
        return np.concatenate(
            [mean + sign * deviations for mean, _, deviations in draws for sign in (1, -1)]
        )

    def _draws(
        self, pairs: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the effects' mean at each scale that has draws, the noise, and the deviations."""
        weights = np.exp(self.logs - self.logs.max())
        ends = np.round(pairs * np.cumsum(weights / weights.sum())).astype(int)
        counts = np.diff(ends, prepend=0)
        for i in np.flatnonzero(counts):
            at = _at(self.reduced, self.scales[i])
            yield at.mean, *_drawn(at, self.reduced, int(counts[i]), rng)

    def left_out(self, blocks: np.ndarray) -> tuple[float, float]:
        """How well the values of a block are predicted from those of all other blocks.

        Returns the root mean squares of what is missed, by all effects at their likeliest scales
        and by the flat effects alone. `blocks` is (n,) the number of each value's block.

        Nothing is fitted again: what a linear smoother misses of values that are left out follows
        from its hat matrix. Source: Trevor Hastie, Robert Tibshirani, Jerome Friedman, "The
        Elements of Statistical Learning", 2009, section 7.10.
        """
        basis = _basis(self.regression.flat)
        columns = np.concatenate(self.regression.groups, axis=1)[:, self.reduced.seen]
        scales = self.scales[self.logs.argmax()][self.reduced.group][self.reduced.seen]
        x = (columns - basis @ (basis.T @ columns)) * scales
        factor = np.linalg.cholesky(np.eye(x.shape[1]) + x.T @ x)
        scores = solve_triangular(factor, x.T, lower=True).T
        values = self.regression.values - basis @ (basis.T @ self.regression.values)
        left = values - scores @ (scores.T @ values)
        both = np.concatenate([basis, scores], axis=1)
        return _missed(left, both, blocks), _missed(values, basis, blocks)


def _missed(left: np.ndarray, hat: np.ndarray, blocks: np.ndarray) -> float:
    """The root mean square of residuals of left-out blocks, from all residuals; hat @ hat.T fits.

    Values that nothing but their own block determines are left out of it.
    """
    rest = 1 - (hat**2).sum(1)
    sizes = np.bincount(blocks)
    alone = (sizes[blocks] == 1) & (rest > LEAST_REST)
    squares = [(left[alone] / rest[alone]) ** 2]
    for block in np.flatnonzero(sizes > 1):
        rows = np.flatnonzero(blocks == block)
        of_others = np.eye(len(rows)) - hat[rows] @ hat[rows].T
        if np.linalg.eigvalsh(of_others)[0] > LEAST_REST:
            squares.append(np.linalg.solve(of_others, left[rows]) ** 2)
    together = np.concatenate(squares)
    return float(np.sqrt(together.mean())) if len(together) else 0.0


def fit(regression: Regression) -> Posterior | None:
    """The posterior; None without a degree of freedom: then nothing is known of the noise."""
    reduced = _reduced(regression)
    if reduced.degrees < 1:
        return None
    steps = np.array(list(itertools.product(range(len(SCALES)), repeat=len(regression.groups))))
    logs = _evidences(reduced, steps)
    return Posterior(regression, reduced, SCALES[steps], logs)


def _evidences(reduced: _Reduced, steps: np.ndarray) -> np.ndarray:
    """The evidence of each point of the grid, -inf where it is too small to matter.

    Every second point along each scale says around which of them the others matter.
    """
    logs = np.full(len(steps), -np.inf)
    coarse = (steps % 2 == 0).all(axis=1)
    logs[coarse] = _evidence(reduced, SCALES[steps[coarse]])
    likely = steps[logs > logs.max() - UNLIKELY]
    near = (np.abs(steps[:, None] - likely[None]) <= 1).all(axis=2).any(axis=1) & ~coarse
    logs[near] = _evidence(reduced, SCALES[steps[near]])
    return logs


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
    columns = reduced.group[reduced.seen]
    size = max(1, CHUNK // (len(columns) + 1) ** 2)
    parts = [
        _explained(reduced, scales[i : i + size, columns]) for i in range(0, len(scales), size)
    ]
    explained, log_determinants = np.concatenate([np.zeros((2, 0)), *parts], axis=1)
    left = np.maximum(reduced.left - explained, LEAST)
    # A step of the grid is as long as its scale: the points are even in the logarithm.
    prior = np.sum(np.log(scales) - np.log1p((scales / WIDTH) ** 2), axis=1)
    return np.asarray(prior - 0.5 * log_determinants - 0.5 * reduced.degrees * np.log(left))


def _explained(reduced: _Reduced, d: np.ndarray) -> np.ndarray:
    """(2, g): the explained sum of squares at each (g, p) scales, and the precision's log det."""
    p = d.shape[1]
    # The last row of the factor of the precision and of what is to be solved is the solution.
    whole = np.empty((len(d), p + 1, p + 1))
    whole[:, :p, :p] = _precision(reduced, d)
    whole[:, p, :p] = d * reduced.along
    whole[:, p, p] = 2 * reduced.left + 1
    factors = np.linalg.cholesky(whole)
    diagonal = np.diagonal(factors, axis1=1, axis2=2)[:, :p]
    return np.stack([(factors[:, p, :p] ** 2).sum(1), 2 * np.log(diagonal).sum(1)])


def _precision(reduced: _Reduced, d: np.ndarray) -> np.ndarray:
    """(..., p, p) precisions of the seen columns' effects, each in units of its scale (..., p)."""
    precision = reduced.gram * d[..., :, None]
    precision *= d[..., None, :]
    np.einsum("...ii->...i", precision)[...] += 1
    return np.asarray(precision)


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
