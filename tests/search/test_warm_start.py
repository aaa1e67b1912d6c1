"""A search whose candidates start from a trained backbone, with invented scores."""

import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from invented import CPU, PLACEMENT, PLAN, memory_store, study, truth

from bam_search.errors import RunError, UserError
from bam_search.model.start import Start
from bam_search.score.evaluate import Job, Result, Score
from bam_search.search.finalists import choose_finalists, train_finalists
from bam_search.search.loop import random_baseline, search
from bam_search.search.study import Study, load_study
from bam_search.search.warm_start import BACKBONE, Backbone
from bam_search.study.record import Record

WEIGHTS = b"those of a trained backbone"
START = Start(weights=WEIGHTS)


class AtOnce:
    """An executor that trains at once, and keeps the jobs."""

    def __init__(self, score: Callable[[Job], Result]) -> None:
        self.ran: list[Job] = []
        self._score = score

    def __call__(self, job: Job) -> "Future[Result]":
        self.ran.append(job)
        future: Future[Result] = Future()
        future.set_result(self._score(job))
        return future


def by_loss(job: Job) -> Result:
    """The metric is luck; the loss says which placement is good."""
    luck = random.Random(f"{job.placement}{job.seed}").uniform(70, 90)
    return Result(Score(luck, 1.0, 1000, (), 0.1, loss=truth(job.placement) / 20))


def warm(**fields: object) -> Study:
    recipe = replace(PLACEMENT.recipe, epochs=3)
    return study(scoring="warm_start", recipe=recipe, random_baseline=True, **fields)


def ignore(_record: Record) -> None:
    """What is called with each finished record."""


def test_the_backbone_trains_once_and_is_kept(tmp_path: Path) -> None:
    pool = AtOnce(lambda _job: Result(Score(80.0, 1.0, 1000, (), 12.5, weights=WEIGHTS)))
    assert Backbone.read(tmp_path) is None
    Backbone.trained(warm(), pool).write(tmp_path)
    # Twice as long as a finalist, who trains for 3 epochs.
    assert pool.ran == [Job("none", PLACEMENT.seed, 6, keep_weights=True)]
    found = Backbone.read(tmp_path)
    assert found == Backbone(WEIGHTS, 12.5)
    before = Start(slow=("conv.weight",), factor=0.1)
    assert found.start(before) == replace(before, weights=WEIGHTS)


def test_a_backbone_that_is_damaged_or_fails(tmp_path: Path) -> None:
    (tmp_path / BACKBONE).write_bytes(b"half of a file")
    assert Backbone.read(tmp_path) is None
    fails = AtOnce(lambda _job: Result(None, "Traceback\nDiverged: the loss became nan"))
    with pytest.raises(RunError, match="cannot be trained: Diverged: the loss became nan"):
        Backbone.trained(warm(), fails)


def test_candidates_start_from_it_and_finalists_do_not() -> None:
    context = warm(trials=10, startup=2)
    store, pool, about = memory_store(context), AtOnce(by_loss), replace(PLAN, start=START)
    search(context, about, store, pool, ignore)  # type: ignore[arg-type]
    random_baseline(context, about, store, pool, ignore)  # type: ignore[arg-type]
    searched = len(pool.ran)
    train_finalists(context, about, store, pool, ignore)  # type: ignore[arg-type]
    # Half as long as finalists, rounded up.
    assert {(job.start, job.epochs, job.final) for job in pool.ran[:searched]} == {
        (START, 2, False)
    }
    assert {(job.start, job.epochs, job.final) for job in pool.ran[searched:]} == {(None, 3, True)}
    records = store.records().values()
    assert {(r.scoring, r.epochs, r.final_epochs) for r in records} == {("warm_start", 2, 3)}
    # The random search has the same training cost: two epochs a candidate.
    main = [record for record in records if record.is_searched]
    drawn = [record for record in records if record.is_random]
    assert len(drawn) == len(main) - context.startup


def test_the_loss_decides_what_is_proposed_and_who_is_a_finalist() -> None:
    context, store = warm(trials=30), memory_store(warm())
    search(context, replace(PLAN, start=START), store, AtOnce(by_loss), ignore)  # type: ignore[arg-type]
    searched = [record for record in store.records().values() if record.is_searched]
    early, late = searched[: context.startup], searched[context.startup :]

    def mean(records: list[Record]) -> float:
        return sum(truth(record.placement) for record in records) / len(records)

    assert mean(late) < mean(early) - 2  # the metric, which is luck, could not lead there
    best = min(searched, key=lambda record: record.score)
    finalists = choose_finalists(context, PLAN.choice_space, list(store.records().values()))
    assert best.number in {record.number for record in finalists}
    luckiest = min(searched, key=lambda record: record.val_metric or 100)
    assert luckiest.number not in {record.number for record in finalists}


def test_a_task_without_a_loss_says_so() -> None:
    store = memory_store(warm())
    no_loss = AtOnce(lambda _job: Result(Score(80.0, 1.0, 1000, (), 0.1)))
    search(warm(trials=4), replace(PLAN, start=START), store, no_loss, ignore)  # type: ignore[arg-type]
    failures = {record.failure for record in store.records().values()}
    assert failures == {"NoLoss: the loss on validation samples is nan"}


def test_scoring_from_scratch_is_as_it_was() -> None:
    context = study(trials=4)
    assert (context.search_epochs, context.backbone_epochs) == (context.recipe.epochs, 0)
    pool, store = AtOnce(by_loss), memory_store(context)
    search(context, PLAN, store, pool, ignore)  # type: ignore[arg-type]
    assert all(job.start is None and not job.keep_weights for job in pool.ran)
    for record in store.records().values():
        assert (record.score, record.scoring) == (record.val_metric, "scratch")


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["scoring=warm"], "no scoring 'warm'"),
        (["scoring=warm_start", "rungs.epochs=[1]"], "rungs.epochs = [1] with scoring"),
        (["scoring=warm_start", "start.insertion=identity"], 'start.insertion = "identity" with'),
    ],
)
def test_what_does_not_fit_is_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study("placement", CPU, {}, assignments)
    assert message in str(caught.value)
