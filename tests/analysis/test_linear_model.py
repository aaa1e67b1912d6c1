"""The regression with groups of effects, against closed forms and simulations of known truth."""

import numpy as np
import pytest

from bam_search.analysis.linear_model import SCALES, Regression, _evidence, fit


def groups_of(n: int, k: int) -> np.ndarray:
    """(n * k, k) columns: n rows of each of k members."""
    return np.repeat(np.eye(k), n, axis=0)


def test_flat_effects_alone_are_the_least_squares_fit() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((30, 3))
    values = flat @ [1.0, -2.0, 3.0] + 0.3 * rng.standard_normal(30)
    posterior = fit(Regression(values, flat, (np.zeros((30, 1)),)))
    assert posterior is not None
    levels, effects = posterior.sample(4000, np.random.default_rng(1))
    solved, left, *_ = np.linalg.lstsq(flat, values, rcond=None)
    assert levels.mean(0) == pytest.approx(solved, abs=1e-9)
    # Student's t: the variance is that of the normal times 27 / 25.
    expected = left[0] / 27 * np.linalg.inv(flat.T @ flat) * 27 / 25
    assert np.cov(levels.T) == pytest.approx(expected, abs=0.1 * float(expected.max()))
    # Nothing was learnt of an effect that no value has.
    assert effects.mean() == pytest.approx(0, abs=1e-9)
    assert effects.std() > 0.1


def test_without_a_degree_of_freedom_nothing_is_known() -> None:
    assert fit(Regression(np.array([1.0, 2.0]), np.eye(2), (np.eye(2),))) is None


def test_many_equal_members_are_drawn_together_and_different_ones_are_not() -> None:
    rng = np.random.default_rng(2)
    columns = groups_of(4, 10)
    for sd, share in ((0.0, 0.3), (20.0, 0.99)):
        truth = sd * rng.standard_normal(10)
        values = columns @ truth + rng.standard_normal(40)
        posterior = fit(Regression(values, np.ones((40, 1)), (columns,)))
        assert posterior is not None
        _, effects = posterior.sample(2000, np.random.default_rng(3))
        means = values.reshape(10, 4).mean(1)
        kept = effects.mean(0).std() / means.std()
        assert (kept < share) if sd == 0 else (kept > share)


def test_each_group_has_its_own_scale() -> None:
    rng = np.random.default_rng(4)
    first, second = groups_of(6, 12), np.tile(np.eye(6), (12, 1))
    values = first @ (10 * rng.standard_normal(12)) + rng.standard_normal(72)
    posterior = fit(Regression(values, np.ones((72, 1)), (first, second)))
    assert posterior is not None
    _, effects = posterior.sample(2000, np.random.default_rng(5))
    assert effects[:, :12].mean(0).std() > 5
    assert effects[:, 12:].std() < 1


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(6)
    columns, hits = groups_of(3, 12), []
    for _ in range(150):
        truth = rng.standard_normal(12)
        values = columns @ truth + rng.standard_normal(36)
        posterior = fit(Regression(values, np.ones((36, 1)), (columns,)))
        assert posterior is not None
        _, effects = posterior.sample(500, rng)
        low, high = np.quantile(effects[:, 1:] - effects[:, [0]], [0.05, 0.95], axis=0)
        gaps = truth[1:] - truth[0]
        hits.append(((low <= gaps) & (gaps <= high)).mean())
    assert 0.86 <= np.mean(hits) <= 0.94


def test_the_evidence_prefers_the_right_weights() -> None:
    # Twenty values with ten times the noise of the others: to weigh them down explains more.
    rng = np.random.default_rng(7)
    noise = np.repeat([1.0, 10.0], 20)
    values = noise * rng.standard_normal(40)
    columns = np.tile(np.eye(4), (10, 1))

    def evidence(ratio: float) -> float:
        weights = np.repeat([1.0, 1 / ratio], 20)
        flat = weights[:, None] * np.ones((40, 1))
        posterior = fit(Regression(weights * values, flat, (weights[:, None] * columns,)))
        assert posterior is not None
        return posterior.evidence + float(np.log(weights).sum())

    assert evidence(10) > evidence(3) > evidence(1)
    assert evidence(10) > evidence(40)


def test_scales_reach_from_nothing_to_far_beyond_the_noise() -> None:
    assert SCALES[0] < 0.1
    assert SCALES[-1] > 30


def test_what_a_left_out_block_is_missed_by_is_what_a_fit_without_it_misses() -> None:
    """At fixed scales; the formula fits nothing again."""
    rng = np.random.default_rng(5)
    flat = np.eye(2)[rng.integers(2, size=24)]
    group = rng.standard_normal((24, 4))
    values = flat @ [3.0, -1.0] + group @ rng.standard_normal(4) + rng.standard_normal(24)
    blocks = np.arange(24) // 3
    posterior = fit(Regression(values, flat, (group,)))
    assert posterior is not None
    scale = posterior.scales[posterior.logs.argmax()][0]
    missed, missed_by_mean = [], []
    for block in range(8):
        out, kept = blocks == block, blocks != block
        # Flat effects are all but free.
        x = np.concatenate([1e6 * flat, scale * group], axis=1)
        solved = np.linalg.solve(np.eye(6) + x[kept].T @ x[kept], x[kept].T @ values[kept])
        missed += list(values[out] - x[out] @ solved)
        levels = np.linalg.lstsq(flat[kept], values[kept], rcond=None)[0]
        missed_by_mean += list(values[out] - flat[out] @ levels)
    error, error_of_mean = posterior.left_out(blocks)
    assert error == pytest.approx(np.sqrt(np.mean(np.square(missed))), rel=1e-5)
    assert error_of_mean == pytest.approx(np.sqrt(np.mean(np.square(missed_by_mean))))
    assert error < error_of_mean


def test_points_of_the_grid_that_are_not_looked_at_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    groups = (groups_of(12, 10), rng.standard_normal((120, 5)))
    values = groups[0] @ rng.normal(0, 3, 10) + 0.1 * rng.standard_normal(120)
    posterior = fit(Regression(values, np.ones((120, 1)), groups))
    assert posterior is not None
    skipped = np.isinf(posterior.logs)
    assert skipped.any()
    whole = _evidence(posterior.reduced, posterior.scales)
    assert whole[~skipped] == pytest.approx(posterior.logs[~skipped])
    assert np.exp(whole[skipped] - whole.max()).sum() < 1e-4
