"""The effects of sites and options, from records of known truth."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_record

from bam_search.analysis.additive import PlacementEncoder
from bam_search.analysis.effects import (
    VALIDATION_NOISE,
    Effect,
    SiteEffects,
    SiteModel,
    _Measured,
    _posterior,
)
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import WARM_START, Record

CHOICE_SPACE = ChoiceSpace(
    {f"layer{i}": {"bam": {"r": (4, 16), "d": (1, 4)}} for i in range(1, 4)},
    {"bam": {"r": 16, "d": 4}},
)
DESIGN = PlacementEncoder.of(CHOICE_SPACE)
Truth = dict[str, float]


def vectors(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) choices at random, all different, each site with attention in about half of them."""
    many = rng.integers(1, 5, (20 * n, 3)) * (rng.random((20 * n, 3)) < 0.5)
    return rng.permutation(np.unique(many, axis=0))[:n]


def drawn_truth(rng: np.random.Generator, sd: float) -> Truth:
    """An effect of each site and of r = 4 and d = 1 (those of the other values are opposite)."""
    names = [*(f"{site}=bam" for site in DESIGN.sites), "bam(r=4)", "bam(d=1)"]
    sizes = [sd] * 3 + [sd / 3] * 2
    return {name: size * rng.standard_normal() for name, size in zip(names, sizes, strict=True)}


def value(truth: Truth, vector: Sequence[int]) -> float:
    """The expected value of a placement."""
    total = 70.0
    for site, choice in DESIGN.placement(vector).choices:
        options = dict(choice.options)
        total += truth[f"{site}=bam"]
        total += truth["bam(r=4)"] * (1 if options["r"] == 4 else -1)
        total += truth["bam(d=1)"] * (1 if options["d"] == 1 else -1)
    return total


def study(
    truth: Truth, chosen: np.ndarray, rng: np.random.Generator, val: float, test: float, seeds: int
) -> list[Record]:
    """Records with this noise; the first six have finals, of seeds that shift all alike."""
    levels = rng.normal(0, 2, seeds)
    records = []
    for number, vector in enumerate(chosen):
        true = value(truth, vector)
        placement = DESIGN.placement(vector)
        fields: dict[str, object] = {"placement": placement.text, "id": placement.id}
        if number < 6 and seeds:
            fields["test_metrics"] = tuple(true + 3 + levels + rng.normal(0, test, seeds))
            fields["test_seeds"] = tuple(range(seeds))
        records.append(make_record(number, true + rng.normal(0, val), 1.0, **fields))
    return records


def site_effects(records: Sequence[Record], choice_space: ChoiceSpace) -> SiteEffects | None:
    model = SiteModel.of(records, choice_space)
    return None if model is None else model.effects


def by_name(found: SiteEffects | None) -> dict[str, Effect]:
    assert found is not None
    return {effect.name: effect for effect in found.effects}


def test_known_effects_are_recovered() -> None:
    rng = np.random.default_rng(0)
    truth = {"layer1=bam": -3.0, "layer2=bam": 0.0, "layer3=bam": 2.0}
    truth |= {"bam(r=4)": -0.8, "bam(d=1)": 0.0}
    records = study(truth, vectors(100, rng), rng, 0.4, 0.4, 0)
    found = by_name(site_effects(records, CHOICE_SPACE))
    for name, true in truth.items():
        assert found[name].mean == pytest.approx(true, abs=0.3)
        assert found[name].low < found[name].mean < found[name].high
    assert found["bam(r=16)"].mean == pytest.approx(-found["bam(r=4)"].mean)


def test_effects_count_the_placements_that_have_them() -> None:
    texts = [
        "layer1=bam(r=4,d=1)",
        "layer1=bam(r=4) layer2=bam(r=4)",
        "layer2=bam(r=16,d=1) layer3=bam(r=4,d=1)",
        "none",
        "layer3=bam(d=1)",
        "layer3=bam",
    ]
    records = [
        make_record(i, 70.0 + i, 1.0, placement=text, id=text) for i, text in enumerate(texts)
    ]
    found = by_name(site_effects(records, CHOICE_SPACE))
    counts = {name: effect.records for name, effect in found.items()}
    assert counts == {
        "layer1=bam": 2,
        "layer2=bam": 2,
        "layer3=bam": 3,
        "bam(r=4)": 3,
        "bam(r=16)": 3,
        "bam(d=1)": 3,
        "bam(d=4)": 2,
    }
    assert site_effects(records[:5], CHOICE_SPACE) is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, hits = np.random.default_rng(1), []
    for _ in range(25):
        truth = drawn_truth(rng, 0.5)
        records = study(truth, vectors(24, rng), rng, 0.8, 0.4, 3)
        found = by_name(site_effects(records, CHOICE_SPACE))
        hits += [found[name].low <= true <= found[name].high for name, true in truth.items()]
    assert 0.84 <= np.mean(hits) <= 0.97


def test_final_trainings_make_effects_surer_and_their_level_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    truth = drawn_truth(rng, 1.0)
    # What is tested tells the sites apart.
    tested = [[1, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 0], [1, 2, 0], [0, 2, 4]]
    rest = [row for row in vectors(24, rng).tolist() if row not in tested]
    chosen = np.array([*tested, *rest])[:24]
    with_finals = study(truth, chosen, rng, 1.5, 0.2, 5)
    alone = [
        make_record(r.number, r.val_metric, 1.0, placement=r.placement, id=r.id)
        for r in with_finals
    ]
    surer, once = (site_effects(records, CHOICE_SPACE) for records in (with_finals, alone))
    assert surer is not None
    assert once is not None
    assert (surer.trainings, once.trainings) == (24 + 30, 24)
    assert width(surer) < 0.6 * width(once)
    shift = np.array([5.0, -3.0, 0.0, 8.0, 1.0])
    moved = [
        make_record(
            r.number,
            r.val_metric,
            1.0,
            placement=r.placement,
            id=r.id,
            test_metrics=tuple(r.test_metrics + shift) if r.test_metrics else (),
            test_seeds=r.test_seeds,
        )
        for r in with_finals
    ]
    for one, other in zip(
        surer.effects, by_name(site_effects(moved, CHOICE_SPACE)).values(), strict=True
    ):
        assert (one.low, one.high) == (pytest.approx(other.low), pytest.approx(other.high))


def width(found: SiteEffects) -> float:
    """The mean width of the intervals of sites."""
    return float(np.mean([e.high - e.low for e in found.effects if "(" not in e.name]))


@pytest.mark.parametrize("seed", range(8))
def test_the_noise_of_validations_is_the_likeliest_one(seed: int) -> None:
    """Of placements without attention, so that only two levels and the noise are unknown."""
    rng = np.random.default_rng(seed)
    values, validated = rng.normal(0, 1, 14), np.arange(14) < 9
    levels = np.column_stack([validated, ~validated]).astype(float)
    vectors = np.zeros((14, 3), dtype=np.int64)
    posterior = _posterior(DESIGN, _Measured(values, vectors, levels, validated))
    assert posterior

    def likelihood(ratio: float) -> float:
        """By the textbook: flat levels and the size of the noise integrated out."""
        covariance = np.diag(np.where(validated, ratio**2, 1.0))
        inverse = np.linalg.inv(covariance)
        normal = levels.T @ inverse @ levels
        rest = values - levels @ np.linalg.solve(normal, levels.T @ inverse @ values)
        parts = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(normal)[1]
        return float(-0.5 * parts - (14 - 2) / 2 * np.log(rest @ inverse @ rest))

    chosen = 1 / posterior.regression.flat[0, 0]
    assert chosen == pytest.approx(max(VALIDATION_NOISE, key=likelihood))


def test_options_that_do_not_matter_do_not_make_sites_alike() -> None:
    rng = np.random.default_rng(3)
    truth = {"layer1=bam": -2.0, "layer2=bam": 0.0, "layer3=bam": 2.0}
    truth |= {"bam(r=4)": 0.0, "bam(d=1)": 0.0}
    found = by_name(site_effects(study(truth, vectors(40, rng), rng, 0.4, 0.4, 0), CHOICE_SPACE))
    assert found["layer1=bam"].high < -1
    assert found["layer3=bam"].low > 1
    assert abs(found["bam(r=4)"].mean) < 0.1


def test_several_modules_have_an_effect_each_at_each_site() -> None:
    modules = {"one": {"bam": {"r": (4, 8)}, "se": {"r": (16,)}}, "two": {"se": {"r": (16,)}}}
    space = type(CHOICE_SPACE)(modules, {"bam": {"r": 16, "d": 4}, "se": {"r": 16}})
    encoder = PlacementEncoder.of(space)
    records = []
    for number, vector in enumerate(itertools.product(range(4), range(2))):
        placement = encoder.placement(vector)
        error = 75 - 2.0 * (vector[0] == 3) - (vector[1] == 1) + 0.01 * (number % 3)
        records.append(make_record(number, error, 1.0, placement=placement.text, id=placement.id))
    effects = by_name(site_effects(records, space))
    # An option of one value has no effect of its own.
    assert list(effects) == ["one=bam", "one=se", "two=se", "bam(r=4)", "bam(r=8)"]
    assert [effect.records for effect in effects.values()] == [4, 2, 4, 2, 2]
    assert effects["one=se"].mean < effects["two=se"].mean < 0


def test_records_that_say_nothing_give_finite_numbers() -> None:
    same = [make_record(i, 70.0, 1.0, placement="layer1=bam", id=str(i)) for i in range(8)]
    found = site_effects(same, CHOICE_SPACE)
    assert found is not None
    ends = [end for effect in found.effects for end in (effect.low, effect.mean, effect.high)]
    assert np.isfinite(ends).all()


def test_it_is_said_whether_the_model_predicts_better_than_the_mean() -> None:
    rng = np.random.default_rng(7)
    chosen = vectors(40, rng)
    strong = study(drawn_truth(rng, 3.0), chosen, rng, 0.3, 0.3, 2)
    told = site_effects(strong, CHOICE_SPACE)
    assert told is not None
    assert told.predicts
    assert told.error < 0.5 * told.error_of_mean
    silent = [
        not found.predicts
        for _ in range(6)
        if (found := site_effects(study(NOTHING, chosen, rng, 1.0, 1.0, 0), CHOICE_SPACE))
    ]
    assert any(silent)


NOTHING = dict.fromkeys((*(f"{site}=bam" for site in DESIGN.sites), "bam(r=4)", "bam(d=1)"), 0.0)


def test_an_effect_is_told_where_its_interval_has_no_zero() -> None:
    assert Effect("layer1=bam", -1.0, -2.0, -0.1, 3).is_told
    assert not Effect("layer1=bam", -1.0, -2.0, 0.1, 3).is_told
    assert Effect("a=b=bam", 1.0, 0.5, 2.0, 3).place == ("a=b", "bam")
    assert Effect("bam(r=4)", 1.0, 0.5, 2.0, 3).is_of_option


def test_validations_of_warm_starts_do_not_count() -> None:
    rng = np.random.default_rng(0)
    truth = drawn_truth(rng, 2.0)
    records = study(truth, vectors(10, rng), rng, 0.1, 0.1, 3)
    warm = [replace(record, scoring=WARM_START) for record in records]
    luckier = [replace(record, val_metric=50.0 + record.number) for record in warm]
    found = site_effects(warm, CHOICE_SPACE)
    assert found == site_effects(luckier, CHOICE_SPACE)
    assert found is not None
    # Six placements have finals, of three seeds each.
    assert (found.records, found.trainings) == (6, 18)
    assert site_effects(warm[6:], CHOICE_SPACE) is None
