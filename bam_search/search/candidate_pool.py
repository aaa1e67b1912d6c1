"""The candidate pool: every choice at every site as arrays, with its costs and the limits."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.analysis.additive import PlacementEncoder
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace


@dataclass(frozen=True, eq=False)
class CandidatePool:
    """The placements that may be proposed: a choice space, its costs and the limits on these.

    Placements are vectors of choice numbers, as in `bam_search.analysis.additive.PlacementEncoder`.

    Attributes:
        added: one array a site; `added[i][j]` is what choice j at site i adds to each overhead, in
            percent.
        limits: the largest overheads allowed, one for each column of `added`.
        objectives: so many of the first columns are minimised.
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
        """The candidate pool of a choice space.

        Args:
            choice_space: the choices at each site.
            overheads: what a choice adds at a site, in percent, one number for each of `limits`;
                an infinite one means that the choice is not possible there.
            limits: the largest overheads allowed; they may be infinite.
            objectives: so many of the first overheads are minimised.
        """
        encoder = PlacementEncoder.of(choice_space)
        nothing = [0.0] * len(limits)
        added = []
        for site in choice_space.sites:
            of_choices = [overheads(site, choice) for choice in choice_space.choices(site)]
            added.append(np.array([nothing, *of_choices]))
        return cls(choice_space, encoder, tuple(added), np.array(limits, dtype=float), objectives)

    def overheads(self, vectors: np.ndarray) -> np.ndarray:
        """The overheads of placements, in percent: (n, sites) -> (n, overheads)."""
        return np.asarray(sum(added[vectors[:, i]] for i, added in enumerate(self.added)))

    def within(self, vectors: np.ndarray) -> np.ndarray:
        """Whether placements are within all limits: (n, sites) -> (n,) bool."""
        return self._affordable(self.overheads(vectors))

    def _affordable(self, costs: np.ndarray) -> np.ndarray:
        # An infinite cost means that the choice is not possible at its site.
        return np.asarray(((costs <= self.limits + 1e-9) & np.isfinite(costs)).all(1))

    def spread(self, seed: int) -> Placement:
        """A random placement within the limits.

        Its number of sites is uniform from one to all, as far as the limits allow.
        """
        rng = random.Random(seed)
        sites = list(enumerate(self.encoder.sites))
        spent = np.zeros(len(self.limits))
        choices: dict[str, Choice] = {}
        wanted = rng.randint(1, len(sites))
        for i, site in rng.sample(sites, len(sites)):
            if len(choices) == wanted:
                break
            affordable = self._affordable(spent + self.added[i])
            affordable[0] = False  # choice 0 is no attention
            numbers = np.flatnonzero(affordable).tolist()
            if numbers:
                j = rng.choice(numbers)
                spent = spent + self.added[i][j]
                choices[site] = self.encoder.choices[i][j - 1]
        return Placement.of(choices)

    def everything(self) -> np.ndarray:
        """Every placement in the choice space, (n, sites), the empty one first."""
        numbers = [range(len(added)) for added in self.added]
        return np.array(list(itertools.product(*numbers)))

    def some(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, sites) random placements, also above the limits.

        Their number of sites is uniform from one to all.
        """
        sizes = np.array([len(added) for added in self.added])
        ranks = rng.permuted(np.tile(np.arange(len(sizes)), (n, 1)), axis=1)
        chosen = ranks < rng.integers(1, len(sizes) + 1, size=(n, 1))
        return np.where(chosen, rng.integers(1, sizes, size=(n, len(sizes))), 0)

    def near(self, vectors: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, sites) random placements, each a change of one of `vectors` at one site at most."""
        neighbours = vectors[rng.integers(len(vectors), size=n)]
        sizes = np.array([len(added) for added in self.added])
        sites = rng.integers(len(sizes), size=n)
        neighbours[np.arange(n), sites] = rng.integers(sizes[sites])
        return neighbours
