"""Plan a study for a time: how long trainings are, how many candidates, how many seeds.

The smallest study that can find something has its references, twice as many candidates as the space
has sites, three seeds for each finalist, and trainings as short as the study has them. More time
goes to longer trainings first, as short ones rank placements otherwise than long ones do (LOG.md);
once they are long, to seeds, which tell smaller differences. Less time takes candidates away.
Candidates start from a backbone that is trained once (`scored`).
Numbers only: nothing is trained or measured here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from bam_search.errors import UserError
from bam_search.model.start import StartPlan
from bam_search.search.study import Study
from bam_search.study.record import WARM_START
from bam_search.tasks.load_task import CLASSIFICATION
from bam_search.words import duration

LENGTH_POWER, SEEDS_POWER, SEARCHED_POWER = 3 / 4, 1 / 6, 1 / 6
"""How the length of trainings, seeds and candidates grow with the scale of a study.

Its cost grows about as the scale.
"""
LONG_EPOCHS = 12
"""Epochs of all samples after which BAM's gains were told with three seeds (LOG.md).

Beyond these, length gives way to seeds.
"""
EXCESS_TO_LENGTH, EXCESS_TO_SEEDS = 1 / 3, 1 / 2
"""The powers of the length beyond that, with which trainings and seeds grow on."""
LEAST_SCALE, MOST_SCALE = 1 / 64, 1e6
SEEDS = 3
"""The fewest seeds of a verdict, and those that each finalist has first."""
MOST_SEEDS = 30
"""More tell no smaller difference that matters: 0.37 points if seeds differ by 0.50."""
LEAST_SEARCHED = 6
"""A search of fewer candidates is none."""
LEAST_LENGTH = 3 / 4
"""The share of the study's own length below which trainings would say nothing (near chance)."""
MOST_EPOCHS = 200
"""The longest training that is chosen: about that of the papers, 164 to 300 epochs of CIFAR."""
FEW_EPOCHS = 2
"""On a part of the samples trainings have so many epochs; longer ones take more samples first."""
LEAST_STEPS = 15
"""The fewest steps of an epoch, so that a training is one."""
CONTENDING = 1 / 2
"""The share of finalists that a further seed is for."""
STEPS = 40
"""Halvings of the interval in which the scale lies."""

IsSet = Callable[[str], bool]
"""Whether the user has set a key of the study, such as "recipe.epochs"."""
Seconds = Callable[[Study], float]
"""How long a study takes."""


@dataclass(frozen=True)
class Settings:
    """What a plan sets of a study.

    Each finalist has `seeds`; those that the answer hangs on are expected to have `most`.
    """

    images: int | Literal["all"]
    epochs: int
    trials: int
    seeds: int
    most: int
    scoring: str

    def applied(self, study: Study) -> Study:
        """The study with these settings, whose time is all that limits further seeds."""
        return self._with_finals(study, MOST_SEEDS, MOST_SEEDS / self.seeds)

    def expected(self, study: Study) -> Study:
        """The same with as many further seeds as are expected, to tell how long it takes."""
        extra = CONTENDING * (self.most - self.seeds) / self.seeds
        return self._with_finals(study, self.most, extra)

    def _with_finals(self, study: Study, most: int, extra: float) -> Study:
        seeds = self.seeds
        finalists = replace(study.finalists, seeds=seeds, most=max(most, seeds), extra=extra)
        return replace(
            study,
            trials=self.trials,
            scoring=self.scoring,
            data=replace(study.data, images=self.images),
            recipe=replace(study.recipe, epochs=self.epochs),
            rungs=study.rungs.scaled(self.epochs / study.recipe.epochs, self.epochs),
            finalists=finalists,
        )


@dataclass(frozen=True)
class Space:
    """What of the search space and the data a plan follows from.

    `total` training samples; `references` that fit; `sites` and `placements` of the choice space.
    """

    total: int
    references: int
    sites: int
    placements: int


def settings_for(
    study: Study,
    space: Space,
    budget: float,
    seconds: Seconds,
    is_set: IsSet,
    margin: float = 0.0,
) -> Settings:
    """The settings of the largest study that takes at most `budget` seconds.

    The share `margin` of them is kept. What the user has set stays. Raises UserError if even the
    smallest takes longer.
    """
    usable = budget * (1 - margin)

    def at(scale: float) -> Settings:
        return _scaled(study, space, scale, is_set)

    def fits(scale: float) -> bool:
        return seconds(at(scale).expected(study)) <= usable

    if not fits(LEAST_SCALE):
        least = seconds(at(LEAST_SCALE).expected(study)) / (1 - margin)
        raise UserError(
            f"{duration(budget)} is too short: "
            f"the smallest study of this kind takes about {duration(least)}",
            "give more time, a smaller network or fewer sites",
        )
    low, high = math.log(LEAST_SCALE), math.log(MOST_SCALE)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(math.exp(middle)) else (low, middle)
    return at(math.exp(low))


def _scaled(study: Study, space: Space, scale: float, is_set: IsSet) -> Settings:
    """The settings of a study that costs about `scale` times the smallest that finds something."""
    samples, excess = _samples(study, space, scale)
    images, epochs = _length(study, space, samples, is_set)
    seeds = study.finalists.seeds if is_set("finalists.seeds") else SEEDS
    most = round(seeds * max(1.0, scale) ** SEEDS_POWER * excess**EXCESS_TO_SEEDS)
    if is_set("finalists.most"):
        most = study.finalists.most
    trials = study.trials if is_set("trials") else _trials(study, space, scale)
    most = max(seeds, min(most, MOST_SEEDS))
    return Settings(images, epochs, trials, seeds, most, study.scoring)


def scored(study: Study, references: int) -> Study:
    """The study whose candidates start from a trained backbone, where that was seen to rank best.

    That is classification from scratch (LOG.md: on two small networks), in trainings that can be
    halved.
    """
    searches, can_be_halved = study.trials > references, study.recipe.epochs > 1
    is_known = study.task == CLASSIFICATION and study.start == StartPlan()
    if not (searches and can_be_halved and is_known) or study.rungs.epochs:
        return study
    return replace(study, scoring=WARM_START)


def _trials(study: Study, space: Space, scale: float) -> int:
    """The candidates: the references, and at least two for each site and one more."""
    if study.trials <= space.references:
        return study.trials  # it compares its references, and searches nothing
    enough = 2 * (space.sites + 1)
    grown = enough * max(1.0, scale) ** SEARCHED_POWER
    searched = round(grown * min(1.0, scale))
    return space.references + min(max(LEAST_SEARCHED, searched), space.placements)


def _samples(study: Study, space: Space, scale: float) -> tuple[float, float]:
    """The samples of a training, epoch after epoch, and how far they are beyond a long one."""
    own = study.data.sizes(space.total).fit * study.recipe.epochs
    long = max(own, LONG_EPOCHS * _all_of(study, space))
    samples = own * max(LEAST_LENGTH, scale**LENGTH_POWER)
    if samples <= long:
        return samples, 1.0
    excess = samples / long
    return long * excess**EXCESS_TO_LENGTH, excess


def _all_of(study: Study, space: Space) -> int:
    """The samples that the search trains on if it takes all."""
    return replace(study.data, images="all").sizes(space.total).fit


def _length(
    study: Study, space: Space, samples: float, is_set: IsSet
) -> tuple[int | Literal["all"], int]:
    """The training images and the epochs of a training on so many samples."""
    all_of = _all_of(study, space)
    if is_set("recipe.epochs"):
        epochs = study.recipe.epochs
        images = study.data.images if is_set("data.images") else _images(study, samples / epochs)
        return _capped(images, all_of), epochs
    if is_set("data.images"):
        return study.data.images, _epochs(samples / study.data.sizes(space.total).fit)
    if samples >= FEW_EPOCHS * all_of:
        return "all", _epochs(samples / all_of)
    images = _capped(_images(study, samples / FEW_EPOCHS), all_of)
    return images, FEW_EPOCHS


def _epochs(epochs: float) -> int:
    return max(1, min(round(epochs), MOST_EPOCHS))


def _images(study: Study, images: float) -> int:
    """A number of images of two digits, of which an epoch has LEAST_STEPS batches."""
    least = LEAST_STEPS * study.recipe.batch
    return max(least, int(float(f"{images:.2g}")))


def _capped(images: int | Literal["all"], all_of: int) -> int | Literal["all"]:
    """`images`, or all if the search has not so many."""
    return "all" if images == "all" or images >= all_of else images
