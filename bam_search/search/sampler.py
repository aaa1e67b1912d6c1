"""What to try next: names and options in, a placement out. No model is seen here.

Each proposal depends only on the told records, the seed and the candidate's number, so a study that
is interrupted and continued proposes what it would have proposed.
"""

import math
import warnings
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from bam_search.errors import UserError
from bam_search.search.additive import AdditiveModel, fit
from bam_search.search.candidate_pool import CandidatePool
from bam_search.search.pareto import hypervolume_improvements, nondominated
from bam_search.space.placement import Choice, Option, Placement
from bam_search.space.search_space import ChoiceSpace, Options

OFF = "off"
DRAWS = (8, 100)
"""How often a duplicate or illegal proposal is drawn: by the sampler, and in all (then at random),
before the space is exhausted.
"""
SEEN = 0.9
"""The share of the placements not tried yet that one draw looks at."""
EXHAUSTIVE = 4096
"""A space of at most so many placements is looked at as a whole."""
POPULATION = 20
"""Of NSGA-II; Optuna's default of 50 would leave a short study in its first, random generation."""

Canonical = Callable[[Placement], Placement]


class Sampler(Protocol):
    """A sampler at work.

    `weight` below 1 marks an error that was predicted from a shorter training.
    """

    def tell(
        self, placement: Placement, error: float, overheads: Sequence[float], weight: float
    ) -> None:
        """Learn of a canonical placement."""

    def sample(self, seed: int) -> Placement:
        """A placement to try; it need not be new."""


class AdditiveSampler:
    """The additive model: take the untried placement by which the front of expected errors would
    gain most hypervolume.

    Costs are known before training, so only the error is modelled. What was told counts with its
    expected error too, not with the one that luck gave it. Effects drawn from their posterior
    instead of expected did worse (LOG.md).
    """

    def __init__(self, pool: CandidatePool) -> None:
        self._offer = pool
        self._vectors: list[np.ndarray] = []
        self._errors: list[float] = []
        self._weights: list[float] = []
        self._learned: AdditiveModel | None = None
        self._all = pool.everything() if pool.choice_space.size <= EXHAUSTIVE else None

    def tell(
        self, placement: Placement, error: float, overheads: Sequence[float], weight: float
    ) -> None:
        """See Sampler.

        A placement outside the choice space (SE where BAM is searched) teaches nothing; overheads
        are known anyway.
        """
        del overheads
        vector = self._offer.encoder.vector(placement)
        if vector is not None:
            self._vectors.append(vector)
            self._errors.append(error)
            self._weights.append(weight)
            self._learned = None

    def sample(self, seed: int) -> Placement:
        """See Sampler."""
        if len(self._vectors) < 4:
            return self._offer.spread(seed)
        if self._learned is None:
            vectors, errors, weights = (
                np.array(self._vectors),
                np.array(self._errors),
                np.array(self._weights),
            )
            self._learned = fit(self._offer.encoder, vectors, errors, weights)
        rng = np.random.default_rng(seed)
        on_result = self._values(self._learned, np.array(self._vectors))
        front = nondominated(on_result)
        pool = self._pool(np.array(self._vectors)[front], rng)
        if not len(pool):
            return self._offer.spread(seed)
        return self._offer.encoder.placement(
            pool[_most_hypervolume(on_result[front], self._values(self._learned, pool))]
        )

    def _values(self, learned: AdditiveModel, vectors: np.ndarray) -> np.ndarray:
        """(n, sites) placements -> (n, objectives): expected errors and overheads."""
        errors = learned.predict(self._offer.encoder.features(vectors))
        return np.column_stack(
            [errors, self._offer.overheads(vectors)[:, : self._offer.objectives]]
        )

    def _pool(self, front: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, sites) placements within the limits that were not told yet, less some that are left
        out so that further draws differ.
        """
        pool = self._all
        if pool is None:
            pool = np.concatenate([self._offer.some(500, rng), self._offer.near(front, 500, rng)])
        on_result = {vector.tobytes() for vector in self._vectors}
        fresh = np.array([vector.tobytes() not in on_result for vector in pool])
        left = pool[fresh & self._offer.within(pool)]
        return rng.permutation(left)[: math.ceil(SEEN * len(left))]


def _most_hypervolume(front: np.ndarray, values: np.ndarray) -> int:
    """The row of (n, m) `values` to minimise that adds most to the hypervolume of a front."""
    worst = np.concatenate([front, values]).max(0) + 1e-9
    best = np.flatnonzero(nondominated(values))  # whatever another row is better than adds less
    return int(best[np.argmax(hypervolume_improvements(front, values[best], worst))])


class OptunaSampler:
    """One of Optuna's samplers, made anew for each proposal from its seed, on the conditional space
    site -> module -> options.
    """

    def __init__(self, pool: CandidatePool, make: Callable[[int], BaseSampler]) -> None:
        self._choice_space = pool.choice_space
        self._make = make
        self._study = optuna.create_study(directions=["minimize"] * (1 + pool.objectives))
        self._count = 0

    def tell(
        self, placement: Placement, error: float, overheads: Sequence[float], weight: float
    ) -> None:
        """See Sampler; Optuna knows no weights."""
        del weight
        # NSGA-II keeps the generation on the trials that it asked for itself; without it told
        # trials would be none.
        generation = {NSGAIISampler._get_generation_key(): self._count // POPULATION}
        trial = trial_of(self._choice_space, placement, [error, *overheads], generation)
        if trial is not None:
            self._study.add_trial(trial)
            self._count += 1

    def sample(self, seed: int) -> Placement:
        """See Sampler."""
        self._study.sampler = self._make(seed)
        trial = self._study.ask()
        placement = _suggest(self._choice_space, trial)
        # The candidate is told when it is finished, as a new trial; this one only served to draw
        # it.
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return placement


class UniformSampler:
    """One of Optuna's samplers that needs a space without conditions: one category a site, every
    choice with its options in it.
    """

    def __init__(self, pool: CandidatePool, make: Callable[[int], BaseSampler]) -> None:
        self._offer = pool
        self._make = make
        self._study = optuna.create_study(directions=["minimize"] * (1 + pool.objectives))
        self._space = {
            site: CategoricalDistribution(range(len(a)))
            for site, a in zip(pool.encoder.sites, pool.added, strict=True)
        }

    def tell(
        self, placement: Placement, error: float, overheads: Sequence[float], weight: float
    ) -> None:
        """See Sampler; Optuna knows no weights."""
        del weight
        vector = self._offer.encoder.vector(placement)
        if vector is not None:
            params = dict(zip(self._offer.encoder.sites, vector.tolist(), strict=True))
            distributions = cast("dict[str, BaseDistribution]", self._space)
            self._study.add_trial(
                optuna.create_trial(
                    params=params, distributions=distributions, values=[error, *overheads]
                )
            )

    def sample(self, seed: int) -> Placement:
        """See Sampler."""
        self._study.sampler = self._make(seed)
        trial = self._study.ask()
        vector = [
            cast("int", trial.suggest_categorical(site, space.choices))
            for site, space in self._space.items()
        ]
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return self._offer.encoder.placement(vector)


def _quiet(make: Callable[..., BaseSampler], **options: Any) -> Callable[[int], BaseSampler]:
    def made(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return make(seed=seed, **options)

    return made


TPE = _quiet(TPESampler, multivariate=True, group=True, n_startup_trials=1, constant_liar=False)

SAMPLERS: Mapping[str, Callable[[CandidatePool], Sampler]] = {
    "additive": AdditiveSampler,
    "tpe": lambda pool: OptunaSampler(pool, TPE),
    "nsga2": lambda pool: OptunaSampler(pool, _quiet(NSGAIISampler, population_size=POPULATION)),
    "gp": lambda pool: UniformSampler(pool, _quiet(GPSampler, n_startup_trials=1)),
    "random": lambda pool: OptunaSampler(pool, _quiet(RandomSampler)),
}
"""Samplers by name; `benchmarks/search.py` compares them, and the first is the best measured."""


class CandidateGenerator:
    """Proposes placements that are on offer, and learns from what it is told.

    `canonical` turns a placement into its canonical form, whose id tells duplicates. `startup`
    proposals, from candidate `first` on, are random, uniform over the *number* of sites; drawing
    each site on or off would all but never try a sparse placement.
    """

    def __init__(
        self,
        pool: CandidatePool,
        canonical: Canonical,
        sampler: str,
        seed: int,
        first: int,
        startup: int,
    ) -> None:
        self._offer = pool
        self._canonical = canonical
        self._chooser = SAMPLERS[sampler](pool)
        self._seed = seed
        self._random_until = first + startup

    def tell(
        self, placement: Placement, error: float, overheads: Sequence[float], weight: float = 1.0
    ) -> None:
        """Learn the error and the overheads of a canonical placement; see Chooser."""
        self._chooser.tell(placement, error, overheads, weight)

    def ask(self, number: int, taken: Collection[str]) -> Placement | None:
        """The canonical placement for candidate `number`, its id not among `taken`; None if none
        could be found.
        """

        def drawn(draw: int, seed: int) -> Placement:
            at_random = number < self._random_until or draw >= DRAWS[0]
            return self._offer.spread(seed) if at_random else self._chooser.sample(seed)

        return self._new(str(number), drawn, taken)

    def at_random(self, index: int, taken: Collection[str]) -> Placement | None:
        """The placement `index` of the random search beside this one, its id not among `taken`;
        None if none could be found.
        """
        return self._new(f"random:{index}", lambda _draw, seed: self._offer.spread(seed), taken)

    def _new(
        self, name: str, drawn: Callable[[int, int], Placement], taken: Collection[str]
    ) -> Placement | None:
        """The first of the placements `drawn` (from the draw's number and a seed) that is legal and
        new; `name` sets the seeds apart.
        """
        for draw in range(DRAWS[1]):
            placement = self._legal(drawn(draw, zlib.crc32(f"{self._seed}:{name}:{draw}".encode())))
            if placement is not None and placement.id not in taken:
                return placement
        return None

    def _legal(self, placement: Placement) -> Placement | None:
        try:
            found = self._canonical(placement)
        except UserError:  # values that are legal one by one can be illegal together: drawn again, as a duplicate is
            return None
        vector = self._offer.encoder.vector(found)
        legal = found.choices and vector is not None and self._offer.within(vector[None])[0]
        return found if legal else None


def trial_of(
    choice_space: ChoiceSpace,
    placement: Placement,
    values: Sequence[float],
    system_attrs: Mapping[str, Any] | None = None,
) -> optuna.trial.FrozenTrial | None:
    """The finished Optuna trial of a canonical placement, None if it is not in the choice space."""
    params: dict[str, Option] = dict.fromkeys(choice_space.sites, OFF)
    kinds: dict[str, BaseDistribution] = {
        site: CategoricalDistribution([OFF, *modules])
        for site, modules in choice_space.sites.items()
    }
    for site, choice in placement.choices:
        offered = choice_space.sites.get(site, {}).get(choice.module)
        options = dict(choice_space.written_out(choice).options)
        if offered is None or not _on_offer(offered, choice_space.defaults[choice.module], options):
            return None
        params[site] = choice.module
        for name, allowed in offered.items():
            params[f"{site}.{choice.module}.{name}"] = options[name]
            kinds[f"{site}.{choice.module}.{name}"] = CategoricalDistribution(allowed)
    return optuna.create_trial(
        params=params,
        distributions=kinds,
        values=list(values),
        system_attrs=dict(system_attrs or {}),
    )


def kept_trial(
    choice_space: ChoiceSpace, placement: Placement, values: Sequence[float]
) -> optuna.trial.FrozenTrial:
    """The finished Optuna trial of a canonical placement, to be kept and looked at: one parameter
    for each site with attention.

    Each parameter is a row of a database, and `trial_of` has one for every site and option. A
    placement outside the choice space has none.
    """
    params: dict[str, str] = {}
    kinds: dict[str, BaseDistribution] = {}
    for site, choice in placement.choices:
        offered = (
            {choice_space.written_out(other): other.text for other in choice_space.choices(site)}
            if site in choice_space.sites
            else {}
        )
        if text := offered.get(choice_space.written_out(choice)):
            params[site], kinds[site] = text, CategoricalDistribution(tuple(offered.values()))
    return optuna.create_trial(params=params, distributions=kinds, values=list(values))


def _on_offer(
    offered: Options, default: Mapping[str, Option], options: Mapping[str, Option]
) -> bool:
    # An option that the choice space does not offer stays at its default.
    return all(value in offered.get(name, (default[name],)) for name, value in options.items())


def _suggest(choice_space: ChoiceSpace, trial: optuna.Trial) -> Placement:
    """The conditional space: site -> module -> options."""
    choices = {}
    for site, modules in choice_space.sites.items():
        module = trial.suggest_categorical(site, [OFF, *modules])
        if module != OFF:
            name = f"{site}.{module}"
            options = {
                option: trial.suggest_categorical(f"{name}.{option}", values)
                for option, values in modules[module].items()
            }
            choices[site] = Choice.of(module, cast("dict[str, Option]", options))
    return Placement.of(choices)
