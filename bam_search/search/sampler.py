"""The search's default sampler, for any Optuna study.

The search itself asks the generator beneath it, which proposes the same.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bam_search.search.candidate_pool import CandidatePool
from bam_search.search.generator import OFF, CandidateGenerator
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace, Options


class AdditiveSampler(BaseSampler):
    """A sampler for Optuna: it proposes placements by the additive model.

    The study's first objective is what training measures, in any direction; others, if any, are
    overheads to minimise that are known without training: each choice at a site adds its own. Each
    site is a categorical parameter, whose values are "off" and the texts of its choices, such as
    "bam(r=16)"; `space` has them all. Parameters of other names are drawn at random.

        >>> import optuna
        >>> from bam_search import AdditiveSampler
        >>> sites = {f"layer{i}": {"bam": {"r": (4, 16)}} for i in (1, 2, 3)}
        >>> def overheads(site, choice):
        ...     return [16 / dict(choice.options)["r"]]
        >>> sampler = AdditiveSampler(sites, overheads, seed=0)
        >>> def objective(trial):
        ...     placement = sampler.placement(trial)
        ...     error = 30 - 5 * ("layer2" in placement.text)  # train it here
        ...     return error, *sampler.overheads(placement)
        >>> study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        >>> study.optimize(objective, n_trials=20)
        >>> sorted(trial.values for trial in study.best_trials)
        [[25.0, 1.0]]

    With ask and tell it is `trial = study.ask(sampler.space)`.

    A proposal depends on the seed, the trial's number and the trials before it, of which the
    complete ones teach. None that a trial of smaller number has is proposed again while another is
    left within the limits; after that proposals are random, and repeat. No attention anywhere is
    not proposed: `study.enqueue_trial(dict.fromkeys(sampler.space, "off"))` asks for it.

    Args:
        sites: for each site its modules, and for each of these the values of its options.
        overheads: what a choice adds at a site, one number for each objective after the first, then
            one for each overhead that only has a limit; infinite if the choice is not possible.
        limits: the largest overheads allowed, in this order; those that are left out are infinite.
        seed: makes proposals repeatable; None draws one.
        startup: how many proposals are random at first.
    """

    def __init__(
        self,
        sites: Mapping[str, Mapping[str, Options]],
        overheads: Callable[[str, Choice], Sequence[float]],
        limits: Sequence[float] = (),
        *,
        seed: int | None = None,
        startup: int = 10,
    ) -> None:
        self._seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        self._startup = startup
        self._pool = _pool(ChoiceSpace(sites, defaults={}), overheads, limits)
        self._others = RandomSampler(self._seed)
        self._choices = {
            site: {choice.text: choice for choice in choices}
            for site, choices in zip(
                self._pool.encoder.sites, self._pool.encoder.choices, strict=True
            )
        }
        self._told: list[FrozenTrial] = []
        self._generator: CandidateGenerator | None = None

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """The parameter of each site, for `study.ask`."""
        return {
            site: CategoricalDistribution((OFF, *choices))
            for site, choices in self._choices.items()
        }

    def placement(self, trial: optuna.Trial) -> Placement:
        """The placement that a trial suggests."""
        params = {
            site: trial.suggest_categorical(site, (OFF, *choices))
            for site, choices in self._choices.items()
        }
        return self._placement(params)

    def overheads(self, placement: Placement) -> list[float]:
        """What a placement's choices add together, in the order of the sampler's `overheads`."""
        vector = self._pool.encoder.vector(placement)
        assert vector is not None, f"{placement.text} is not in the sampler's sites"
        return cast("list[float]", self._pool.overheads(vector[None])[0].tolist())

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameter of each site. Raises ValueError if the study has other objectives."""
        del trial
        most = len(self._pool.limits)
        minimised = set(study.directions[1:]) <= {StudyDirection.MINIMIZE}
        if not (minimised and len(study.directions) <= 1 + most):
            raise ValueError(
                f"AdditiveSampler minimises at most {most} overheads beside a metric: directions "
                f"are {[direction.name for direction in study.directions]}"
            )
        return self.space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The value of each site's parameter for this trial."""
        generator = self._taught(study)
        before = [
            other for other in study.get_trials(deepcopy=False) if other.number < trial.number
        ]
        placements = [self._placement(other.params) for other in before]
        for placement in placements:
            generator.exclude(placement)
        proposed = generator.ask(trial.number, {placement.id for placement in placements})
        if proposed is None:
            proposed = self._pool.spread(self._seed + trial.number)
        chosen = {site: choice.text for site, choice in proposed.choices}
        return {site: chosen.get(site, OFF) for site in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value for a parameter that is not a site's."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw a new seed for parameters that are not a site's.

        Proposals differ by the number of their trial, also where trials run in parallel.
        """
        self._others.reseed_rng()

    def _taught(self, study: optuna.Study) -> CandidateGenerator:
        """The generator, told of the study's complete trials in the order of their numbers.

        One that was told of some of them before, and of no other, is told of the rest.
        """
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        known = len(self._told)
        first = zip(self._told, complete, strict=False)
        same = known <= len(complete) and all(old is new for old, new in first)
        generator = self._generator
        if generator is None or not same:
            pool = replace(self._pool, objectives=len(study.directions) - 1)
            generator = CandidateGenerator(
                pool, _itself, "additive", self._seed, first=0, startup=self._startup
            )
            known = 0
        sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
        for trial in complete[known:]:
            value, *overheads = trial.values
            generator.tell(self._placement(trial.params), sign * value, overheads)
        self._told, self._generator = complete, generator
        return generator

    def _placement(self, params: Mapping[str, Any]) -> Placement:
        """The placement of a trial's parameters, without those that are no choice at a site."""
        return Placement.of(
            {
                site: choices[params[site]]
                for site, choices in self._choices.items()
                if params.get(site) in choices
            }
        )


def _pool(
    choice_space: ChoiceSpace,
    overheads: Callable[[str, Choice], Sequence[float]],
    limits: Sequence[float],
) -> CandidatePool:
    """The candidate pool of a choice space, with a limit for each overhead."""
    site = next(iter(choice_space.sites))
    width = len(overheads(site, choice_space.choices(site)[0]))
    every = [*limits, *[math.inf] * (width - len(limits))]
    return CandidatePool.of(choice_space, overheads, every, width)


def _itself(placement: Placement) -> Placement:
    """A placement of choices whose options are all written out is canonical."""
    return placement
