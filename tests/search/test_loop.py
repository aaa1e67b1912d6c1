"""The study loop with invented scores: order, duplicates, failures, and that an interrupted study ends like an uninterrupted one."""

import random
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.menu import menu
from bam_search.score.cost_table import cost_table
from bam_search.score.device import Device
from bam_search.score.evaluate import Job, Result, Score
from bam_search.score.train import Epoch
from bam_search.search.loop import FRESH, Plan, finalists, finals, search
from bam_search.search.record import REFERENCE, Record
from bam_search.search.store import Store, open_store
from bam_search.search.study import Study, load_study
from bam_search.space.search_space import SearchSpace, load_space

SPACE = load_space("small")
SITES = sites_of(SPACE)
REFERENCES = load_study("placement", Device("cpu", "", "", False), {}, []).references
PLAN = Plan(
    "invented", {name: resolve(text, SITES) for name, text in REFERENCES.items()}, SITES, menu(SPACE, SITES), cost_table(SPACE, SITES)
)


def study(trials: int = 16, workers: int = 1) -> Study:
    return load_study("placement", Device("cpu", "", "", False), {"trials": trials, "workers": workers}, [])


def invent(job: Job) -> Result:
    """A score that depends on the job alone; candidates with r = 4 at layer1 crash."""
    rng = random.Random(f"{job.placement}{job.seed}{job.final}")
    if "layer1=bam(r=4" in job.placement:
        return Result(None, "Traceback\nRuntimeError: deliberate")
    return Result(Score(rng.uniform(70, 90), 1000, (Epoch(3.0, None if job.final else 80.0),), 0.1))


class Shuffled:
    """A stand-in for a pool: jobs finish in a random order, when waited for. Counts what it runs."""

    def __init__(self, stop_after: int | None = None, order: int = 0) -> None:
        self.ran: list[Job] = []
        self._stop = stop_after
        self._rng = random.Random(order)
        self._waiting: list[tuple[Future[Result], Job]] = []

    def __call__(self, job: Job) -> Future[Result]:
        if self._stop is not None and len(self.ran) >= self._stop:
            raise KeyboardInterrupt
        future: Future[Result] = Future()
        self._waiting.append((future, job))
        self.ran.append(job)
        return future

    def finish_one(self) -> None:
        future, job = self._waiting.pop(self._rng.randrange(len(self._waiting)))
        future.set_result(invent(job))


@pytest.fixture(autouse=True)
def _wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting lets one of the shuffled jobs finish."""
    import concurrent.futures

    from bam_search.search import loop

    def wait(pending: dict[Future[Result], Record], return_when: str) -> object:
        Current.pool.finish_one()
        return concurrent.futures.wait(pending, timeout=0, return_when=return_when)

    monkeypatch.setattr(loop, "wait", wait)


class Current:
    """The pool that `wait` drives."""

    pool: Shuffled


def run(folder: Path, plan: Study, pool: Shuffled, with_finals: bool = True) -> Store:
    Current.pool = pool
    store = open_store(folder, {}, plan.objectives)
    search(plan, PLAN, store, pool, lambda _record: None)
    if with_finals:
        finals(plan, store, pool, lambda _record: None)
    return store


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_references_come_first_and_no_design_twice(tmp_path: Path, workers: int) -> None:
    plan = study(30, workers)
    records = list(run(tmp_path, plan, Shuffled()).records().values())
    assert [record.number for record in records] == list(range(30))
    assert [record.name for record in records[:4]] == list(plan.references)
    assert [record.origin for record in records[:5]] == [REFERENCE] * 4 + ["search"]
    assert len({record.id for record in records}) == 30


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_of_finishing_does_not_matter(tmp_path: Path, workers: int) -> None:
    one = run(tmp_path / "a", study(20, workers), Shuffled(order=1)).records()
    two = run(tmp_path / "b", study(20, workers), Shuffled(order=2)).records()
    assert one == two


@pytest.mark.parametrize("stop", [1, 3, 7, 15, 17, 19])
@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_study_ends_like_an_uninterrupted_one(tmp_path: Path, stop: int, workers: int) -> None:
    plan = study(16, workers)
    whole, first, second = Shuffled(), Shuffled(stop, order=3), Shuffled(order=4)
    expected = run(tmp_path / "whole", plan, whole).records()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", plan, first)
    kept = open_store(tmp_path / "cut", {}, plan.objectives).records()
    assert run(tmp_path / "cut", plan, second).records() == expected
    # Nothing that was finished ran again.
    finished = sum(1 + record.tested for record in kept.values())
    assert len(second.ran) == len(whole.ran) - finished


def test_more_trials_extend_a_study(tmp_path: Path) -> None:
    before = run(tmp_path, study(10), Shuffled(), with_finals=False).records()
    pool = Shuffled()
    after = run(tmp_path, study(14), pool, with_finals=False).records()
    assert {number: after[number] for number in before} == before
    assert len(pool.ran) == 4


def test_a_failed_candidate_is_a_record_and_no_finalist(tmp_path: Path) -> None:
    records = run(tmp_path, study(30), Shuffled()).records()
    failed = [record for record in records.values() if not record.complete]
    assert failed
    assert all("deliberate" in record.failure and record.params is not None and not record.tested for record in failed)


def test_only_references_and_front_are_tested_with_a_fresh_seed(tmp_path: Path) -> None:
    plan, pool = study(16), Shuffled()
    records = run(tmp_path, plan, pool).records()
    tested = {number for number, record in records.items() if record.tested}
    assert tested == {record.number for record in finalists(plan, list(records.values()))}
    assert {0, 1, 2, 3} <= tested
    assert len(tested) < 16
    assert all(job.seed == (plan.seed + FRESH if job.final else plan.seed) for job in pool.ran)
    assert all(records[number].test_seed == plan.seed + FRESH for number in tested)


def test_the_search_ends_when_the_space_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = SearchSpace("tiny", SPACE.backbone, sites=("layer1", "layer2"), modules={"se": {"r": (16,)}})
    monkeypatch.setitem(globals(), "PLAN", replace(PLAN, menu=menu(tiny, SITES)))
    records = run(tmp_path, study(20, workers=2), Shuffled()).records()
    assert [record.placement for record in records.values() if record.origin == "search"] != []
    assert len(records) == 4 + 3  # four placements of which "none" is a reference
