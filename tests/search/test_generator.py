"""Proposals are new and in the choice space.

They depend on nothing but the records told, the seed and the number.
"""

import math
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.search.candidate_pool import CandidatePool
from bam_search.search.generator import SAMPLERS, CandidateGenerator, running_trial, trial_of
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace, SearchSpace, load_space

SPACE = load_space("small")
SITES = sites_of(SPACE)
CHOICE_SPACE = choice_space_of(SPACE, SITES)


def generator(
    sampler: str = "tpe",
    startup: int = 0,
    seed: int = 0,
    choice_space: ChoiceSpace = CHOICE_SPACE,
    limit: float = math.inf,
) -> CandidateGenerator:
    """A candidate generator of a choice space where each site costs one."""
    pool = CandidatePool.of(choice_space, lambda _site, _choice: [1.0], [limit], 1)
    return CandidateGenerator(
        pool, lambda p: resolve(p, SITES), sampler=sampler, seed=seed, first=0, startup=startup
    )


def values(placement: Placement) -> list[float]:
    """A landscape of known truth: attention at layer2 with r = 8 is good, each site costs one."""
    text = placement.text
    return [10.0 - 5 * ("layer2=bam(r=8" in text), float(len(placement.choices))]


def tell(candidates: CandidateGenerator, placement: Placement, weight: float = 1.0) -> None:
    """Tell what the landscape says of a placement."""
    error, cost = values(placement)
    candidates.tell(placement, error, [cost], weight)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_proposals_are_legal_and_new(sampler: str) -> None:
    candidates, taken = generator(sampler, startup=5), set()
    for number in range(8 if sampler == "gp" else 40):  # a Gaussian process takes its time
        placement = candidates.ask(number, taken)
        assert placement is not None
        assert placement.id not in taken
        assert trial_of(CHOICE_SPACE, placement, values(placement)) is not None
        assert placement == resolve(placement, SITES)
        taken.add(placement.id)
        tell(candidates, placement)


@pytest.mark.parametrize("sampler", ["additive", "tpe", "nsga2", "random"])
def test_proposals_depend_on_what_was_told_the_seed_and_the_number(sampler: str) -> None:
    first = [generator(sampler, startup=2).ask(number, set()) for number in range(4)]
    assert first == [generator(sampler, startup=2).ask(number, set()) for number in range(4)]
    assert first != [
        generator(sampler, startup=2, seed=1).ask(number, set()) for number in range(4)
    ]
    # A generator that was asked before, as in an uninterrupted run, proposes like a fresh one that
    # was told the same.
    asked, fresh = generator(sampler), generator(sampler)
    for number in range(12):
        placement = asked.ask(number, set())
        assert placement is not None
        for candidates in (asked, fresh):
            tell(candidates, placement)
    assert asked.ask(99, set()) == fresh.ask(99, set())


def test_tpe_and_the_additive_model_learn() -> None:
    def late_mean(sampler: str) -> float:
        """The mean of both objectives over the proposals after the startup, two seeds together."""
        found = []
        for seed in range(2):
            candidates, taken = generator(sampler, startup=10, seed=seed), set()
            for number in range(40):
                placement = candidates.ask(number, taken)
                assert placement is not None
                taken.add(placement.id)
                tell(candidates, placement)
                found += [sum(values(placement))] * (number >= 10)
        return sum(found) / len(found)

    assert max(late_mean("tpe"), late_mean("additive")) < late_mean("random") - 1


def test_startup_spreads_over_the_number_of_sites() -> None:
    candidates = generator(startup=300)
    sizes = Counter(
        len(placement.choices)
        for number in range(300)
        if (placement := candidates.ask(number, set()))
    )
    assert set(sizes) == {1, 2, 3, 4, 5, 6}
    assert min(sizes.values()) > 25


def test_what_is_under_way_leaves_the_sampler_its_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SearchSpace(
        "s",
        SPACE.backbone,
        sites=("layer1", "layer2"),
        modules={"bam": {"r": (4, 8, 16), "d": (1, 2)}},
    )
    candidates = generator("additive", startup=5, choice_space=choice_space_of(space, SITES))
    taken: set[str] = set()
    for number in range(20):
        if number == 8:  # from here on all is under way, and nothing is drawn at random
            monkeypatch.setattr(CandidatePool, "spread", None)
        placement = candidates.ask(number, taken)
        assert placement is not None
        taken.add(placement.id)
        candidates.exclude(placement)
        if number < 8:
            tell(candidates, placement)
    assert len(taken) == 20


@pytest.mark.parametrize("sampler", ["additive", "tpe", "nsga2", "random"])
def test_a_small_space_is_exhausted_without_a_duplicate(sampler: str) -> None:
    space = SearchSpace(
        "s", SPACE.backbone, sites=("layer1", "layer2"), modules={"se": {"r": (4, 16)}}
    )
    candidates, taken = (
        generator(sampler, startup=2, choice_space=choice_space_of(space, SITES)),
        set(),
    )
    for number in range(20):
        placement = candidates.ask(number, taken)
        if placement is None:
            break
        taken.add(placement.id)
        tell(candidates, placement)
    # The backbone alone is a reference, and never proposed.
    assert len(taken) == 8 == choice_space_of(space, SITES).size - 1


@pytest.mark.parametrize("sampler", ["additive", "tpe", "nsga2", "random"])
def test_proposals_stay_within_the_limit(sampler: str) -> None:
    candidates, taken = generator(sampler, startup=3, limit=2.0), set()
    for number in range(20):
        placement = candidates.ask(number, taken)
        assert placement is not None
        assert 1 <= len(placement.choices) <= 2
        taken.add(placement.id)
        tell(candidates, placement)


def test_with_a_limit_below_everything_there_is_no_proposal() -> None:
    for startup in (0, 5):
        assert generator("additive", startup=startup, limit=0.5).ask(0, set()) is None
    assert generator("additive", limit=0.5).at_random(0, set()) is None


def test_the_random_search_is_legal_new_and_its_own() -> None:
    candidates, taken = generator(startup=5), set()
    drawn = []
    for index in range(60):
        placement = candidates.at_random(index, taken)
        assert placement is not None
        assert placement.id not in taken
        assert placement == resolve(placement, SITES)
        taken.add(placement.id)
        drawn.append(placement)
        tell(candidates, placement)  # it learns nothing
    assert drawn[:5] != [candidates.ask(number, set()) for number in range(5)]
    again: set[str] = set()
    for placement in drawn:
        assert generator(startup=5).at_random(len(again), again) == placement
        again.add(placement.id)


def test_an_error_of_little_weight_says_little() -> None:
    def proposed(error: float, weight: float) -> list[Placement | None]:
        """What is proposed after a placement was told with this error and weight."""
        candidates = generator("additive")
        for number, site in enumerate(("layer1", "layer2", "layer3")):
            candidates.tell(Placement.parse(f"{site}.0.bn2=bam"), 10.0 + number, [1.0])
        candidates.tell(Placement.parse("layer3=bam"), error, [1.0], weight)
        return [candidates.ask(n, set()) for n in range(5)]

    assert proposed(5.0, 1e-9) == proposed(15.0, 1e-9)
    assert proposed(5.0, 1.0) != proposed(15.0, 1.0)


def test_options_that_are_illegal_together_are_drawn_again() -> None:
    space = SearchSpace(
        "s", SPACE.backbone, modules={"bam": {"branches": ("channel", "spatial"), "d": (2, 4)}}
    )
    candidates = generator("random", startup=10, choice_space=choice_space_of(space, SITES))
    for number in range(20):
        placement = candidates.ask(number, set())
        assert placement is not None
        assert placement == resolve(placement, SITES)


@pytest.mark.parametrize(
    ("text", "in_space"),
    [
        ("none", True),
        ("bottleneck=bam", True),
        ("bottleneck=bam(r=8,d=2)", True),
        ("layer1=bam(n=2)", True),
        ("layer1=bam(n=3)", False),
        ("layer1=bam(r=2)", False),
        ("layer1=se", False),
        ("layer1.0.bn1=bam", False),
    ],
)
def test_only_what_is_in_the_choice_space_becomes_a_trial(text: str, in_space: bool) -> None:
    assert (trial_of(CHOICE_SPACE, resolve(text, SITES), [1.0, 2.0]) is not None) == in_space


def test_what_is_kept_has_a_parameter_for_each_site_with_attention() -> None:
    def kept(text: str) -> optuna.trial.FrozenTrial:
        return running_trial(CHOICE_SPACE, resolve(text, SITES))

    trial = kept("layer1=bam layer2=bam(r=8,d=1)")
    assert trial.params == {"layer1": "bam(r=16,d=4)", "layer2": "bam(r=8,d=1)"}
    assert trial.state == TrialState.RUNNING
    assert kept("none").params == {}
    assert kept("layer1=se layer2=bam(n=3) layer3=bam").params == {"layer3": "bam(r=16,d=4)"}
    # Optuna takes them all in one study: a site's values are the same in each.
    study = optuna.create_study(directions=["minimize"] * 2)
    for text in ("layer1=bam", "layer1=bam(r=4,d=1)", "none", "layer1.0.bn2=bam(d=6)"):
        study.add_trial(kept(text))
    assert [len(found.params) for found in study.trials] == [1, 1, 0, 1]
