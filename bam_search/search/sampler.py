"""What to try next: names and options in, a placement out. Optuna chooses; it never sees a model.

Each proposal depends only on the told records, the seed and the candidate's number, so a study that is interrupted and continued
proposes what it would have proposed.
"""

import random
import warnings
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from bam_search.errors import UserError
from bam_search.space.placement import Choice, Option, Placement
from bam_search.space.search_space import Menu, Options

OFF = "off"
DRAWS = 50
"""How often a proposal that is a duplicate or illegal is drawn again, by Optuna, then at random, before the space counts as exhausted."""

Canonical = Callable[[Placement], Placement]


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, n_startup_trials=1, constant_liar=False, seed=seed)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": lambda seed: RandomSampler(seed=seed)}
"""Samplers by name; each is made anew for each proposal from its seed."""


class Proposer:
    """Proposes placements that are on the menu, and learns from what it is told.

    `canonical` turns a placement into its canonical form, whose id tells duplicates. `startup` proposals, from candidate `first` on,
    are random, uniform over the *number* of sites; drawing each site on or off would all but never try a sparse placement.
    """

    def __init__(self, menu: Menu, canonical: Canonical, objectives: int, sampler: str, seed: int, first: int, startup: int) -> None:
        self._menu = menu
        self._canonical = canonical
        self._sampler = sampler
        self._seed = seed
        self._random_until = first + startup
        self._told = optuna.create_study(directions=["minimize"] * objectives)

    def tell(self, placement: Placement, values: Sequence[float]) -> None:
        """Learn the values of a canonical placement. One that is not on the menu (SE where BAM is searched) teaches nothing."""
        trial = trial_of(self._menu, placement, values)
        if trial is not None:
            self._told.add_trial(trial)

    def propose(self, number: int, taken: Collection[str]) -> Placement | None:
        """The canonical placement for candidate `number`, its id not among `taken`; None if none could be found."""
        for draw in range(2 * DRAWS):
            seed = zlib.crc32(f"{self._seed}:{number}:{draw}".encode())
            at_random = number < self._random_until or draw >= DRAWS
            drawn = _spread(self._menu, seed) if at_random else self._ask(seed)
            try:
                placement = self._canonical(drawn)
            except UserError:  # values that are legal one by one can be illegal together: drawn again, as a duplicate is
                continue
            if placement.id not in taken:
                return placement
        return None

    def _ask(self, seed: int) -> Placement:
        self._told.sampler = SAMPLERS[self._sampler](seed)
        trial = self._told.ask()
        placement = _suggest(self._menu, trial)
        # The candidate is told when it is finished, as a new trial; this one only served to draw it.
        self._told.tell(trial, state=optuna.trial.TrialState.FAIL)
        return placement


def trial_of(menu: Menu, placement: Placement, values: Sequence[float]) -> optuna.trial.FrozenTrial | None:
    """The finished Optuna trial of a canonical placement, None if it is not on the menu."""
    params: dict[str, Option] = dict.fromkeys(menu.sites, OFF)
    kinds: dict[str, BaseDistribution] = {site: CategoricalDistribution([OFF, *modules]) for site, modules in menu.sites.items()}
    for site, choice in placement.choices:
        offered = menu.sites.get(site, {}).get(choice.module)
        options = {**menu.defaults.get(choice.module, {}), **dict(choice.options)}
        if offered is None or not _on_offer(offered, menu.defaults[choice.module], options):
            return None
        params[site] = choice.module
        for name, allowed in offered.items():
            params[f"{site}.{choice.module}.{name}"] = options[name]
            kinds[f"{site}.{choice.module}.{name}"] = CategoricalDistribution(allowed)
    return optuna.create_trial(params=params, distributions=kinds, values=list(values))


def _on_offer(offered: Options, default: Mapping[str, Option], options: Mapping[str, Option]) -> bool:
    # An option that the menu does not offer stays at its default.
    return all(value in offered.get(name, (default[name],)) for name, value in options.items())


def _suggest(menu: Menu, trial: optuna.Trial) -> Placement:
    """The conditional space: site -> module -> options."""
    choices = {}
    for site, modules in menu.sites.items():
        module = trial.suggest_categorical(site, [OFF, *modules])
        if module != OFF:
            name = f"{site}.{module}"
            options = {option: trial.suggest_categorical(f"{name}.{option}", values) for option, values in modules[module].items()}
            choices[site] = Choice.of(module, cast("dict[str, Option]", options))
    return Placement.of(choices)


def _spread(menu: Menu, seed: int) -> Placement:
    """A random placement, its number of sites uniform from one to all."""
    rng = random.Random(seed)
    chosen = set(rng.sample(list(menu.sites), rng.randint(1, len(menu.sites))))
    choices = {}
    for site in (site for site in menu.sites if site in chosen):
        module = rng.choice(list(menu.sites[site]))
        choices[site] = Choice.of(module, {name: rng.choice(values) for name, values in menu.sites[site][module].items()})
    return Placement.of(choices)
