"""The search loop with invented scores.

Tests are on order, duplicates, failures, rungs, the random baseline and limits, and that an
interrupted study ends like an uninterrupted one.
"""

import functools
import math
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from conftest import database
from invented import (
    MIDDLE,
    PLACEMENT,
    PLAN,
    SITES,
    SPACE,
    TINY,
    Shuffled,
    invent,
    memory_store,
    study,
    train,
    with_everything,
)
from optuna.trial import TrialState

from bam_search.errors import RunError
from bam_search.model.attention import canonical
from bam_search.model.choice_space import choice_space_of
from bam_search.score.evaluate import Job, Result
from bam_search.score.latency_table import LatencyTable
from bam_search.search.executors import Submit
from bam_search.search.finalists import FRESH, choose_finalists, train_finalists
from bam_search.search.loop import SearchContext, search
from bam_search.search.pruner import should_stop
from bam_search.search.store import open_store
from bam_search.search.study import FinalistPlan, Rungs, Study
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace
from bam_search.study.record import ABLATION, RANDOM, REFERENCE, SEARCH, Record


def rungs(
    trials: int = 46,
    epochs: tuple[int, ...] = (1, 2),
    margin: float = 0.5,
    control: float = 0.0,
    startup: int = 4,
) -> Study:
    """A study of 4 epochs with rungs, and with a sampler that proposes bad candidates too."""
    recipe = replace(PLACEMENT.recipe, epochs=4)
    return study(
        trials,
        sampler="random",
        startup=startup,
        recipe=recipe,
        rungs=Rungs(epochs, margin, control),
    )


def of(records: dict[int, Record], origin: str) -> list[Record]:
    return [record for record in records.values() if record.origin == origin]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_references_come_first_and_no_design_twice(workers: int) -> None:
    context = study(30, workers)
    records = list(train(context, memory_store(context), Shuffled()).values())
    assert [record.number for record in records] == list(range(30))
    assert [record.name for record in records[:4]] == list(context.references)
    assert [record.origin for record in records[:5]] == [REFERENCE] * 4 + ["search"]
    assert len({record.id for record in records}) == 30


@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_that_is_over_ends_and_its_proposals_are_those_of_the_whole_one(
    workers: int,
) -> None:
    context = study(20, workers)
    whole = train(context, memory_store(context), Shuffled(), with_finals=False)
    store = memory_store(context)

    def is_over() -> bool:
        return len(store.records()) >= 9

    cut = train(context, store, Shuffled(), with_finals=False, is_over=is_over)
    assert 9 <= len(cut) < 20
    assert cut == {number: whole[number] for number in cut}
    # A run with more time goes on with the next proposal.
    assert train(context, store, Shuffled(), with_finals=False) == whole


def test_a_search_has_its_references_and_one_candidate_however_little_time_there_is() -> None:
    context = study(20)
    records = train(context, memory_store(context), Shuffled(), is_over=lambda: True)
    assert [record.origin for record in records.values()] == [REFERENCE] * 4 + [SEARCH]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_of_finishing_does_not_matter(workers: int) -> None:
    for context in (study(20, workers), with_everything(20, workers)):
        one, two = (
            train(context, memory_store(context), Shuffled(order=order)) for order in (1, 2)
        )
        assert one == two


@functools.cache
def uninterrupted(workers: int) -> tuple[Study, Shuffled, dict[int, Record]]:
    """A study, the pool that trained it at one go, and its records."""
    context, whole = study(16, workers), Shuffled()
    return context, whole, train(context, memory_store(context), whole)


@pytest.mark.parametrize("stop", [1, 3, 7, 15, 17, 19])
@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_study_ends_like_an_uninterrupted_one(
    tmp_path: Path, stop: int, workers: int
) -> None:
    context, whole, expected = uninterrupted(workers)
    first, second = Shuffled(stop, order=3), Shuffled(order=4)
    with pytest.raises(KeyboardInterrupt):
        train(context, open_store(tmp_path, {}, context.objectives), first)
    store = open_store(tmp_path, {}, context.objectives)
    finished = len(store.records()) + len(store.final_seeds())
    assert train(context, open_store(tmp_path, {}, context.objectives), second) == expected
    # Nothing that was finished ran again.
    assert len(second.ran) == len(whole.ran) - finished


class AtOnce:
    """A pool whose jobs have all ended by the time that one is asked for; it keeps them."""

    def __init__(self) -> None:
        self.ran: list[Job] = []

    def __call__(self, job: Job) -> Future[Result]:
        self.ran.append(job)
        future: Future[Result] = Future()
        future.set_result(invent(job))
        return future


@pytest.mark.parametrize("stop", [1, 2, 9, 18, 25])
@pytest.mark.parametrize("reason", [KeyboardInterrupt(), RunError("no space left")])
def test_what_has_ended_by_the_time_of_an_interruption_is_kept(
    tmp_path: Path, stop: int, reason: BaseException
) -> None:
    context, pool, told = study(16, workers=3), AtOnce(), []

    def interrupted(record: Record) -> None:
        told.append(record)
        if len(told) == stop:
            raise reason

    submit: Submit = pool  # type: ignore[assignment]
    store = open_store(tmp_path, {}, context.objectives)

    def whole() -> None:
        search(context, PLAN, store, submit, interrupted)
        train_finalists(context, PLAN, store, submit, interrupted)

    with pytest.raises(type(reason)):
        whole()
    again = open_store(tmp_path, {}, context.objectives)
    assert len(again.records()) + len(again.final_seeds()) == len(pool.ran) > stop
    trials = optuna.load_study(study_name="study", storage=database(tmp_path / "study.db")).trials
    assert len(trials) == len(again.records())  # none is kept twice


@functools.cache
def eventful(workers: int) -> tuple[Study, Shuffled, dict[int, Record]]:
    """A study in which everything happens, with its pool and its records.

    There are stops, a random baseline, further seeds, ablations and failures.
    """
    fields = {
        "startup": 3,
        "recipe": replace(PLACEMENT.recipe, epochs=2),
        "rungs": Rungs((1,), 0.0, 0.3),
        "finalists": FinalistPlan(3, 5, 0.5),
    }
    for seed in range(50):
        context, pool = replace(with_everything(14, workers), seed=seed, **fields), Shuffled()
        records = train(context, memory_store(context), pool, MIDDLE)
        found = list(records.values())
        if (
            {record.origin for record in found} == {REFERENCE, SEARCH, RANDOM, ABLATION}
            and any(record.stopped for record in found)
            and any(len(record.test_metrics) > 3 for record in found)
            and any(record.failure for record in found)
            and any(record.test_failure for record in found)
        ):
            return context, pool, records
    raise AssertionError("no such study among 50 seeds")


def test_only_the_full_trainings_of_references_are_measured_after_each_epoch() -> None:
    context, pool, records = eventful(1)
    curves = [job for job in pool.ran if job.each_epoch]
    references = [record for record in records.values() if record.is_reference]
    assert [job.placement for job in curves] == [record.placement for record in references]
    assert {(job.epochs, job.final) for job in curves} == {(context.recipe.epochs, False)}


@pytest.mark.parametrize("workers", [1, 3])
def test_rungs_random_arm_and_finals_interrupted_at_any_job_end_the_same(workers: int) -> None:
    context, whole, expected = eventful(workers)
    for stop in range(workers - 1, len(whole.ran), workers):
        store, first, second = (
            memory_store(context),
            Shuffled(stop, order=stop),
            Shuffled(order=stop + 1),
        )
        with pytest.raises(KeyboardInterrupt):
            train(context, store, first, MIDDLE)
        done = [
            Job(r.placement, r.seed, n, each_epoch=r.is_reference and n == r.epochs)
            for r in store.records().values()
            for n in (*r.rung_epochs, *((r.epochs,) * r.complete))
        ]
        done += [
            Job(expected[number].placement, seed, 2, final=True)
            for number, seed in store.final_seeds()
        ]
        assert train(context, store, second, MIDDLE) == expected
        assert not set(done) & set(second.ran)  # nothing that was finished ran again


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("staged", [False, True])
def test_as_many_trials_run_as_there_are_workers(workers: int, staged: bool) -> None:
    context = replace(rungs(trials=24), workers=workers, random_baseline=True)
    context = replace(context, rungs=Rungs((1, 2) if staged else (), 0.5, 0.0))
    store, most = memory_store(context), []

    class Watched(Shuffled):
        def finish_one(self) -> None:
            states = Counter(trial.state for trial in store._study.get_trials(deepcopy=False))
            most.append((states[TrialState.RUNNING], len(self._waiting)))
            super().finish_one()

    records = train(context, store, Watched(), with_finals=False)
    # A candidate whose next rung is in line runs on.
    for running, jobs in most:
        assert min(workers, jobs) <= running <= (jobs if staged else workers)
    trials = store._study.get_trials()
    assert {trial.user_attrs["candidate"] for trial in trials} == set(records)
    assert [trial.user_attrs["candidate"] for trial in trials[:24]] == list(range(24))
    ended = {TrialState.COMPLETE, TrialState.FAIL}
    assert {trial.state for trial in trials} == ended | ({TrialState.PRUNED} if staged else set())
    for trial in trials:
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert trial.datetime_start <= trial.datetime_complete


def test_more_trials_extend_a_study() -> None:
    store, pool = memory_store(study()), Shuffled()
    before = train(study(10), store, Shuffled(), with_finals=False)
    after = train(study(14), store, pool, with_finals=False)
    assert {number: after[number] for number in before} == before
    assert len(pool.ran) == 4


def test_a_failed_candidate_is_a_record_and_no_finalist() -> None:
    records = train(study(30, startup=26), memory_store(study()), Shuffled())
    failed = [record for record in records.values() if not record.complete]
    assert failed
    assert all(
        "deliberate" in record.failure and record.params > 0 and not record.test_seeds
        for record in failed
    )


def test_only_references_and_front_are_tested_with_a_fresh_seed() -> None:
    context, pool = study(16), Shuffled()
    records = train(context, memory_store(context), pool)
    tested = {
        number for number, record in records.items() if record.test_seeds or record.test_failure
    }
    assert tested == {
        record.number
        for record in choose_finalists(context, PLAN.choice_space, list(records.values()))
    }
    assert {0, 1, 2, 3} <= tested
    assert len(tested) < 16
    assert all(
        job.seed == (context.seed + FRESH if job.final else context.seed) for job in pool.ran
    )
    assert all(records[number].test_seeds in ((context.seed + FRESH,), ()) for number in tested)


def test_the_search_ends_when_the_space_does() -> None:
    few = SearchSpace(
        "few", SPACE.backbone, sites=("layer1", "layer2"), modules={"se": {"r": (16,)}}
    )
    context = study(20, workers=2)
    records = train(
        context,
        memory_store(context),
        Shuffled(),
        replace(PLAN, choice_space=choice_space_of(few, SITES)),
    )
    assert [record.placement for record in records.values() if record.is_searched] != []
    assert len(records) == 4 + 3  # four placements of which "none" is a reference


def test_a_stopped_candidate_has_rung_errors_and_is_not_trained_to_the_end() -> None:
    context, pool = rungs(), Shuffled()
    store = memory_store(context)
    records = train(context, store, pool, with_finals=False)
    stopped = [record for record in records.values() if record.stopped]
    assert len(stopped) >= 5
    assert {len(record.rung_metrics) for record in stopped} == {1, 2}  # after either rung
    for record in stopped:
        done = [job.epochs for job in pool.ran if job.placement == record.placement]
        assert tuple(done) == record.rung_epochs == (1, 2)[: len(done)]
        assert [invent(Job(record.placement, 0, epochs)).score.value for epochs in done] == list(
            record.rung_metrics
        )  # type: ignore[union-attr]
        assert (record.val_metric, record.failure, record.control, record.complete) == (
            None,
            "",
            False,
            False,
        )
        assert record.seconds == pytest.approx(0.1 * len(done))
        assert record.trained_epochs == sum(done)
    for record in records.values():
        if record.complete:
            assert (record.rung_epochs, record.trained_epochs, record.seconds) == (
                (1, 2),
                7,
                pytest.approx(0.3),
            )
    again = Shuffled()
    assert train(context, store, again, with_finals=False) == records
    assert again.ran == []


def test_a_stop_names_a_rival_that_was_known_when_the_candidate_was_proposed() -> None:
    records = train(rungs(), memory_store(rungs()), Shuffled(), with_finals=False)
    for record in records.values():
        if record.stopped:
            rival = records[int(record.stopped.split("#")[1].split()[0])]
            assert rival.number < record.number
            assert rival.complete
            assert rival.params_overhead <= record.params_overhead
            assert rival.macs_conv_fc_overhead <= record.macs_conv_fc_overhead
            assert f"{rival.val_metric:.1f} %" in record.stopped


def test_references_and_the_startup_are_never_stopped() -> None:
    context = rungs(startup=16, margin=0.0)
    records = train(context, memory_store(context), Shuffled(), with_finals=False)
    first = [records[number] for number in range(20)]
    assert all(record.complete or record.failure for record in first)
    assert not any(record.stopped or record.control for record in first)
    # It was not for lack of bad ones among them.
    short = [
        replace(record, rung_epochs=(1,), rung_metrics=record.rung_metrics[:1])
        for record in first
        if record.complete
    ]
    assert (
        sum(
            bool(should_stop(record, first[: record.number], context.costs, 0.0))
            for record in short
            if record.is_searched
        )
        >= 3
    )


def test_control_candidates_go_on_to_the_end() -> None:
    context = rungs(control=1.0)
    records = train(context, memory_store(context), Shuffled(), with_finals=False)
    control = [record for record in records.values() if record.control]
    assert len(control) >= 3
    assert all(
        record.complete and not record.stopped and record.rung_epochs == (1, 2)
        for record in control
    )
    assert not any(record.stopped for record in records.values())


def test_a_crash_at_a_rung_is_a_failure() -> None:
    context = rungs()
    about = replace(
        PLAN, references={**PLAN.references, "crashes": Placement.parse("layer1=bam(r=4)")}
    )
    pool = Shuffled()
    record = train(context, memory_store(context), pool, about, with_finals=False)[4]
    assert "deliberate" in record.failure
    assert (record.rung_metrics, record.stopped, record.trained_epochs) == ((), "", 0)
    assert [job.epochs for job in pool.ran if job.placement == record.placement] == [1]


def test_the_random_arm_has_the_cost_of_the_search_and_no_rungs() -> None:
    context, pool = replace(rungs(), random_baseline=True), Shuffled()
    store = memory_store(context)
    records = train(context, store, pool, with_finals=False)
    spent = sum(record.trained_epochs for record in of(records, SEARCH))
    assert any(record.stopped for record in of(records, SEARCH))
    drawn = of(records, RANDOM)
    assert len(drawn) == math.ceil(spent / 4) - context.startup
    assert 0 <= 4 * (len(drawn) + context.startup) - spent < 4
    startup = [records[number].id for number in range(4, 4 + context.startup)]
    assert len({record.id for record in drawn} | set(startup)) == len(drawn) + context.startup
    assert all(
        record.rung_metrics == () and not record.stopped and not record.control for record in drawn
    )
    assert [record.tag for record in drawn] == [f"R{index}" for index in range(len(drawn))]
    again = Shuffled()
    assert train(context, store, again, with_finals=False) == records
    assert again.ran == []


def test_the_random_arm_trains_nothing_again_that_the_search_has_trained() -> None:
    about = replace(PLAN, choice_space=TINY)
    context, pool = study(4 + 6, sampler="additive", startup=2, random_baseline=True), Shuffled()
    store = memory_store(context)
    records = train(context, store, pool, about)
    drawn, own = (
        of(records, RANDOM),
        {record.id: record for record in records.values() if not record.is_random},
    )
    assert len(drawn) == 4
    repeated = [record for record in drawn if record.id in own]
    assert repeated
    for record in repeated:
        known = own[record.id]
        same = {"number": record.number, "origin": RANDOM, "name": ""}
        tests = (
            "test_metrics",
            "test_standard_errors",
            "test_seeds",
            "test_samples",
            "test_seconds",
            "test_micro_batches",
            "test_failure",
        )
        # It took no time.
        assert replace(record, **{key: getattr(known, key) for key in tests}) == replace(
            known, **same, seconds=0.0
        )
    assert max(Counter(pool.searched).values()) == 1


def test_without_a_random_arm_there_is_none() -> None:
    records = train(rungs(), memory_store(rungs()), Shuffled())
    assert of(records, RANDOM) == []


@pytest.mark.parametrize("sampler", ["additive", "tpe"])
def test_nothing_over_a_limit_is_proposed_or_trained(sampler: str) -> None:
    context = replace(
        with_everything(20), sampler=sampler, max_params_overhead=1.0, max_macs_overhead=1.5
    )
    pool = Shuffled()
    records = train(context, memory_store(context), pool)
    for origin, at_least in ((SEARCH, 16), (RANDOM, 3), (ABLATION, 1)):
        found = of(records, origin)
        assert len(found) >= at_least
        assert max(record.params_overhead for record in found) <= 1.0
        assert max(record.macs_conv_fc_overhead for record in found) <= 1.5
    allowed = {
        record.placement
        for record in records.values()
        if record.params_overhead <= 1 and record.macs_conv_fc_overhead <= 1.5
    }
    pinned = {placement.text for placement in PLAN.references.values()}
    assert {job.placement for job in pool.ran} <= allowed | pinned
    # The limits bind: without them the search goes beyond.
    free = replace(context, max_params_overhead=None, max_macs_overhead=None)
    beyond = of(train(free, memory_store(free), Shuffled(), with_finals=False), SEARCH)
    assert max(record.params_overhead for record in beyond) > 1.0


def test_a_limit_on_what_is_no_objective_holds_too() -> None:
    context = study(
        14,
        sampler="additive",
        startup=4,
        objectives=("metric", "params_overhead"),
        max_macs_overhead=1.0,
    )
    found = of(train(context, memory_store(context), Shuffled(), with_finals=False), SEARCH)
    assert len(found) == 10
    assert max(record.macs_conv_fc_overhead for record in found) <= 1.0


def test_limits_below_everything_leave_the_references() -> None:
    context = study(20, max_params_overhead=1e-4)
    records = train(context, memory_store(context), Shuffled())
    assert [record.origin for record in records.values()] == [REFERENCE] * 4


def timed(about: SearchContext, key: str = "latency_overhead") -> SearchContext:
    """The context with a table in which each choice at the site number i adds i + 1 percent."""
    space, sites = about.choice_space, about.sites.by_name
    wanted = {site: space.choices(site) for site in space.sites}
    for reference in about.references.values():
        for site, choice in reference.choices:
            wanted.setdefault(site, []).append(choice)
    added: dict[str, dict[str, float]] = {}
    for i, (site, choices) in enumerate(wanted.items()):
        at = sites[site]
        written = [canonical(choice, at.channels, at.side, at.dims) for choice in choices]
        added[site] = {choice.text: i + 1.0 for choice in written}
    return replace(about, latencies=LatencyTable("a CPU", {key: added}, {key: 1.0}, 1.0))


@pytest.mark.parametrize("sampler", ["additive", "tpe"])
def test_nothing_over_a_limit_of_predicted_time_is_trained(sampler: str) -> None:
    about = timed(PLAN)
    limited = replace(with_everything(20), sampler=sampler, max_latency_overhead=4.0)
    records = train(limited, memory_store(limited), Shuffled(), about)
    predicted = [record.predicted_latency_overhead for record in of(records, SEARCH)]
    assert len(predicted) >= 10
    assert all(time is not None and 1 <= time <= 4 for time in predicted)
    # Sums of 1, 2 and 3 at three sites: the limit binds.
    free = replace(limited, max_latency_overhead=None)
    beyond = of(train(free, memory_store(free), Shuffled(), about, with_finals=False), SEARCH)
    assert max(record.predicted_latency_overhead or 0 for record in beyond) > 4


def test_fronts_and_proposals_can_be_over_predicted_time() -> None:
    objectives = ("metric", "latency_overhead")
    timely = study(20, sampler="additive", startup=4, objectives=objectives)
    store = memory_store(timely)
    records = train(timely, store, Shuffled(), timed(PLAN))
    chosen = choose_finalists(timely, PLAN.choice_space, list(records.values()))
    assert any(record.is_searched for record in chosen)
    # Another table of times gives other proposals, the same table the same.
    placements = [record.placement for record in of(records, SEARCH)]
    again = train(timely, memory_store(timely), Shuffled(order=5), timed(PLAN))
    assert [record.placement for record in of(again, SEARCH)] == placements
    table = timed(PLAN).latencies
    assert table is not None
    by_site = list(table.added["latency_overhead"].items())
    turned = {
        site: dict.fromkeys(texts, float(len(by_site) - i))
        for i, (site, texts) in enumerate(by_site)
    }
    other = replace(PLAN, latencies=replace(table, added={"latency_overhead": turned}))
    differently = train(timely, memory_store(timely), Shuffled(), other)
    assert [record.placement for record in of(differently, SEARCH)] != placements
