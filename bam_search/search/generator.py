"""What to try next: the samplers, and the candidate generator that uses one.

They see names and options of choices, never a model. Each proposal depends only on the records that
the sampler was told of, the seed and the candidate's number. So a study that was interrupted makes
the same proposals as one that was not.
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
from optuna.trial import FrozenTrial, TrialState

from bam_search.analysis.additive import AdditiveModel, fit
from bam_search.analysis.pareto import hypervolume_improvements, nondominated
from bam_search.errors import UserError
from bam_search.search.candidate_pool import CandidatePool
from bam_search.space.placement import Choice, Option, Placement
from bam_search.space.search_space import ChoiceSpace, Options

OFF = "off"
SAMPLER_ATTEMPTS = 8
"""How many attempts at a new, legal placement use the sampler; later ones draw at random."""
MAX_ATTEMPTS = 100
"""After this many attempts the space counts as exhausted."""
CONSIDERED_SHARE = 0.9
"""The share of the untried placements at hand, drawn at random, that one proposal considers."""
OPTIMISM = 0.25
"""By so many standard deviations untried placements count as better than expected (LOG.md)."""
MAX_ENUMERATED = 4096
"""The largest number of placements in a space that is enumerated; larger ones are sampled."""
POPULATION = 20
"""Population size of NSGA-II.

Optuna's default of 50 would leave a short study in its first, random generation.
"""

Canonical = Callable[[Placement], Placement]


class Proposer(Protocol):
    """The interface of what proposes: it is told of records and proposes placements."""

    def tell(
        self, placement: Placement, value: float, overheads: Sequence[float], weight: float
    ) -> None:
        """Learn the value to minimise and the overheads, in percent, of a canonical placement.

        A `weight` below 1 marks a value that was forecast from a shorter training.
        """

    def exclude(self, placement: Placement) -> None:
        """Take note that a canonical placement was proposed before, whatever becomes of it."""

    def sample(self, seed: int) -> Placement:
        """A placement to try; it need not be new."""


class AdditiveProposer:
    """Proposes by the additive model: the untried placement of largest hypervolume improvement.

    Only the metric is modelled, as costs are known before training. Placements that were trained
    count with their expected value as well, so that luck in one training does not make the front.
    Untried ones count as a little better than expected where that is unsure (OPTIMISM). Effects
    sampled from their posterior instead of their means did worse (LOG.md).
    """

    def __init__(self, pool: CandidatePool) -> None:
        self._pool = pool
        self._vectors: list[np.ndarray] = []
        self._values: list[float] = []
        self._weights: list[float] = []
        # No attention is a reference, and no proposal.
        self._excluded = {np.zeros(len(pool.encoder.sites), dtype=np.int64).tobytes()}
        self._learned: AdditiveModel | None = None
        self._all = pool.everything() if pool.choice_space.size <= MAX_ENUMERATED else None

    def tell(
        self, placement: Placement, value: float, overheads: Sequence[float], weight: float
    ) -> None:
        """See Proposer.

        A placement outside the choice space (SE where BAM is searched) is ignored. Overheads are
        known without training.
        """
        del overheads
        vector = self._pool.encoder.vector(placement)
        if vector is not None:
            self._vectors.append(vector)
            self._values.append(value)
            self._weights.append(weight)
            self._excluded.add(vector.tobytes())
            self._learned = None

    def exclude(self, placement: Placement) -> None:
        """See Proposer. One that still trains, or has failed, has told nothing."""
        vector = self._pool.encoder.vector(placement)
        if vector is not None:
            self._excluded.add(vector.tobytes())

    def sample(self, seed: int) -> Placement:
        """See Proposer."""
        if len(self._vectors) < 4:
            return self._pool.spread(seed)
        vectors = np.array(self._vectors)
        if self._learned is None:
            values, weights = np.array(self._values), np.array(self._weights)
            self._learned = fit(self._pool.encoder, vectors, values, weights)
        rng = np.random.default_rng(seed)
        values = self._expected(self._learned, vectors)
        on_front = nondominated(values)
        untried = self._untried(vectors[on_front], rng)
        if not len(untried):
            return self._pool.spread(seed)
        hoped = self._expected(self._learned, untried)
        hoped[:, 0] -= OPTIMISM * self._learned.deviation(self._pool.encoder.features(untried))
        best = _most_hypervolume(values[on_front], hoped)
        return self._pool.encoder.placement(untried[best])

    def _expected(self, learned: AdditiveModel, vectors: np.ndarray) -> np.ndarray:
        """The expected values and the overheads: (n, sites) -> (n, objectives)."""
        values = learned.predict(self._pool.encoder.features(vectors))
        overheads = self._pool.overheads(vectors)[:, : self._pool.objectives]
        return np.column_stack([values, overheads])

    def _untried(self, front: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, sites) untried placements within the limits, in random order.

        A share of them is left out, so that further draws differ. `front` are the (m, sites)
        placements on the expected front.
        """
        vectors = self._all
        if vectors is None:
            vectors = np.concatenate([self._pool.some(500, rng), self._pool.near(front, 500, rng)])
        fresh = np.array([vector.tobytes() not in self._excluded for vector in vectors])
        left = vectors[fresh & self._pool.within(vectors)]
        return rng.permutation(left)[: math.ceil(CONSIDERED_SHARE * len(left))]


def _most_hypervolume(front: np.ndarray, values: np.ndarray) -> int:
    """The row of (n, m) `values` to minimise that adds most to the hypervolume of a front."""
    worst = np.concatenate([front, values]).max(0) + 1e-9
    rows = np.flatnonzero(nondominated(values))  # a dominated row adds less
    return int(rows[np.argmax(hypervolume_improvements(front, values[rows], worst))])


class OptunaProposer:
    """One of Optuna's samplers, on the conditional space site -> module -> options.

    It is made anew for each proposal, from the proposal's seed.
    """

    def __init__(self, pool: CandidatePool, make: Callable[[int], BaseSampler]) -> None:
        self._choice_space = pool.choice_space
        self._make = make
        self._study = optuna.create_study(directions=["minimize"] * (1 + pool.objectives))
        self._count = 0

    def tell(
        self, placement: Placement, value: float, overheads: Sequence[float], weight: float
    ) -> None:
        """See Proposer; Optuna knows no weights."""
        del weight
        # NSGA-II writes the generation on the trials that it proposes itself. It would ignore these
        # added trials without it.
        generation = {NSGAIISampler._get_generation_key(): self._count // POPULATION}
        trial = trial_of(self._choice_space, placement, [value, *overheads], generation)
        if trial is not None:
            self._study.add_trial(trial)
            self._count += 1

    def exclude(self, placement: Placement) -> None:
        """See Proposer; Optuna's samplers may propose a placement again."""

    def sample(self, seed: int) -> Placement:
        """See Proposer."""
        self._study.sampler = self._make(seed)
        trial = self._study.ask()
        placement = _suggest(self._choice_space, trial)
        # This trial only served to propose; the finished candidate is added as a new trial.
        self._study.tell(trial, state=TrialState.FAIL)
        return placement


class UniformProposer:
    """One of Optuna's samplers that needs a space without conditions: one parameter a site.

    The parameter's categories are the numbers of the site's choices, each with its options.
    """

    def __init__(self, pool: CandidatePool, make: Callable[[int], BaseSampler]) -> None:
        self._pool = pool
        self._make = make
        self._study = optuna.create_study(directions=["minimize"] * (1 + pool.objectives))
        self._space = {
            site: CategoricalDistribution(range(len(added)))
            for site, added in zip(pool.encoder.sites, pool.added, strict=True)
        }

    def tell(
        self, placement: Placement, value: float, overheads: Sequence[float], weight: float
    ) -> None:
        """See Proposer; Optuna knows no weights."""
        del weight
        vector = self._pool.encoder.vector(placement)
        if vector is None:
            return
        trial = optuna.create_trial(
            params=dict(zip(self._pool.encoder.sites, vector.tolist(), strict=True)),
            distributions=cast("dict[str, BaseDistribution]", self._space),
            values=[value, *overheads],
        )
        self._study.add_trial(trial)

    def exclude(self, placement: Placement) -> None:
        """See Proposer; Optuna's samplers may propose a placement again."""

    def sample(self, seed: int) -> Placement:
        """See Proposer."""
        self._study.sampler = self._make(seed)
        trial = self._study.ask()
        vector = [
            cast("int", trial.suggest_categorical(site, space.choices))
            for site, space in self._space.items()
        ]
        self._study.tell(trial, state=TrialState.FAIL)
        return self._pool.encoder.placement(vector)


def _quiet(make: Callable[..., BaseSampler], **options: Any) -> Callable[[int], BaseSampler]:
    """A function from a seed to the sampler, without Optuna's warning that it is experimental."""

    def made(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return make(seed=seed, **options)

    return made


TPE = _quiet(TPESampler, multivariate=True, group=True, n_startup_trials=1, constant_liar=False)

SAMPLERS: Mapping[str, Callable[[CandidatePool], Proposer]] = {
    "additive": AdditiveProposer,
    "tpe": lambda pool: OptunaProposer(pool, TPE),
    "nsga2": lambda pool: OptunaProposer(pool, _quiet(NSGAIISampler, population_size=POPULATION)),
    "gp": lambda pool: UniformProposer(pool, _quiet(GPSampler, n_startup_trials=1)),
    "random": lambda pool: OptunaProposer(pool, _quiet(RandomSampler)),
}
"""Samplers by name; `benchmarks/search.py` compares them, and the first is the best measured."""


class CandidateGenerator:
    """Proposes new placements within the limits of a candidate pool, by a sampler.

    Args:
        pool: the placements that may be proposed.
        canonical: turns a placement into its canonical form; equal ids mean duplicates.
        sampler: a key of SAMPLERS.
        seed: the study's seed.
        first: the number of the first candidate that is searched.
        startup: how many proposals, from `first` on, are random. These are uniform over the number
            of sites; to choose each site by a coin would almost never give a sparse placement.
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
        self._pool = pool
        self._canonical = canonical
        self._proposer = SAMPLERS[sampler](pool)
        self._seed = seed
        self._random_until = first + startup

    def tell(
        self, placement: Placement, value: float, overheads: Sequence[float], weight: float = 1.0
    ) -> None:
        """Learn the value and the overheads of a canonical placement; see Proposer."""
        self._proposer.tell(placement, value, overheads, weight)

    def exclude(self, placement: Placement) -> None:
        """Propose this canonical placement no more: it trains, has failed, or was told."""
        self._proposer.exclude(placement)

    def ask(self, number: int, taken: Collection[str]) -> Placement | None:
        """The canonical placement for candidate `number`, its id not among `taken`.

        None if none could be found.
        """

        def draw(attempt: int, seed: int) -> Placement:
            at_random = number < self._random_until or attempt >= SAMPLER_ATTEMPTS
            return self._pool.spread(seed) if at_random else self._proposer.sample(seed)

        return self._new(str(number), draw, taken)

    def at_random(self, index: int, taken: Collection[str]) -> Placement | None:
        """Placement `index` of the random baseline, its id not among `taken`.

        None if none could be found.
        """
        return self._new(f"random:{index}", lambda _, seed: self._pool.spread(seed), taken)

    def _new(
        self, name: str, draw: Callable[[int, int], Placement], taken: Collection[str]
    ) -> Placement | None:
        """The first legal and new placement that `draw` gives; None if it gives none.

        `draw` is called with the attempt's number and a seed, which depends on `name`.
        """
        for attempt in range(MAX_ATTEMPTS):
            seed = zlib.crc32(f"{self._seed}:{name}:{attempt}".encode())
            placement = self._legal(draw(attempt, seed))
            if placement is not None and placement.id not in taken:
                return placement
        return None

    def _legal(self, placement: Placement) -> Placement | None:
        """The canonical form of a placement; None if it may not be proposed."""
        try:
            canonical = self._canonical(placement)
        except UserError:
            # Values that are legal one by one can be illegal together.
            return None
        vector = self._pool.encoder.vector(canonical)
        if not canonical.choices or vector is None:
            return None
        return canonical if self._pool.within(vector[None])[0] else None


def trial_of(
    choice_space: ChoiceSpace,
    placement: Placement,
    values: Sequence[float],
    system_attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial | None:
    """The finished Optuna trial of a canonical placement; None if it is not in the choice space.

    It has a parameter for each site, and one for each option of the module there.
    """
    params: dict[str, Option] = dict.fromkeys(choice_space.sites, OFF)
    distributions: dict[str, BaseDistribution] = {
        site: CategoricalDistribution([OFF, *modules])
        for site, modules in choice_space.sites.items()
    }
    for site, choice in placement.choices:
        allowed = choice_space.sites.get(site, {}).get(choice.module)
        options = dict(choice_space.written_out(choice).options)
        if allowed is None or not _allows(allowed, choice_space.defaults[choice.module], options):
            return None
        params[site] = choice.module
        for option, values_allowed in allowed.items():
            name = f"{site}.{choice.module}.{option}"
            params[name] = options[option]
            distributions[name] = CategoricalDistribution(values_allowed)
    return optuna.create_trial(
        params=params,
        distributions=distributions,
        values=list(values),
        system_attrs=dict(system_attrs or {}),
    )


def running_trial(choice_space: ChoiceSpace, placement: Placement) -> FrozenTrial:
    """A trial of a canonical placement that runs from now on, for the study's storage.

    It has one parameter for each site with attention, as each parameter is a row of the database;
    `trial_of` has one for every site and option. A choice outside the choice space has none.
    """
    params: dict[str, str] = {}
    distributions: dict[str, BaseDistribution] = {}
    for site, choice in placement.choices:
        if site not in choice_space.sites:
            continue
        allowed = choice_space.choices(site)
        texts = {choice_space.written_out(other): other.text for other in allowed}
        text = texts.get(choice_space.written_out(choice))
        if text:
            params[site] = text
            distributions[site] = CategoricalDistribution(tuple(texts.values()))
    return optuna.create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)


def _allows(allowed: Options, default: Mapping[str, Option], options: Mapping[str, Option]) -> bool:
    """Whether all options have an allowed value; one that is not searched stays at its default."""
    return all(value in allowed.get(name, (default[name],)) for name, value in options.items())


def _suggest(choice_space: ChoiceSpace, trial: optuna.Trial) -> Placement:
    """A placement that the trial suggests on the conditional space site -> module -> options."""
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
