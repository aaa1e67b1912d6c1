"""The search's sampler in plain Optuna: legal, new, repeatable, better than chance."""

import math
import pickle
import random

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from bam_search.analysis.pareto import hypervolume, nondominated
from bam_search.search.candidate_pool import CandidatePool
from bam_search.search.generator import CandidateGenerator
from bam_search.search.sampler import AdditiveSampler
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)

SITES = {f"layer{i}": {"bam": {"r": (4, 16), "d": (1, 4)}, "se": {"r": (8,)}} for i in range(8)}
FEW = {f"layer{i}": {"se": {"r": (4, 16)}} for i in range(2)}


def overheads(site: str, choice: Choice) -> list[float]:
    """Attention in later layers costs more, with a smaller r too."""
    options = dict(choice.options)
    return [8.0 * (1 + int(site[-1])) / float(options["r"]), 0.1]


def sampler(limits: tuple[float, ...] = (), seed: int = 0, startup: int = 6) -> AdditiveSampler:
    return AdditiveSampler(SITES, overheads, limits, seed=seed, startup=startup)


def study(by: BaseSampler, objectives: int = 3) -> optuna.Study:
    return optuna.create_study(directions=["minimize"] * objectives, sampler=by)


def error(placement: Placement) -> float:
    """An additive truth: each choice at each site has an effect of its own, of either sign."""
    effects = [
        random.Random(f"{site} {choice.text}").gauss(1, 2) for site, choice in placement.choices
    ]
    return 60 - sum(effects)


def values(by: AdditiveSampler, trial: optuna.Trial) -> tuple[float, ...]:
    """The objectives of the placement that a trial suggests."""
    placement = by.placement(trial)
    return (error(placement), *by.overheads(placement))


def ran(by: AdditiveSampler, trials: int = 25) -> optuna.Study:
    made = study(by)
    made.optimize(lambda trial: values(by, trial), n_trials=trials)
    return made


def params(made: optuna.Study) -> list[dict[str, object]]:
    return [trial.params for trial in made.trials]


def test_it_beats_random_search_on_an_additive_truth() -> None:
    def volume(made: optuna.Study) -> float:
        found = np.array([trial.values for trial in made.trials])
        return hypervolume(found[nondominated(found)], np.array([80.0, 100.0, 1.0]))

    by_chance = []
    for seed in range(5):
        reference = sampler()
        made = study(RandomSampler(seed))
        made.optimize(lambda trial, by=reference: values(by, trial), n_trials=40)
        by_chance.append(volume(made))
    modelled = [volume(ran(sampler(seed=seed), 40)) for seed in range(5)]
    assert min(modelled) > max(by_chance)


def test_proposals_are_new_and_those_of_the_search_itself() -> None:
    by = sampler(seed=3)
    made = ran(by)
    designs = [tuple(trial.params.values()) for trial in made.trials]
    assert len(set(designs)) == len(designs) == 25
    space = ChoiceSpace(SITES, defaults={})
    pool = CandidatePool.of(space, overheads, [math.inf, math.inf], 2)
    own = CandidateGenerator(pool, lambda p: p, "additive", seed=3, first=0, startup=6)
    taken: set[str] = set()
    for trial in made.trials:
        placement = own.ask(trial.number, taken)
        assert placement is not None
        assert {site: choice.text for site, choice in placement.choices} == {
            site: text for site, text in trial.params.items() if text != "off"
        }
        taken.add(placement.id)
        own.tell(placement, error(placement), by.overheads(placement))


def test_a_metric_to_maximise_gives_the_proposals_of_its_mirror_image() -> None:
    by = sampler(seed=3)
    mirrored = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=by)

    def turned(trial: optuna.Trial) -> tuple[float, ...]:
        value, *costs = values(by, trial)
        return (-value, *costs)

    mirrored.optimize(turned, n_trials=25)
    assert params(mirrored) == params(ran(sampler(seed=3)))


def test_a_study_that_goes_on_proposes_as_one_that_was_not_interrupted() -> None:
    whole, first = ran(sampler()), ran(sampler(), 14)
    again = study(sampler())  # another process: nothing is known but the trials
    again.add_trials(first.trials)
    used = sampler()
    ran(used, 5)  # and a sampler that served another study
    other = study(used)
    other.add_trials(first.trials)
    for made in (again, other):
        by = made.sampler
        assert isinstance(by, AdditiveSampler)
        made.optimize(lambda trial, by=by: values(by, trial), n_trials=11)
        assert params(made) == params(whole)
    assert params(ran(sampler(seed=1))) != params(whole)
    copied = study(pickle.loads(pickle.dumps(used)))
    assert copied.ask(used.space).params == first.trials[0].params


def test_ask_and_tell_with_trials_that_fail_run_and_were_given() -> None:
    by = sampler()
    made = study(by)
    made.enqueue_trial(dict.fromkeys(by.space, "off"))
    under_way = []
    for number in range(30):
        trial = made.ask(by.space)
        assert set(trial.params) == set(SITES)
        if number % 5 == 1:
            made.tell(trial, state=TrialState.FAIL)
        elif number % 5 == 2:
            under_way.append(trial)
        else:
            made.tell(trial, values(by, trial))
    assert set(made.trials[0].params.values()) == {"off"}
    assert len({tuple(trial.params.values()) for trial in made.trials}) == 30
    assert len(under_way) == 6


def test_limits_hold_also_on_what_is_no_objective() -> None:
    by = sampler(limits=(6.0, 0.25))
    made = study(by, objectives=2)
    made.optimize(lambda trial: values(by, trial)[:2], n_trials=20)
    for trial in made.trials:
        assert trial.values[1] <= 6.0
        assert sum(text != "off" for text in trial.params.values()) <= 2


def test_an_exhausted_space_repeats() -> None:
    by = AdditiveSampler(FEW, overheads, seed=0, startup=2)
    made = ran(by, 12)
    designs = [tuple(trial.params.values()) for trial in made.trials]
    assert len(set(designs[:8])) == 8  # all but no attention
    assert set(designs[8:]) <= set(designs[:8])
    nothing = ran(AdditiveSampler(FEW, overheads, (0.0, 0.0), seed=0), 2)
    assert {text for trial in nothing.trials for text in trial.params.values()} == {"off"}


def test_other_parameters_are_drawn_at_random() -> None:
    drawn = []
    for _ in range(2):
        by = sampler()
        made = study(by)
        space = {**by.space, "rate": FloatDistribution(0.0, 1.0)}
        drawn.append([made.ask(space).params["rate"] for _ in range(5)])
        by.reseed_rng()
        assert made.ask(space).params["rate"] not in drawn[0]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 5


def test_without_overheads_it_searches_for_the_metric_alone() -> None:
    reference = sampler()
    made = study(RandomSampler(0), objectives=1)
    made.optimize(lambda trial: error(reference.placement(trial)), n_trials=40)
    for seed in range(3):
        by = sampler(seed=seed)
        modelled = study(by, objectives=1)
        modelled.optimize(lambda trial, by=by: error(by.placement(trial)), n_trials=25)  # type: ignore[misc]
        assert modelled.best_value < made.best_value


@pytest.mark.parametrize("directions", [["minimize", "maximize"], ["minimize"] * 4], ids=str)
def test_other_objectives_are_refused(directions: list[str]) -> None:
    by = sampler()
    made = optuna.create_study(directions=directions, sampler=by)
    with pytest.raises(ValueError, match="minimises at most 2 overheads beside a metric"):
        made.ask(by.space)
