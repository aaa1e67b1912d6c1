"""The benchmark of simulated studies: its draws of truth, its arithmetic, and a study or two."""

import json
import statistics

import numpy as np
import pytest

from bam_search.analysis.additive import PlacementEncoder
from bam_search.space.search_space import ChoiceSpace
from benchmarks import simulated
from benchmarks.known_truth import BARE, Parts, Truth
from benchmarks.simulated import Chance, Claim, Figure, Outcome, Pick, Setting
from benchmarks.told import Said

SITES = {"a": {"bam": {"r": (4, 16), "d": (1, 2)}}, "b": {"bam": {"r": (4, 16), "d": (1,)}}}
ENCODER = PlacementEncoder.of(ChoiceSpace(SITES, defaults={"bam": {"r": 16, "d": 1}}))
EVERY = np.array([[i, j] for i in range(5) for j in range(3)])


def truth(sd: float, **parts: float) -> Truth:
    return Truth.draw(ENCODER, EVERY, sd, Parts(**parts), number=3)


def errors(of: Truth) -> list[float]:
    return [of.error(ENCODER.placement(vector).text) for vector in EVERY]


def test_a_truth_has_the_wanted_spread() -> None:
    assert statistics.pstdev(errors(truth(0.4, placement=0))) == pytest.approx(0.4)
    assert set(errors(truth(0))) == {BARE}
    assert truth(0.4).error("none") == BARE
    assert truth(0.4).error("a=se") != BARE


def test_true_effects_are_those_of_the_sum() -> None:
    of = truth(0.4, choice=0, placement=0)
    effects = of.effects()
    at_a = [of.error(f"a=bam(r={r},d={d})") - BARE for r in (4, 16) for d in (1, 2)]
    assert effects["a=bam"] == pytest.approx(statistics.fmean(at_a))
    half = (of.error("b=bam(r=4,d=1)") - of.error("b=bam(r=16,d=1)")) / 2
    assert effects["bam(r=4)"] == pytest.approx(half)
    assert effects["bam(r=16)"] == pytest.approx(-half)


@pytest.mark.parametrize(
    ("verdict", "true", "false_better", "false_worse"),
    [
        ("better", -0.1, False, False),
        ("better", 0.0, True, False),
        ("better", 0.1, True, False),
        ("worse", -0.1, False, True),
        ("worse", 0.0, False, True),
        ("worse", 0.1, False, False),
        ("tie", 0.1, False, False),
    ],
)
def test_a_claim_is_false_where_it_is_not_so(
    verdict: str, true: float, false_better: bool, false_worse: bool
) -> None:
    claim = Claim("answers", verdict, true)
    assert (claim.is_false("better"), claim.is_false("worse")) == (false_better, false_worse)


def test_the_summary_counts_studies() -> None:
    wrong = Outcome(
        (Claim("answers", "better", 0.1), Claim("answers", "better", -0.1)),
        (Figure("metric", Said(79.0, 78.0, 79.5), 80.0),),
        (Pick("recommended", 0.2, True, True),),
        (Chance(0.93, True), Chance(1.0, False)),
        (Chance(0.85, True),),
    )
    silent = Outcome(
        (),
        (
            Figure("metric", Said(80.0, 79.0, 81.0), 80.0),
            Figure("metric", Said(80, None, None), 80),
        ),
        (Pick("recommended", None, False, False),),
        (Chance(0.0, False),),
        (),
    )
    found = simulated.summary([wrong, silent])
    assert found["false_claims"]["answers"]["false better"]["share"] == 0.5
    assert found["false_claims"]["recommended"]["any better"]["share"] == 0
    metric = found["told"]["metric"]
    assert metric["bias"]["mean"] == pytest.approx(-1 / 3)
    assert (metric["coverage_90"]["mean"], metric["coverage_90"]["n"]) == (0.5, 2)
    assert metric["width"] == pytest.approx(1.75)
    choice = found["choice"]["recommended"]
    assert (choice["regret"]["mean"], choice["regret"]["n"]) == (0.2, 1)
    assert choice["not no attention"]["share"] == choice["nothing"]["share"] == 0.5
    assert [(row["told"], row["true"]["n"]) for row in found["chances"]] == [
        (0.0, 1),
        (pytest.approx(0.965), 2),
    ]
    assert [(row["told"], row["true"]["share"]) for row in found["expected"]] == [(0.85, 1.0)]


def test_an_average_has_a_range_over_studies() -> None:
    assert simulated.average([[], []]) is None
    found = simulated.average([[1.0, 1.0], [0.0]] * 50)
    assert found is not None
    assert found["mean"] == pytest.approx(2 / 3)
    assert 0.5 < found["low"] < found["mean"] < found["high"] < 0.8


def test_without_noise_a_study_tells_the_truth() -> None:
    quiet = Setting(0.44, seed_effect=0.0, final_noise=1e-4, validation_noise=1e-4)
    found = simulated.run(quiet, studies=2, workers=1)
    assert json.loads(json.dumps(found)) == found
    assert found["told"]["metric, a finalist"]["rmse"] == pytest.approx(0, abs=1e-3)
    assert found["told"]["difference, any pair"]["rmse"] == pytest.approx(0, abs=1e-3)
    for said in found["false_claims"].values():
        assert said["false better"]["share"] == said["false worse"]["share"] == 0
    assert found["choice"]["named for any overhead"]["regret"]["mean"] == pytest.approx(0, abs=1e-3)
