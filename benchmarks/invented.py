"""A study of ResNet18 whose trainings take no time: for measuring all that is around them."""

import random
from collections.abc import Mapping
from concurrent.futures import Future

from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.model.load import load
from bam_search.score.cost_table import cost_table
from bam_search.score.device import choose
from bam_search.score.evaluate import Job, Result, Score
from bam_search.score.train import EpochResult
from bam_search.search.loop import SearchContext
from bam_search.search.study import Study, load_study
from bam_search.space.placement import Placement
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.task import TOP1_ERROR


def invented(records: int, startup: int = 12) -> tuple[Study, SearchContext]:
    """The placement study of so many candidates."""
    flags = {"space": "resnet18", "trials": records, "workers": 1, "startup": startup}
    study = load_study("placement", choose("cpu"), flags, [])
    return study, context_of(study.space, study.references)


def context_of(space_name: str, references: Mapping[str, str]) -> SearchContext:
    """The search context of trainings that are invented, on this space."""
    space = load(space_name, CIFAR_INPUTS)
    sites = sites_of(space)
    return SearchContext(
        "invented",
        TOP1_ERROR,
        {name: resolve(text, sites) for name, text in references.items()},
        sites,
        choice_space_of(space, sites),
        cost_table(space, sites),
    )


def at_once(job: Job) -> "Future[Result]":
    """A score that depends on the job alone."""
    rng = random.Random(job.placement)
    error = (
        60
        - sum(
            random.Random(word).uniform(-0.5, 1)
            for word in Placement.parse(job.placement).text.split()
        )
        + rng.gauss(0, 0.5)
    )
    future: Future[Result] = Future()
    future.set_result(
        Result(Score(error, 1.5, 1000, (EpochResult(3.0, 70.0), EpochResult(2.0, error)), 1.0))
    )
    return future
