"""Placements of known truth, for `benchmarks/simulated.py`."""

import statistics
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bam_search.analysis.additive import PlacementEncoder
from bam_search.space.placement import Choice, Option, Placement

BARE = 80.0
"""The true error without attention, in percent."""

OptionValue = tuple[str, str, Option]
"""(module, option, value)."""


@dataclass(frozen=True)
class Parts:
    """The standard deviations of what a truth is made of, beside each other."""

    site: float = 1.0
    option: float = 0.5
    choice: float = 0.5
    placement: float = 0.5


@dataclass(frozen=True, eq=False)
class Truth:
    """The true error of every placement.

    Attributes:
        added: one array a site; `added[i][j]` is what choice j adds there, 0 for no attention.
        own: the standard deviation of what a placement adds by itself.
        outside: that of a placement outside the choice space.
        number: makes draws repeatable.
    """

    encoder: PlacementEncoder
    added: tuple[np.ndarray, ...]
    own: float
    outside: float
    number: int

    @classmethod
    def draw(
        cls, encoder: PlacementEncoder, some: np.ndarray, sd: float, parts: Parts, number: int
    ) -> "Truth":
        """A truth with standard deviation `sd` over the placements `some`, (n, sites)."""
        rng = np.random.default_rng(number)
        values = dict.fromkeys(value for at in encoder.choices for value in _values_of(at))
        options = dict(zip(values, parts.option * rng.standard_normal(len(values)), strict=True))
        added = []
        for choices in encoder.choices:
            of_options = [sum(options[value] for value in _values_of([c])) for c in choices]
            of_site = parts.site * rng.standard_normal()
            of_choices = parts.choice * rng.standard_normal(len(choices))
            added.append(np.append(0.0, of_site + np.array(of_options) + of_choices))
        sums = np.array([effects[some[:, i]] for i, effects in enumerate(added)]).sum(0)
        scale = sd / float(np.sqrt(np.var(sums) + parts.placement**2))
        scaled = tuple(scale * effects for effects in added)
        return cls(encoder, scaled, scale * parts.placement, sd, number)

    def error(self, text: str) -> float:
        """The true error of a canonical placement, in percent."""
        placement = Placement.parse(text)
        if not placement.choices:
            return BARE
        alone = float(drawn(text, self.number))
        vector = self.encoder.vector(placement)
        if vector is None:
            return BARE + self.outside * alone
        together = sum(float(at[j]) for at, j in zip(self.added, vector, strict=True))
        return BARE + together + self.own * alone

    def effects(self) -> dict[str, float]:
        """The true effects of modules at sites, and of option values, by their names in findings.

        A module's at a site is the mean over its choices there. An option value's is what it
        changes beside that mean, on average over the sites that have it, and less the mean of the
        option's values.
        """
        found: dict[str, float] = {}
        changes: dict[OptionValue, list[float]] = {}
        for site, choices, added in zip(
            self.encoder.sites, self.encoder.choices, self.added, strict=True
        ):
            for name, here in _by_module(choices):
                average = found[f"{site}={name}"] = float(added[here].mean())
                for setting in dict.fromkeys(_values_of([choices[j - 1] for j in here])):
                    having = [j for j in here if setting in _values_of([choices[j - 1]])]
                    change = float(added[having].mean()) - average
                    changes.setdefault(setting, []).append(change)
        means = {setting: statistics.fmean(at) for setting, at in changes.items()}
        for (module, option, value), mean in means.items():
            level = statistics.fmean(means[key] for key in means if key[:2] == (module, option))
            found[f"{module}({option}={value})"] = mean - level
        return found


def drawn(*words: object) -> float:
    """A standard normal draw that depends on the words alone."""
    key = zlib.crc32(":".join(map(str, words)).encode())
    return float(np.random.default_rng(key).standard_normal())


def _values_of(choices: Iterable[Choice]) -> Iterator[OptionValue]:
    """The option values of these choices, one by one."""
    for choice in choices:
        for option, value in choice.options:
            yield choice.module, option, value


def _by_module(choices: tuple[Choice, ...]) -> Iterator[tuple[str, list[int]]]:
    """Each module with the numbers of its choices, from 1."""
    for module in dict.fromkeys(choice.module for choice in choices):
        yield module, [j for j, choice in enumerate(choices, 1) if choice.module == module]
