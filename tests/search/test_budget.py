"""A plan takes the time that there is, and each setting grows with it as it should."""

from dataclasses import replace

import pytest

from bam_search.errors import UserError
from bam_search.score.device import choose
from bam_search.search.budget import (
    LONG_EPOCHS,
    MOST_EPOCHS,
    MOST_SEEDS,
    Settings,
    Space,
    scored,
    settings_for,
)
from bam_search.search.study import Study, check_amounts, load_study
from bam_search.search.workload import Sizes, workload

SPACE = Space(total=50_000, references=4, sites=6, placements=10_000)
PER_SAMPLE = 1e-3
HOUR = 3600.0


def study(**recipe: int) -> Study:
    found = load_study("placement", choose("cpu"), {}, [])
    return replace(found, recipe=replace(found.recipe, **recipe))


def seconds(found: Study) -> float:
    """The time of a study on two cores of which each trains on a sample in PER_SAMPLE."""
    split = found.data.sizes(SPACE.total)
    sizes = Sizes(split.fit, split.validation, split.train, 10_000, 4, 6, 10_000)
    return sum(phase.samples for phase in workload(found, sizes)) * PER_SAMPLE / 2


def plan(budget: float, set_keys: tuple[str, ...] = (), of: Study | None = None) -> Settings:
    return settings_for(of or study(), SPACE, budget, seconds, lambda key: key in set_keys)


@pytest.mark.parametrize("budget", [0.15 * HOUR, HOUR, 8 * HOUR, 200 * HOUR])
def test_a_plan_takes_the_time_that_there_is(budget: float) -> None:
    taken = seconds(plan(budget).expected(study()))
    assert 0.8 * budget < taken <= budget


def test_more_time_goes_to_longer_trainings_and_then_to_seeds() -> None:
    plans = [plan(hours * HOUR) for hours in (0.15, 1, 8, 200)]
    lengths = [found.applied(study()).data.sizes(50_000).fit * found.epochs for found in plans]
    assert lengths == sorted(lengths)
    assert [found.trials for found in plans] == sorted(found.trials for found in plans)
    assert [found.most for found in plans] == sorted(found.most for found in plans)
    assert plans[0].epochs == 2
    assert plans[2].images == plans[3].images == "all"
    grown = plans[3].most / plans[2].most
    assert plans[3].epochs > LONG_EPOCHS
    assert grown > plans[3].epochs / LONG_EPOCHS  # beyond long trainings, seeds grow faster


def test_a_study_has_two_candidates_for_each_site_at_least() -> None:
    assert plan(HOUR).trials >= 4 + 2 * (6 + 1)


def test_what_the_user_has_set_stays() -> None:
    longer = replace(study(epochs=5), trials=30)
    found = plan(HOUR, ("recipe.epochs", "trials"), longer)
    assert (found.epochs, found.trials) == (5, 30)
    assert seconds(found.expected(longer)) <= HOUR
    fixed = plan(HOUR, ("data.images",))
    assert fixed.images == study().data.images
    assert fixed.epochs > plan(HOUR).epochs


def test_a_comparison_of_references_gets_no_candidates() -> None:
    only = replace(study(), trials=4)
    assert plan(HOUR, of=only).trials == 4


def test_candidates_start_from_a_trained_backbone_where_that_is_known_to_rank_best() -> None:
    whole = study()
    warm = scored(whole, references=4)
    assert warm == replace(whole, scoring="warm_start")
    assert plan(HOUR, of=warm).applied(whole).scoring == "warm_start"
    others = (
        replace(whole, trials=4),
        replace(whole, task="detection"),
        replace(whole, start=replace(whole.start, insertion="identity")),
        replace(whole, start=replace(whole.start, backbone="frozen")),
        replace(whole, rungs=replace(whole.rungs, epochs=(1,))),
        study(epochs=1),
    )
    assert {scored(other, references=4).scoring for other in others} == {"scratch"}


def test_rungs_keep_their_shares_of_a_training_and_stay_shorter() -> None:
    own = replace(study(epochs=6), rungs=replace(study().rungs, epochs=(2, 3)))
    for epochs, rungs in ((12, (4, 6)), (2, (1,)), (1, ())):
        settings = Settings(9000, epochs, trials=20, seeds=3, most=6, scoring="scratch")
        assert settings.applied(own).rungs.epochs == rungs
        check_amounts(settings.applied(own))


def test_no_training_is_longer_than_the_longest() -> None:
    assert plan(1e6 * HOUR).epochs <= MOST_EPOCHS


def test_too_little_time_is_a_sentence_with_what_would_be_enough() -> None:
    with pytest.raises(UserError, match=r"60 s is too short: .* takes about [\d.]+ min"):
        plan(60)


def test_the_settings_leave_further_seeds_to_the_clock() -> None:
    settings = Settings(9000, epochs=2, trials=20, seeds=3, most=6, scoring="scratch")
    applied, expected = settings.applied(study()), settings.expected(study())
    assert applied.finalists.most == MOST_SEEDS
    assert applied.finalists.extra >= MOST_SEEDS / 3 - 1  # for all of the finalists
    assert (expected.finalists.most, expected.finalists.extra) == (6, 0.5)
    assert (applied.data.images, applied.recipe.epochs, applied.trials) == (9000, 2, 20)
