"""What a study will train, phase by phase, estimated before it runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bam_search.search.loop import random_count
from bam_search.search.study import Study

BACKBONE = "backbone of the candidates"
SEARCH, REFERENCES, RANDOM_BASELINE = "search", "references", "random baseline"
FINALISTS, ABLATIONS = "finalists", "recommended without each site"
"""The names of the phases."""
BECOME_FINALISTS = 0.45
"""The share of searched candidates that become finalists.

It was 0.38 to 0.49 in simulated studies of 16 to 100 candidates (LOG.md, 2026-11-27).
"""
WINNER_SITES = 0.7
"""The share of sites that have attention in the winner: 0.5 to 1.0 in the same simulations."""
MEASURED = 1 / 3
"""The cost of a sample that is only evaluated: a forward pass, a third of a training step."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a study.

    `fit`, `validation`, `train` and `test` are numbers of samples, as in a split; `references` are
    those that fit the space; `sites` and `placements` are of the choice space. `timed` samples pass
    forward for the latencies of each finalist.
    """

    fit: int
    validation: int
    train: int
    test: int
    references: int
    sites: int
    placements: int
    timed: int = 0


@dataclass(frozen=True)
class Phase:
    """Trainings of one kind, and the samples of all of them together.

    One that is only evaluated counts as a third.
    """

    name: str
    trainings: int
    samples: float


def first_phase(study: Study) -> str:
    """The name of the phase that trains the references, and the candidates if it searches any."""
    return SEARCH if study.searches else REFERENCES


def workload(study: Study, sizes: Sizes) -> tuple[Phase, ...]:
    """The phases of a study in the order in which they run, without those that train nothing.

    Numbers that the search decides are estimates.
    """
    searched = _searched(study, sizes)
    baseline = _baseline(study, searched)
    of_random = _samples(study.search_epochs, sizes.fit, 1, sizes.validation)
    of_final = _samples(study.recipe.epochs, sizes.train, 1, sizes.test)
    finals = _final_trainings(study, finalists(study, sizes))
    without = _ablations(study, searched, sizes.sites)
    of_backbone = _samples(study.backbone_epochs, sizes.fit, 1, sizes.validation)
    candidates = sizes.references + searched
    phases = (
        Phase(BACKBONE, min(1, study.backbone_epochs), of_backbone),
        Phase(first_phase(study), candidates, _searched_samples(study, sizes, searched)),
        Phase(RANDOM_BASELINE, baseline, baseline * of_random),
        Phase(FINALISTS, finals, finals * of_final),
        Phase(ABLATIONS, without, without * of_final),
    )
    return tuple(phase for phase in phases if phase.trainings)


def finalists(study: Study, sizes: Sizes) -> int:
    """How many finalists a study is expected to have."""
    searched = _searched(study, sizes)
    drawn = min(1, _baseline(study, searched))
    return sizes.references + math.ceil(BECOME_FINALISTS * searched) + drawn


def _searched(study: Study, sizes: Sizes) -> int:
    """How many candidates a study searches beside its references."""
    return max(0, min(study.trials - sizes.references, sizes.placements))


def _searched_samples(study: Study, sizes: Sizes, searched: int) -> float:
    """The samples of the references and of so many searched candidates.

    Each training is measured once, and a reference's full one after each epoch.
    """
    epochs, trainings = sum(study.budgets), len(study.budgets)
    candidate = _samples(epochs, sizes.fit, trainings, sizes.validation)
    more = MEASURED * (study.search_epochs - 1) * sizes.validation
    return searched * candidate + sizes.references * (candidate + more)


def _samples(epochs: int, trained: int, measurements: int, measured: int) -> float:
    """The samples of `epochs` on `trained` samples, and of `measurements` on `measured` ones."""
    return epochs * trained + MEASURED * measurements * measured


def _baseline(study: Study, searched: int) -> int:
    """The trainings of the random baseline beside the startup."""
    if not study.random_baseline or not searched:
        return 0
    return random_count(study, searched * sum(study.budgets), min(searched, study.startup))


def _final_trainings(study: Study, finalists: int) -> int:
    """The trainings of so many finalists, those with further seeds included."""
    return study.finalists.seeds * finalists + study.finalists.further(finalists)


def _ablations(study: Study, searched: int, sites: int) -> int:
    """The trainings of the recommended one without each of its sites."""
    if not searched or not study.ablates:
        return 0
    return study.finalists.seeds * round(WINNER_SITES * sites)


def trainings(phases: Sequence[Phase]) -> int:
    """The number of trainings of all phases."""
    return sum(phase.trainings for phase in phases)
