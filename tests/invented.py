"""Studies with invented trainings.

The score depends on the job alone, the pool finishes in any order, and the store is in memory.
"""

import concurrent.futures
import math
import random
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna

from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.score.cost_table import cost_table
from bam_search.score.device import Device
from bam_search.score.evaluate import Job, Result, Score
from bam_search.score.train import EpochResult
from bam_search.search import finalists as finals_room
from bam_search.search import loop
from bam_search.search.finalists import (
    NO_LIMIT,
    FinalsTime,
    train_ablations,
    train_finalists,
)
from bam_search.search.loop import SearchContext, random_baseline, search
from bam_search.search.store import Store
from bam_search.search.study import FinalistPlan, Rungs, Study, load_study
from bam_search.space.search_space import SearchSpace, load_space
from bam_search.study.record import Record
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import binomial

CPU = Device("cpu", "", "", False)
SPACE = load_space("small")
SITES = sites_of(SPACE)
PLACEMENT = load_study("placement", CPU, {}, [])
PLAN = SearchContext(
    "invented",
    TOP1_ERROR,
    {name: resolve(text, SITES) for name, text in PLACEMENT.references.items()},
    SITES,
    choice_space_of(SPACE, SITES),
    cost_table(SPACE, SITES),
)
MIDDLE = replace(
    PLAN,
    choice_space=choice_space_of(
        SearchSpace(
            "middle",
            SPACE.backbone,
            sites=("stage-ends",),
            modules={"bam": {"r": (4, 16), "d": (1, 4)}},
        ),
        SITES,
    ),
)
"""A search context whose choice space has 125 placements."""
TINY = choice_space_of(
    SearchSpace("tiny", SPACE.backbone, sites=("layer1", "layer2"), modules={"se": {"r": (4, 16)}}),
    SITES,
)
"""A choice space of 9 placements."""


def study(trials: int = 16, workers: int = 1, **fields: Any) -> Study:
    """The placement study with no rungs, no random baseline and one seed a finalist.

    `fields` override these.
    """
    plain = {
        "rungs": Rungs(),
        "random_baseline": False,
        "finalists": FinalistPlan(seeds=1, leave_one_out=False),
    }
    return replace(PLACEMENT, trials=trials, workers=workers, **{**plain, **fields})


def with_everything(trials: int, workers: int = 1) -> Study:
    """A study with everything that may happen.

    It has two rungs, a random baseline, finalists on several seeds and the recommended one
    without each of its sites.
    """
    return study(
        trials,
        workers,
        sampler="additive",
        startup=4,
        random_baseline=True,
        recipe=replace(PLACEMENT.recipe, epochs=4),
        rungs=Rungs((1, 2), margin=0.5, control=0.3),
        finalists=FinalistPlan(seeds=3, most=5, extra=0.5),
    )


def truth(placement: str) -> float:
    """The error that a placement tends to after 4 epochs: every choice helps, some a lot."""
    return 88 - sum(random.Random(word).uniform(0, 4) for word in placement.split())


def invent(job: Job) -> Result:
    """The invented result of a job.

    Shorter trainings are worse by 3 points an epoch and say less. With r = 4 at layer1 they crash,
    and final ones do at some seeds.
    """
    rng = random.Random(f"{job.placement} {job.seed} {job.epochs} {job.final}")
    if "layer1=bam(r=4" in job.placement or (
        job.final and rng.random() < 0.1 and job.placement != "none"
    ):
        return Result(None, "Traceback\nRuntimeError: deliberate")
    error = (
        truth(job.placement)
        + (4 - job.epochs) * (3 + rng.gauss(0, 0.5))
        + rng.gauss(0, 1.0 if job.final else 0.5)
    )
    return Result(
        Score(
            error,
            binomial(error, 1000),
            1000,
            (
                EpochResult(3.0, None if job.final else 95.0),
                EpochResult(2.0, None if job.final else error),
            ),
            0.1,
        )
    )


class Shuffled:
    """A stand-in for a pool: jobs finish in a random order, when waited for.

    Keeps what it was given and what finished.
    """

    def __init__(self, stop_after: float = math.inf, order: int = 0) -> None:
        self.ran: list[Job] = []
        self.finished: list[Job] = []
        self._stop = stop_after
        self._rng = random.Random(order)
        self._waiting: list[tuple[Future[Result], Job]] = []

    def __call__(self, job: Job) -> Future[Result]:
        if len(self.ran) >= self._stop:
            raise KeyboardInterrupt
        future: Future[Result] = Future()
        self._waiting.append((future, job))
        self.ran.append(job)
        return future

    def finish_one(self) -> None:
        future, job = self._waiting.pop(self._rng.randrange(len(self._waiting)))
        future.set_result(invent(job))
        self.finished.append(job)

    @property
    def searched(self) -> list[Job]:
        """The jobs of the search and its random baseline."""
        return [job for job in self.ran if not job.final]


def memory_store(context: Study) -> Store:
    """A store that lives as long as the test: much faster than a folder."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return Store(Path(), optuna.create_study(directions=["minimize"] * len(context.objectives)), {})


def train(
    context: Study,
    store: Store,
    pool: Shuffled,
    about: SearchContext = PLAN,
    with_finals: bool = True,
    is_over: Callable[[], bool] = lambda: False,
    time: FinalsTime = NO_LIMIT,
) -> dict[int, Record]:
    """Run or continue a study, as the command line does, and return its records.

    Jobs finish one by one, when they are waited for.
    """

    def wait(pending: Collection[Future[Result]], return_when: str) -> object:
        pool.finish_one()
        return concurrent.futures.wait(pending, timeout=0, return_when=return_when)

    with patch.object(loop, "wait", wait), patch.object(finals_room, "wait", wait):
        search(context, about, store, pool, lambda _record: None, is_over)
        if context.random_baseline:
            random_baseline(context, about, store, pool, lambda _record: None)
        if with_finals:
            train_finalists(context, about, store, pool, lambda _record: None, time)
            train_ablations(context, about, store, pool, lambda _record: None)
    return store.records()
