"""What may be proposed, as arrays: every choice at every site, what it costs, and the limits."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.search.additive import PlacementEncoder
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace


@dataclass(frozen=True, eq=False)
class CandidatePool:
    """What may be proposed: the choice space, what each choice adds to each overhead in percent,
    and how much of each is allowed.

    `added[i][j]` is of choice j at site i, with the numbering of
    `bam_search.search.additive.PlacementEncoder`; of its columns, which are those of `limits`, the
    first `objectives` are minimised.
    """

    choice_space: ChoiceSpace
    encoder: PlacementEncoder
    added: tuple[np.ndarray, ...]
    limits: np.ndarray
    objectives: int

    @classmethod
    def of(
        cls,
        choice_space: ChoiceSpace,
        overheads: Callable[[str, Choice], Sequence[float]],
        limits: Sequence[float],
        objectives: int,
    ) -> "CandidatePool":
        """The candidate pool of a choice space; `overheads` are what a choice adds at a site, one
        number for each of `limits` (which may be infinite).
        """
        encoder = PlacementEncoder.of(choice_space)
        nothing = [0.0] * len(limits)
        added = [
            np.array([nothing, *(overheads(site, choice) for choice in choice_space.choices(site))])
            for site in choice_space.sites
        ]
        return cls(choice_space, encoder, tuple(added), np.array(limits, dtype=float), objectives)

    def overheads(self, vectors: np.ndarray) -> np.ndarray:
        """(n, sites) choices -> (n, overheads)."""
        return np.asarray(sum(added[vectors[:, i]] for i, added in enumerate(self.added)))

    def within(self, vectors: np.ndarray) -> np.ndarray:
        """(n, sites) choices -> (n,) bool: within all limits."""
        return self._affordable(self.overheads(vectors))

    def _affordable(self, costs: np.ndarray) -> np.ndarray:
        # An infinite cost means that the choice is not possible at its site.
        return np.asarray(((costs <= self.limits + 1e-9) & np.isfinite(costs)).all(1))

    def spread(self, seed: int) -> Placement:
        """A random placement within the limits, its number of sites uniform from one to all, as far
        as the limits let it.
        """
        rng = random.Random(seed)
        sites = list(enumerate(self.encoder.sites))
        spent = np.zeros(len(self.limits))
        choices: dict[str, Choice] = {}
        wanted = rng.randint(1, len(sites))
        for i, site in rng.sample(sites, len(sites)):
            if len(choices) == wanted:
                break
            affordable = [
                j for j in np.flatnonzero(self._affordable(spent + self.added[i])).tolist() if j
            ]
            if affordable:
                j = rng.choice(affordable)
                spent, choices[site] = spent + self.added[i][j], self.encoder.choices[i][j - 1]
        return Placement.of(choices)

    def everything(self) -> np.ndarray:
        """(n, sites): every placement in the choice space, the empty one first."""
        return np.array(list(itertools.product(*(range(len(added)) for added in self.added))))

    def some(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, sites) random placements, their number of sites uniform from one to all, whatever the
        limits.
        """
        sizes = np.array([len(added) for added in self.added])
        ranks = rng.permuted(np.tile(np.arange(len(sizes)), (n, 1)), axis=1)
        chosen = ranks < rng.integers(1, len(sizes) + 1, size=(n, 1))
        return np.where(chosen, rng.integers(1, sizes, size=(n, len(sizes))), 0)

    def near(self, vectors: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, sites) placements that differ from one of `vectors` at one site at most."""
        found = vectors[rng.integers(len(vectors), size=n)]
        sizes = np.array([len(added) for added in self.added])
        sites = rng.integers(len(sizes), size=n)
        found[np.arange(n), sites] = rng.integers(sizes[sites])
        return found
