"""Where attention helps: the effects of modules at sites and of option values, with intervals.

    value = level + module + module at the site + its options' values + the choice itself + noise

summed over the sites of a placement. Modules, sites, and options with choices have a scale each
(`bam_search.analysis.linear_model`), so that a study in which options do not matter does not make
its sites look alike. All that was measured counts: the validation of each placement, on a level of
its own, and the final trainings, on a level for each seed. How much noisier validation is follows
from the values.

The only library is numpy.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bam_search.analysis.additive import MIN_RECORDS, OPTION_SCALE, PlacementEncoder
from bam_search.analysis.linear_model import PAIRS, Posterior, Regression, fit
from bam_search.analysis.statistics import LEVEL, TwoWay, central_interval
from bam_search.space.placement import Choice, Option
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import METRIC, Record

VALIDATION_NOISE = (0.7, 1.0, 1.4, 2.0, 2.8)
"""How many times as noisy as a final training a validation may be; the likeliest is taken."""


@dataclass(frozen=True)
class Effect:
    """The change of a value that something makes, with its interval.

    `records` counts the records that have it.
    """

    name: str
    mean: float
    low: float
    high: float
    records: int

    @property
    def is_told(self) -> bool:
        """Whether it can be told from noise: its interval is on one side of zero."""
        return self.low > 0 or self.high < 0

    @property
    def is_of_option(self) -> bool:
        """Whether it is an option value's, and not a module's at a site."""
        return "(" in self.name

    @property
    def place(self) -> tuple[str, str]:
        """The site and the module of a module's effect at a site."""
        site, _, module = self.name.rpartition("=")
        return site, module


@dataclass(frozen=True)
class SiteEffects:
    """The effects on the metric as it is measured, from `trainings` of `records` placements.

    `error` is the root mean square by which the model misses the trainings of a placement that it
    was not shown, and `error_of_mean` that of their mean.
    """

    effects: tuple[Effect, ...]
    records: int
    trainings: int
    error: float
    error_of_mean: float

    @property
    def predicts(self) -> bool:
        """Whether the model predicts new placements better than their mean does."""
        return self.error < self.error_of_mean


@dataclass(frozen=True, eq=False)
class _Measured:
    """All trainings of placements in the choice space.

    `values` is (n,) to minimise, `vectors` is (n, sites) choice numbers, `levels` is (n, 1 + seeds)
    with a 1 at the validation's level or the seed's, and `validated` is (n,) whether it is one.
    `levels` has no column of a level that nothing has.
    """

    values: np.ndarray
    vectors: np.ndarray
    levels: np.ndarray
    validated: np.ndarray


@dataclass(frozen=True, eq=False)
class SiteModel:
    """The model after `measured`, all trainings of `records` placements.

    `alone` has an array a site, (choices, draws): what each choice changes, to be minimised.
    `larger_is_better` is the metric's.
    """

    encoder: PlacementEncoder
    measured: _Measured
    records: int
    posterior: Posterior
    alone: tuple[np.ndarray, ...]
    larger_is_better: bool

    @classmethod
    def of(cls, records: Sequence[Record], choice_space: ChoiceSpace) -> "SiteModel | None":
        """The model; None if fewer than MIN_RECORDS placements were measured.

        The validations of warm starts are left out: the differences between these are smaller than
        those between finalists (0.6 times, `benchmarks/results/rungs.csv`).
        """
        encoder = PlacementEncoder.of(choice_space)
        vectors = _vectors(encoder, records)
        counted = [record for record in records if record.is_validated or record.is_finalist]
        trained = {record.id for record in counted if record.number in vectors}
        if len(trained) < MIN_RECORDS:
            return None
        measured = _measured(records, vectors)
        posterior = _posterior(encoder, measured)
        if posterior is None:
            return None
        alone = _drawn(encoder, posterior)
        larger = records[0].larger_is_better
        return cls(encoder, measured, len(trained), posterior, alone, larger)

    @cached_property
    def effects(self) -> SiteEffects:
        """The effects on the metric as it is measured."""
        different, placements = np.unique(self.measured.vectors, axis=0, return_inverse=True)
        effects = _effects(self.encoder, self.alone, different)
        if self.larger_is_better:  # the model is of what is minimised
            effects = [_negated(effect) for effect in effects]
        errors = self.posterior.left_out(placements.reshape(-1))
        return SiteEffects(tuple(effects), self.records, len(self.measured.values), *errors)

    def changes(self, vector: np.ndarray) -> np.ndarray:
        """(draws,) What the placement with these (sites,) choice numbers changes, to minimise."""
        draws = self.alone[0].shape[1]
        chosen = [at[j - 1] for at, j in zip(self.alone, vector, strict=True) if j]
        return np.sum(chosen, axis=0) if chosen else np.zeros(draws)


def _negated(effect: Effect) -> Effect:
    """The effect on the same value with the opposite sign."""
    return replace(effect, mean=-effect.mean, low=-effect.high, high=-effect.low)


def _vectors(encoder: PlacementEncoder, records: Sequence[Record]) -> dict[int, np.ndarray]:
    """The choice numbers of each measured record whose placement is in the choice space."""
    vectors = {}
    for record in records:
        if record.is_validated or record.is_tested:
            placement = record.readable_placement
            vector = None if placement is None else encoder.vector(placement)
            if vector is not None:
                vectors[record.number] = vector
    return vectors


def _measured(records: Sequence[Record], vectors: dict[int, np.ndarray]) -> _Measured:
    """The validation of each placement, once, and all final trainings."""
    in_space = [record for record in records if record.number in vectors]
    validated = list({record.id: record for record in in_space if record.is_validated}.values())
    finals = TwoWay.of([record for record in in_space if record.is_tested])
    tested = [finals.records[i] for i in finals.placement]
    values = [record.objective(METRIC) for record in validated]
    levels = np.zeros((len(validated) + len(tested), 1 + len(finals.seeds)))
    levels[: len(validated), 0] = 1
    levels[len(validated) :, 1:] = finals.of_seeds
    rows = [vectors[record.number] for record in (*validated, *tested)]
    return _Measured(
        np.concatenate([values, finals.values]),
        np.array(rows),
        levels[:, levels.any(axis=0)],
        levels[:, 0] == 1,
    )


def _posterior(encoder: PlacementEncoder, measured: _Measured) -> Posterior | None:
    """The posterior of all effects, with the likeliest noise of validation."""
    groups = _groups(encoder, measured.vectors)
    validated = measured.validated
    # Without final trainings, or without validations, there is but one noise.
    ratios = (1.0,) if len(set(validated.tolist())) == 1 else VALIDATION_NOISE
    best, most = None, -np.inf
    for ratio in ratios:
        weights = np.where(validated, 1 / ratio, 1.0)
        weighted = [weights[:, None] * columns for columns in (measured.levels, *groups)]
        found = fit(Regression(weights * measured.values, weighted[0], tuple(weighted[1:])))
        if found is not None:
            # Flat effects are integrated out, of values that are weighted.
            flat = np.linalg.slogdet(weighted[0].T @ weighted[0])[1]
            evidence = found.evidence + float(np.log(weights).sum() - flat / 2)
            if evidence > most:
                best, most = found, evidence
    return best


def _groups(encoder: PlacementEncoder, vectors: np.ndarray) -> tuple[np.ndarray, ...]:
    """The columns of modules, of modules at sites, and of options and choices, a row a placement.

    They are for (n, sites) choice numbers.
    """
    features = encoder.features(vectors)
    modules, at_sites, options = (features[:, members] for members in _members(encoder))
    return modules, at_sites, np.concatenate([options, _choices(encoder, vectors)], axis=1)


def _members(encoder: PlacementEncoder) -> tuple[list[int], list[int], list[int]]:
    """The features of modules, of modules at sites, and of options."""
    modules: list[int] = []
    at_sites: list[int] = []
    options: list[int] = []
    for i, name in enumerate(encoder.names):
        kind = options if "(" in name else at_sites if "=" in name else modules
        kind.append(i)
    return modules, at_sites, options


def _choices(encoder: PlacementEncoder, vectors: np.ndarray) -> np.ndarray:
    """(n, choices of all sites): OPTION_SCALE where a placement has a choice, else 0."""
    columns = [
        vectors[:, [i]] == np.arange(1, 1 + len(choices))
        for i, choices in enumerate(encoder.choices)
    ]
    return OPTION_SCALE * np.concatenate(columns, axis=1)


def _drawn(encoder: PlacementEncoder, posterior: Posterior) -> tuple[np.ndarray, ...]:
    """(choices, draws) for each site: draws of the value of each choice alone at its site."""
    sampled = posterior.sample_groups(PAIRS, np.random.default_rng(0))
    return tuple(
        np.concatenate(_groups(encoder, _alone(encoder, i)), axis=1) @ sampled.T
        for i in range(len(encoder.sites))
    )


def _effects(
    encoder: PlacementEncoder, alone: Sequence[np.ndarray], seen: np.ndarray
) -> list[Effect]:
    """The effects of every module at every site, then of option values.

    A module's effect at a site is the mean of its choices there; an option value's is over all
    sites that have a choice of it, beside the mean of its values. `alone` are the draws of each
    site's choices, and `seen` the placements that the model is of, each once.
    """
    effects = []
    for i, module, rows in _modules(encoder):
        values = alone[i][rows].mean(0)
        count = int(np.isin(seen[:, i], 1 + np.array(rows)).sum())
        effects.append(_effect(f"{encoder.sites[i]}={module}", values, count))
    for module, option, value in _options(encoder):
        values, count = _option_values(encoder, alone, seen, module, (option, value))
        effects.append(_effect(f"{module}({option}={value})", values, count))
    return effects


def _alone(encoder: PlacementEncoder, i: int) -> np.ndarray:
    """(choices, sites): the placements that have one choice of site `i`, and no other site."""
    numbers = np.arange(1, 1 + len(encoder.choices[i]))
    vectors = np.zeros((len(numbers), len(encoder.sites)), dtype=np.int64)
    vectors[:, i] = numbers
    return vectors


def _modules(encoder: PlacementEncoder) -> Iterator[tuple[int, str, list[int]]]:
    """Yield each site's number, each module there, and its choices, counted from 0."""
    for i, choices in enumerate(encoder.choices):
        for module in dict.fromkeys(choice.module for choice in choices):
            yield i, module, [j for j, choice in enumerate(choices) if choice.module == module]


def _option_values(
    encoder: PlacementEncoder,
    alone: Sequence[np.ndarray],
    seen: np.ndarray,
    module: str,
    setting: tuple[str, Option],
) -> tuple[np.ndarray, int]:
    """Draws of the effect of a module's (option, value), and how many placements have it.

    Sites where the option has one value teach nothing of it, and do not count.
    """
    option, wanted = setting
    gaps = []
    has = np.zeros(len(seen), dtype=bool)
    for i, name, rows in _modules(encoder):
        by_value = _by_value(encoder.choices[i], rows, option)
        if name == module and wanted in by_value and len(by_value) > 1:
            means = {value: alone[i][js].mean(0) for value, js in by_value.items()}
            gaps.append(means[wanted] - np.mean(list(means.values()), axis=0))
            has |= np.isin(seen[:, i], 1 + np.array(by_value[wanted]))
    return np.mean(gaps, axis=0), int(has.sum())


def _by_value(
    choices: Sequence[Choice], rows: Sequence[int], option: str
) -> dict[Option | None, list[int]]:
    """Which of the choices `rows` have each value of an option."""
    by_value: dict[Option | None, list[int]] = {}
    for j in rows:
        by_value.setdefault(dict(choices[j].options).get(option), []).append(j)
    return by_value


def _options(encoder: PlacementEncoder) -> list[tuple[str, str, Option]]:
    """Every (module, option, value) that has an effect, the values of an option together."""
    grouped: dict[tuple[str, str], dict[Option, None]] = {}
    for choice in itertools.chain.from_iterable(encoder.choices):
        for option, value in choice.options:
            grouped.setdefault((choice.module, option), {})[value] = None
    return [
        (module, option, value)
        for (module, option), values in grouped.items()
        for value in values
        if f"{module}({option}={value})" in encoder.names
    ]


def _effect(name: str, values: np.ndarray, records: int) -> Effect:
    return Effect(name, float(values.mean()), *central_interval(values, LEVEL), records)
