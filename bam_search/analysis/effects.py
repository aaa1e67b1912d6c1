"""Where attention helps: the effects of modules at sites and of option values, with intervals.

They are read off the additive model of all records. The only library is numpy.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bam_search.analysis.additive import OPTION_SCALE, AdditiveModel, PlacementEncoder, explain
from bam_search.space.placement import Option
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import Record


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


@dataclass(frozen=True)
class SiteEffects:
    """The effects of the additive model, and how well the model predicts.

    `effects` are on the metric as it is measured. `loo_rmse` is how far the model is off for a
    record that it has not seen, `loo_rmse_of_mean` that of the plain mean of the other records.
    """

    effects: tuple[Effect, ...]
    loo_rmse: float
    loo_rmse_of_mean: float
    records: int


def site_effects(records: Sequence[Record], choice_space: ChoiceSpace) -> SiteEffects | None:
    """The effects on the validation metric; None if there are too few records."""
    explained = explain(records, choice_space)
    if explained is None:
        return None
    model, vectors = explained
    effects = effects_of(model, vectors)
    if records[0].larger_is_better:  # the model is of what is minimised
        effects = [_negated(effect) for effect in effects]
    return SiteEffects(tuple(effects), model.loo_rmse, model.loo_rmse_of_mean, len(vectors))


def _negated(effect: Effect) -> Effect:
    """The effect on the same value with the opposite sign."""
    return replace(effect, mean=-effect.mean, low=-effect.high, high=-effect.low)


def effects_of(
    learned: AdditiveModel, vectors: np.ndarray, level: float = 0.9, draws: int = 4000
) -> list[Effect]:
    """The effects on the model's target: of every module at every site, then of option values.

    A module's effect at a site is that of its average setting; an option value's effect is over all
    sites.

    Args:
        learned: the fitted model.
        vectors: the (n, sites) placements that it was fitted to.
        level: the probability of the intervals.
        draws: how many draws from the posterior the intervals are made of.
    """
    encoder = learned.encoder
    samples = learned.sample(draws, np.random.default_rng(0))
    column = {name: i for i, name in enumerate(encoder.names)}
    effects = []
    for i, site in enumerate(encoder.sites):
        for module in dict.fromkeys(choice.module for choice in encoder.choices[i]):
            name = f"{site}={module}"
            count = _count_module(encoder, vectors, i, module)
            values = samples[:, column[module]] + samples[:, column[name]]
            effects.append(_effect(name, values, level, count))
    options = _options(encoder)
    for module, option, value in options:
        name = f"{module}({option}={value})"
        siblings = [column[f"{m}({o}={v})"] for m, o, v in options if (m, o) == (module, option)]
        values = OPTION_SCALE * (samples[:, column[name]] - samples[:, siblings].mean(1))
        count = _count_option(encoder, vectors, module, (option, value))
        effects.append(_effect(name, values, level, count))
    return effects


def _count_module(encoder: PlacementEncoder, vectors: np.ndarray, i: int, module: str) -> int:
    """How many of the (n, sites) placements have the module at site i."""
    numbered = enumerate(encoder.choices[i], start=1)
    chosen = [j for j, choice in numbered if choice.module == module]
    return int(np.isin(vectors[:, i], chosen).sum())


def _count_option(
    encoder: PlacementEncoder, vectors: np.ndarray, module: str, setting: tuple[str, Option]
) -> int:
    """How many of the (n, sites) placements have the module with this (option, value) anywhere.

    Sites where the option has one legal value teach nothing of it, and do not count.
    """
    option, _ = setting
    has = np.zeros(len(vectors), dtype=bool)
    for i, choices in enumerate(encoder.choices):
        here = [dict(choice.options) for choice in choices if choice.module == module]
        if len({options.get(option) for options in here}) < 2:
            continue
        for j, choice in enumerate(choices, start=1):
            if choice.module == module and setting in choice.options:
                has |= vectors[:, i] == j
    return int(has.sum())


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


def _effect(name: str, values: Sequence[float] | np.ndarray, level: float, records: int) -> Effect:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Effect(name, float(np.mean(values)), float(low), float(high), records)
