"""What a study will train, phase by phase, told before it runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bam_search.search.loop import random_count
from bam_search.search.study import Study

FINALISTS = 0.45
"""Of the searched candidates so many become finalists: 0.38 to 0.49 in simulated studies of 16 to
100 candidates (LOG.md, 2026-11-27).
"""
WINNER_SITES = 0.7
"""Of the sites so many hold attention in the winner: 0.5 to 1.0 in the same simulations."""
MEASURED = 1 / 3
"""An image that is only measured takes a forward pass, a third of a training step."""


@dataclass(frozen=True)
class Sizes:
    """Images that train and validate in the search, that test, references that fit, sites and
    placements of the choice space.
    """

    fit: int
    validation: int
    test: int
    references: int
    sites: int
    placements: int


@dataclass(frozen=True)
class Phase:
    """Trainings of one kind, and the images of all of them together; one that is only measured
    counts as a third.
    """

    name: str
    trainings: int
    images: float


def workload(study: Study, sizes: Sizes) -> tuple[Phase, ...]:
    """The phases of a study that trains something, in the order in which they run: estimates where
    the search decides.
    """
    searched = (
        min(study.trials - len(study.references), sizes.placements)
        if study.trials > len(study.references)
        else 0
    )
    epochs = sum(study.budgets)
    of_search = epochs * (sizes.fit + MEASURED * sizes.validation)
    baseline = (
        random_count(study, searched * epochs, min(searched, study.startup))
        if study.random_baseline and searched
        else 0
    )
    random = study.recipe.epochs * (sizes.fit + MEASURED * sizes.validation)
    finalists = sizes.references + math.ceil(FINALISTS * searched) + min(1, baseline)
    winner = round(WINNER_SITES * sizes.sites) if searched and study.finalists.leave_one_out else 0
    final = study.recipe.epochs * (sizes.fit + sizes.validation) + MEASURED * sizes.test
    first = study.finalists.seeds * finalists
    further = (
        round(study.finalists.extra * first) if study.finalists.most > study.finalists.seeds else 0
    )
    counts = (
        ("search", sizes.references + searched, of_search),
        ("random baseline", baseline, random),
        ("finalists", first + further, final),
        ("winner without each site", study.finalists.seeds * winner, final),
    )
    return tuple(Phase(name, n, n * images) for name, n, images in counts if n)


def trainings(phases: Sequence[Phase]) -> int:
    """How many there are in all."""
    return sum(phase.trainings for phase in phases)
