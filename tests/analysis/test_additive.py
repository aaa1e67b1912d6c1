"""The additive model and its encoder.

Placements become arrays and come back, known effects are found, and intervals cover what they
state.
"""

import itertools

import numpy as np
import pytest
from invented import PLAN, SITES

from bam_search.analysis.additive import (
    OPTION_SCALE,
    SCALES,
    AdditiveModel,
    PlacementEncoder,
    fit,
)
from bam_search.model.attach import resolve
from bam_search.space.placement import Choice, Placement

CHOICE_SPACE = PLAN.choice_space
DESIGN = PlacementEncoder.of(CHOICE_SPACE)


def vectors(n: int, rng: np.random.Generator) -> np.ndarray:
    """Random placements, each site taken or not."""
    sizes = [len(choices) + 1 for choices in DESIGN.choices]
    chosen = np.stack([rng.integers(1, size, n) for size in sizes], axis=1)
    return chosen * (rng.random(chosen.shape) < 0.5)


def simulated(
    n: int, rng: np.random.Generator, scale: float, sd: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects drawn from the model's own prior, placements, and their errors."""
    effects = rng.normal(0, sd * scale**0.5, len(DESIGN.names))
    chosen = vectors(n, rng)
    return effects, chosen, 75 + DESIGN.features(chosen) @ effects + rng.normal(0, sd, n)


def sampled(learned: AdditiveModel, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, features) draws of all effects from the posterior."""
    which = rng.choice(len(SCALES), n, p=learned.weights)
    noise = learned.noise[which] * learned.degrees / rng.chisquare(learned.degrees, n)
    normal = rng.standard_normal((n, learned.vectors.shape[0]))
    deviations = np.sqrt(learned.variances[which] * noise[:, None])
    along_eigenvectors = learned.means[which] + normal * deviations
    return np.asarray(along_eigenvectors @ learned.vectors.T)


def posterior_mean(learned: AdditiveModel) -> np.ndarray:
    """The mean of every effect, over all prior scales."""
    return learned.weights @ learned.means @ learned.vectors.T


def test_every_choice_at_every_site_survives_the_round_trip() -> None:
    # Of 32, 64 and 128 channels, r leaves 2 or more: 3 to 5 values. The smallest maps leave no
    # room for d = 6.
    assert [len(choices) for choices in DESIGN.choices] == [12, 12, 16, 16, 15, 15]
    for i, choices in enumerate(DESIGN.choices):
        for j in range(1, len(choices) + 1):
            vector = np.zeros(6, dtype=int)
            vector[i] = j
            written = DESIGN.placement(vector)
            canonical = resolve(written, SITES)
            for placement in (written, canonical, Placement.parse(canonical.text)):
                found = DESIGN.vector(placement)
                assert found is not None
                assert found.tolist() == vector.tolist()


def test_canonical_text_drops_defaults_and_the_vector_knows_them() -> None:
    canonical = resolve("layer1=bam(r=16,d=4,n=2)", SITES)
    assert canonical.text == "layer1=bam"
    found = DESIGN.vector(canonical)
    assert found is not None
    assert dict(DESIGN.choices[DESIGN.sites.index("layer1")][found.max() - 1].options) == {
        "r": 16,
        "d": 4,
    }


def test_placements_of_several_sites_survive_the_round_trip() -> None:
    for vector in vectors(100, np.random.default_rng(0)):
        found = DESIGN.vector(resolve(DESIGN.placement(vector), SITES))
        assert found is not None
        assert found.tolist() == vector.tolist()
    assert DESIGN.placement([0] * 6) == Placement()


@pytest.mark.parametrize(
    "text",
    [
        "layer1=se",
        "layer1=bam(r=2)",
        "layer1=bam(n=3)",
        "layer1.0.bn1=bam",
        "layer3=bam layer1=bam(end_bn=false)",
    ],
)
def test_what_is_not_in_the_choice_space_has_no_vector(text: str) -> None:
    assert DESIGN.vector(resolve(text, SITES)) is None


def test_features_add_up_and_options_are_coded_around_their_mean() -> None:
    one = DESIGN.features(np.eye(6, dtype=int))
    assert DESIGN.features(np.ones((1, 6), dtype=int))[0] == pytest.approx(one.sum(0))
    assert (DESIGN.features(np.zeros((1, 6), dtype=int)) == 0).all()
    # Over all choices of a site the options' effects cancel: what is left is the module's.
    at = {name: i for i, name in enumerate(DESIGN.names)}
    average = DESIGN.rows[0][1:].mean(0)
    assert average[at["bam"]] == average[at[f"{DESIGN.sites[0]}=bam"]] == 1
    assert average[[i for name, i in at.items() if "(" in name]] == pytest.approx(0)


def test_known_effects_are_recovered_from_noisy_errors() -> None:
    rng = np.random.default_rng(0)
    truth = {"layer1": -3.0, "layer2": 0.0, "layer3": 2.0}
    chosen = vectors(150, rng)

    def error(vector: np.ndarray) -> float:
        total = 75.0
        for site, choice in DESIGN.placement(vector).choices:
            total += (
                truth.get(site, -1.0)
                + {4: -0.8, 8: -0.3, 16: 0.1, 32: 0.4, 64: 0.6}[int(dict(choice.options)["r"])]
            )
        return total + rng.normal(0, 0.4)

    learned = fit(DESIGN, chosen, np.array([error(vector) for vector in chosen]))
    at = dict(zip(DESIGN.names, posterior_mean(learned), strict=True))
    for site in DESIGN.sites:
        effect = at["bam"] + at[f"{site}=bam"]
        assert effect == pytest.approx(truth.get(site, -1.0), abs=0.3)
    # r = 64 is legal at one site only, so little is known of it.
    found = [OPTION_SCALE * at[f"bam(r={r})"] for r in (4, 8, 16, 32)]
    assert np.diff(found) == pytest.approx([0.5, 0.4, 0.3], abs=0.25)
    assert learned.loo_rmse == pytest.approx(0.4, abs=0.15)
    # The placement of least error is one that is best in truth.
    best = learned.predict(DESIGN.features(chosen)).argmin()
    assert chosen[best][DESIGN.sites.index("layer1")] > 0


def test_left_out_is_what_leaving_out_finds() -> None:
    rng = np.random.default_rng(3)
    _, chosen, errors = simulated(30, rng, scale=4.0)
    learned = fit(DESIGN, chosen, errors)
    plain, refitted = [], []
    for i in range(30):
        rest = np.arange(30) != i
        without = fit(DESIGN, chosen[rest], errors[rest])
        plain.append(errors[i] - errors[rest].mean())
        refitted.append(errors[i] - without.predict(DESIGN.features(chosen[i : i + 1]))[0])
    assert learned.loo_rmse_of_mean == pytest.approx(np.sqrt(np.mean(np.square(plain))))
    assert learned.loo_rmse == pytest.approx(np.sqrt(np.mean(np.square(refitted))), rel=0.15)


def test_a_model_predicts_what_it_has_not_seen_where_there_is_something_to_learn() -> None:
    rng = np.random.default_rng(4)
    with_signal = [fit(DESIGN, *simulated(40, rng, scale=9.0)[1:]) for _ in range(20)]
    assert all(learned.loo_rmse < 0.8 * learned.loo_rmse_of_mean for learned in with_signal)
    without = [fit(DESIGN, *simulated(40, rng, scale=0.0)[1:]) for _ in range(20)]
    shares = [learned.loo_rmse / learned.loo_rmse_of_mean for learned in without]
    assert np.mean(shares) == pytest.approx(1, abs=0.06)
    assert max(abs(share - 1) for share in shares) < 0.25


def test_a_quarter_four_times_is_one_whole() -> None:
    _, chosen, errors = simulated(20, np.random.default_rng(6), scale=2.0)
    once = fit(DESIGN, chosen, errors)
    quarters = fit(DESIGN, np.repeat(chosen, 4, axis=0), np.repeat(errors, 4), np.full(80, 0.25))
    assert quarters.mean_value == pytest.approx(once.mean_value)
    assert quarters.mean_row == pytest.approx(once.mean_row)
    for i in range(len(SCALES)):
        assert quarters.means[i] @ quarters.vectors.T == pytest.approx(
            once.means[i] @ once.vectors.T, abs=1e-9
        )


def test_a_quarter_four_times_is_one_whole_also_over_all_scales() -> None:
    _, chosen, errors = simulated(20, np.random.default_rng(6), scale=2.0)
    quarters = fit(DESIGN, np.repeat(chosen, 4, axis=0), np.repeat(errors, 4), np.full(80, 0.25))
    assert posterior_mean(quarters) == pytest.approx(
        posterior_mean(fit(DESIGN, chosen, errors)), abs=1e-9
    )


def test_a_record_of_little_weight_moves_little() -> None:
    _, chosen, errors = simulated(20, np.random.default_rng(7), scale=2.0)
    wild = errors + np.eye(20)[0] * 50
    weights = np.ones(20)

    def moved(weight: float) -> float:
        weights[0] = weight
        return float(
            np.abs(
                posterior_mean(fit(DESIGN, chosen, wild, weights))
                - posterior_mean(fit(DESIGN, chosen[1:], errors[1:]))
            ).max()
        )

    assert moved(1e-6) < 0.05
    assert moved(1e-6) < moved(0.1) < moved(1.0)


@pytest.mark.parametrize("n", [3, 4, 30])
def test_poor_data_give_finite_numbers(n: int) -> None:
    same = np.repeat(vectors(1, np.random.default_rng(8)), n, axis=0)
    for chosen, errors in itertools.product(
        (same, vectors(n, np.random.default_rng(9))), (np.full(n, 75.0), 75 + np.arange(n) * 1.0)
    ):
        learned = fit(DESIGN, chosen, errors)
        effects = sampled(learned, 50, np.random.default_rng(10))
        assert np.isfinite([learned.loo_rmse, learned.loo_rmse_of_mean]).all()
        assert np.isfinite(effects).all()


def test_a_choice_space_of_several_modules_has_choices_of_each() -> None:
    modules = {"one": {"bam": {"r": (4, 8)}, "se": {"r": (16,)}}, "two": {"se": {"r": (16,)}}}
    choice_space = type(CHOICE_SPACE)(modules, {"bam": {"r": 16, "d": 4}, "se": {"r": 16}})
    encoder = PlacementEncoder.of(choice_space)
    assert encoder.choices == (
        (Choice.of("bam", {"r": 4}), Choice.of("bam", {"r": 8}), Choice.of("se", {"r": 16})),
        (Choice.of("se", {"r": 16}),),
    )


def test_how_unsure_a_value_is_is_what_draws_of_the_effects_show() -> None:
    rng = np.random.default_rng(4)
    _, chosen, values = simulated(40, rng, scale=1.0)
    learned = fit(DESIGN, chosen, values)
    features = DESIGN.features(vectors(5, rng))
    drawn = (features - learned.mean_row) @ sampled(learned, 20_000, rng).T
    # Student's t has longer tails than the normal of the same scale.
    longer = np.sqrt(learned.degrees / (learned.degrees - 2))
    assert drawn.std(1) / longer == pytest.approx(learned.deviation(features), rel=0.05)
