"""Finalists with invented errors.

Tests say who they are, which seeds they share, who gets further ones, and what the ablations are.
"""

import itertools
import random
from concurrent.futures import Future
from dataclasses import replace
from unittest.mock import patch

import pytest
from conftest import make_record
from invented import PLAN, SITES, TINY, Shuffled, memory_store, study, train, with_everything

from bam_search.analysis.additive import explain
from bam_search.analysis.pareto import pareto_front
from bam_search.model.attach import resolve
from bam_search.score.evaluate import Job, Result, Score
from bam_search.search.executors import Submit
from bam_search.search.finalists import (
    FRESH,
    NO_LIMIT,
    FinalsTime,
    ablations,
    choose_finalists,
    expected_front,
    nothing_left,
    still_contending,
    train_ablations,
    train_finalists,
)
from bam_search.search.store import Store
from bam_search.search.study import FinalistPlan, Study
from bam_search.study.record import ABLATION, FIRST, RANDOM, REFERENCE, Record

TEXTS = ("none", "layer1=bam", "layer2=bam", "layer1=bam layer2=bam layer3=bam(r=8)")
MEANS = {"none": 80.0, "layer1=bam": 76.0, "layer2=bam": 76.0, TEXTS[3]: 70.0}


def known(number: int, text: str, error: float | None, cost: float, **fields: object) -> Record:
    """A record of a real placement."""
    placement = resolve(text, SITES)
    return make_record(number, error, cost, placement=placement.text, id=placement.id, **fields)


def crafted() -> list[Record]:
    """Records with a clear reference, two of equal truth at rising costs, and a clear winner.

    One more record is no finalist.
    """
    return [
        known(0, TEXTS[0], 80.5, 0.0, origin=REFERENCE, name="no attention"),
        known(1, TEXTS[1], 76.3, 1.0),
        known(2, TEXTS[2], 75.9, 2.0),
        known(3, TEXTS[3], 70.2, 3.0),
        known(4, "layer3=bam", 79.0, 4.0),
    ]


def filled(context: Study, records: list[Record]) -> Store:
    """A store that holds these records."""
    store = memory_store(context)
    for record in records:
        store.add(
            record,
            [record.objective(key) for key in context.objectives] if record.complete else [],
        )
    return store


class Exact:
    """An executor that trains at once, and keeps the jobs.

    An error is the mean of the placement, plus the effect of the seed on all, plus noise.
    """

    def __init__(
        self, sd: float = 0.5, fails: tuple[tuple[str, int], ...] = (), stop_after: int = 10_000
    ) -> None:
        self.ran: list[Job] = []
        self._sd, self._fails, self._stop = sd, fails, stop_after

    def __call__(self, job: Job) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_result(self._result(job))
        return future

    def _result(self, job: Job) -> Result:
        if len(self.ran) >= self._stop:
            raise KeyboardInterrupt
        self.ran.append(job)
        if (job.placement, job.seed - FRESH) in self._fails:
            return Result(None, "Traceback\nRuntimeError: deliberate")
        shift, own = (
            random.Random(job.seed).gauss(0, 2),
            random.Random(f"{job.placement}{job.seed}").gauss(0, self._sd),
        )
        return Result(Score(MEANS.get(job.placement, 78.0) + shift + own, 1.0, 1000, (), 0.1))

    def seeds(self, text: str) -> list[int]:
        """The seeds that a placement was trained with, counted from the first fresh one."""
        return [job.seed - FRESH for job in self.ran if job.placement == text]


def final(
    context: Study, store: Store, pool: Exact, time: FinalsTime = NO_LIMIT
) -> dict[int, Record]:
    submit: Submit = pool  # type: ignore[assignment]
    train_finalists(context, PLAN, store, submit, lambda _record: None, time)
    train_ablations(context, PLAN, store, submit, lambda _record: None)
    return store.records()


def test_finalists_are_references_the_front_and_the_best_random_candidate() -> None:
    context = study()
    drawn = [
        known(FIRST[RANDOM] + i, f"layer3=bam(r={r})", e, 5.0, origin=RANDOM)
        for i, (r, e) in enumerate([(4, 75.0), (8, 72.0)])
    ]
    expensive = known(5, "every-block=bam", 90.0, 9.0, origin=REFERENCE, name="BAM in every block")
    failed = known(6, "layer2=bam(r=4)", None, 0.5, failure="Traceback")
    assert [
        r.number
        for r in choose_finalists(
            context, PLAN.choice_space, [*crafted(), expensive, failed, *drawn]
        )
    ] == [
        0,
        5,
        1,
        2,
        3,
        FIRST[RANDOM] + 1,
    ]
    # The random one must be another design.
    same = replace(drawn[1], placement=crafted()[3].placement, id=crafted()[3].id, val_metric=60.0)
    assert [r.number for r in choose_finalists(context, PLAN.choice_space, [*crafted(), same])] == [
        0,
        1,
        2,
        3,
    ]
    assert choose_finalists(context, PLAN.choice_space, [failed]) == []


def noisy() -> list[Record]:
    """Records in which attention helps at layer2 only, by 6 points.

    Luck makes layer1 look good once, and layer2 bad once.
    """
    shown = {
        "none": 80.0,
        "layer1=bam": 79.9,
        "layer1=bam(r=8)": 80.1,
        "layer1=bam(d=2)": 73.9,
        "layer2=bam": 80.2,
        "layer2=bam(r=8)": 74.0,
        "layer2=bam(d=2)": 74.1,
        "layer1=bam layer2=bam": 73.8,
        "layer1=bam layer2=bam(r=8)": 74.2,
        "layer1=bam(r=8) layer2=bam": 74.0,
    }
    costs = [len(text.split()) * (text != "none") + n / 100 for n, text in enumerate(shown)]
    known_as = [{"origin": REFERENCE, "name": "no attention"}] + [{}] * (len(shown) - 1)
    return [
        known(n, text, e, c, **fields)
        for n, ((text, e), c, fields) in enumerate(zip(shown.items(), costs, known_as, strict=True))
    ]


def test_the_expected_front_is_not_drawn_by_luck() -> None:
    context, records = study(), noisy()
    assert [r.placement for r in pareto_front(records, context.objectives)] == [
        "none",
        "layer1=bam",
        "layer1=bam(d=2)",
        "layer1=bam layer2=bam",
    ]
    expected = [r.placement for r in expected_front(context, PLAN.choice_space, records)]
    assert "layer2=bam(r=8)" in expected  # what was worse than a lucky one that is cheaper
    assert {r.placement for r in choose_finalists(context, PLAN.choice_space, records)} == {
        *expected,
        "layer1=bam layer2=bam",
    }


def test_what_was_not_measured_by_the_search_is_not_on_its_expected_front() -> None:
    context, records = study(), noisy()
    others = [
        known(10, "layer2=bam(r=4,d=1)", None, 0.001, failure="Traceback"),
        known(FIRST[RANDOM], "layer2=bam(r=4)", 70.0, 0.001, origin=RANDOM),
        known(
            11, "every-block=se", 60.0, 0.001, origin=REFERENCE, name="SE in every block"
        ),  # not in the choice space: nothing is expected of it
    ]
    assert {
        r.number for r in expected_front(context, PLAN.choice_space, [*records, *others])
    } <= set(range(10))
    assert expected_front(context, PLAN.choice_space, records[:5]) == []  # too few to learn from


def test_a_model_that_predicts_nothing_names_no_finalists() -> None:
    context, drawn = study(), []
    for seed in range(10):
        rng = random.Random(seed)
        luck = [replace(record, val_metric=80 + rng.gauss(0, 1)) for record in noisy()]
        found = explain(luck, PLAN.choice_space)
        assert found is not None
        drawn.append(found.loo_rmse < found.loo_rmse_of_mean)
        assert bool(expected_front(context, PLAN.choice_space, luck)) == drawn[-1]
    assert {True, False} == set(drawn)


def test_all_finalists_and_ablations_have_the_same_first_seeds() -> None:
    context, pool = study(finalists=FinalistPlan(seeds=3, most=3)), Exact()
    records = final(context, filled(context, crafted()), pool)
    tested = {number: record for number, record in records.items() if record.test_seeds}
    assert [r.number for r in tested.values() if not r.is_ablation] == [0, 1, 2, 3]
    assert len([r for r in tested.values() if r.is_ablation]) == 3
    assert all(
        record.test_seeds == tuple(context.seed + FRESH + i for i in range(3))
        for record in tested.values()
    )
    assert [job for job in pool.ran if not job.final] == []
    # A seed at a time, so that an interrupted study has whole rounds.
    seeds = [0] * 4 + [1] * 4 + [2] * 4 + [0] * 3 + [1] * 3 + [2] * 3
    assert [job.seed - FRESH for job in pool.ran] == seeds


def test_further_seeds_go_to_those_on_which_the_recommendation_hangs() -> None:
    plan = FinalistPlan(seeds=3, most=6, extra=10.0, leave_one_out=False)
    context = study(finalists=plan)
    close = [
        *crafted()[:3],
        known(3, TEXTS[3], 70.2, 3.0),
        known(4, "layer3=bam(r=8)", 70.3, 2.5),
    ]
    for sd, is_clear in ((0.05, True), (1.5, False)):
        pool = Exact(sd)
        with patch.dict(MEANS, {"layer3=bam(r=8)": 71.0}):
            final(context, filled(context, close), pool)
        seeds = {text: len(pool.seeds(text)) for text in (*TEXTS, "layer3=bam(r=8)")}
        # Five points behind and more, these decide nothing.
        assert [seeds[text] for text in TEXTS[:3]] == [3, 3, 3]
        assert seeds[TEXTS[3]] == seeds["layer3=bam(r=8)"]
        assert (seeds[TEXTS[3]] == 3) == is_clear


def test_a_clear_recommendation_takes_no_further_seeds() -> None:
    plan = FinalistPlan(seeds=3, most=6, extra=10.0, leave_one_out=False)
    pool = Exact()
    final(study(finalists=plan), filled(study(), crafted()), pool)
    assert [len(pool.seeds(text)) for text in TEXTS] == [3, 3, 3, 3]


def test_a_budget_gives_all_finalists_further_seeds_as_long_as_they_fit() -> None:
    plan = FinalistPlan(seeds=3, most=9, extra=2.0, leave_one_out=False)
    fitting = iter([True] * 3 + [True, True, False])  # the first seeds, and further ones
    time = FinalsTime(lambda _trainings: next(fitting), fills=True)
    pool = Exact()
    final(study(finalists=plan), filled(study(), crafted()), pool, time)
    assert [len(pool.seeds(text)) for text in TEXTS] == [5, 5, 5, 5]


def test_where_time_becomes_short_the_least_promising_get_no_more_seeds() -> None:
    plan = FinalistPlan(seeds=3, most=3, leave_one_out=False)
    pool = Exact()
    # After the first round there is time for three finalists only.
    time = FinalsTime(lambda trainings: trainings in (12, 6, 3))
    store = filled(study(), crafted())
    final(study(finalists=plan), store, pool, time)
    seeds = [len(pool.seeds(text)) for text in TEXTS]
    assert sorted(seeds) == [1, 3, 3, 3]
    tested = [record for record in store.records().values() if record.test_seeds]
    assert all(len(record.test_seeds) == 3 for record in tested if record.is_reference)
    worst = max(
        (record for record in tested if not record.is_reference),
        key=lambda record: record.test_objectives[0],
    )
    assert len(worst.test_metrics) == 1


def test_seeds_that_an_extended_study_has_need_no_time() -> None:
    short = FinalistPlan(seeds=2, most=2, leave_one_out=False)
    store, pool = filled(study(), crafted()), Exact()
    final(study(finalists=short), store, pool)
    asked: list[int] = []

    def fits(trainings: int) -> bool:
        asked.append(trainings)
        return trainings <= 4

    longer = FinalistPlan(seeds=3, most=3, leave_one_out=False)
    final(study(finalists=longer), store, pool, FinalsTime(fits))
    assert [len(pool.seeds(text)) for text in TEXTS] == [3, 3, 3, 3]
    assert asked[0] == 4  # one seed more for each of four, where two are known


def test_a_time_limit_ends_further_seeds_and_adds_none() -> None:
    plan = FinalistPlan(seeds=3, most=9, extra=2.0, leave_one_out=False)
    for sd, fits in ((1.5, False), (0.0, True)):
        pool, asked = Exact(sd), itertools.count()
        time = FinalsTime(lambda _trainings, asked=asked, fits=fits: next(asked) < 3 or fits)
        final(study(finalists=plan), filled(study(), crafted()), pool, time)
        assert [len(pool.seeds(text)) for text in TEXTS] == [3, 3, 3, 3]


@pytest.mark.parametrize(("extra", "rounds"), [(0.0, 0), (0.9, 2), (1.1, 3)])
def test_further_rounds_stay_within_their_share(extra: float, rounds: int) -> None:
    # 4 finalists with 3 seeds, all of which may be the best.
    plan = FinalistPlan(seeds=3, most=50, extra=extra, leave_one_out=False)
    context, pool = study(finalists=plan), Exact()
    with patch.dict(MEANS, dict.fromkeys(TEXTS, 75.0)):
        final(context, filled(context, crafted()), pool)
    assert len(pool.ran) == 12 + 4 * rounds


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_each_further_seed_was_of_a_contender(seed: int) -> None:
    context = replace(with_everything(24), seed=seed, finalists=FinalistPlan(2, 5, 0.9))
    store, pool = memory_store(context), Shuffled()
    records = train(context, store, pool)
    members = choose_finalists(context, PLAN.choice_space, list(records.values()))
    further = [
        (r.number, s - seed - FRESH)
        for r in records.values()
        for s in r.test_seeds
        if s - seed - FRESH >= 2
    ]
    assert further
    assert {number for number, _ in further} <= {record.number for record in members}
    assert max(index for _, index in further) < 5
    assert len(further) <= round(0.9 * len(members) * 2)
    for number, index in further:
        contending = still_contending(context, store, members, index)
        assert number in {record.number for record in contending}


def test_a_finalist_that_failed_gets_no_further_seeds() -> None:
    context, pool = (
        study(finalists=FinalistPlan(seeds=3, most=6, extra=10.0, leave_one_out=False)),
        Exact(fails=((TEXTS[2], 1),)),
    )
    records = final(context, filled(context, crafted()), pool)
    assert pool.seeds(TEXTS[2]) == [0, 1, 2]
    assert records[2].test_seeds == (FRESH, FRESH + 2)
    assert "deliberate" in records[2].test_failure


@pytest.mark.parametrize("train_metric", [False, True])
def test_final_trainings_measure_their_fit_if_the_study_asks(train_metric: bool) -> None:
    plan = FinalistPlan(seeds=2, most=2, leave_one_out=False, train_metric=train_metric)
    context, pool = study(finalists=plan), Exact()
    final(context, filled(context, crafted()), pool)
    assert {job.train_metric for job in pool.ran if job.final} == {train_metric}
    assert not any(job.train_metric for job in pool.ran if not job.final)


class Counted(Shuffled):
    """A pool that keeps how many jobs were under way whenever one was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[int] = []

    def finish_one(self) -> None:
        self.under_way.append(len(self.ran) - len(self.finished))
        super().finish_one()


@pytest.mark.parametrize("is_short", [False, True])
def test_no_worker_waits_between_the_first_seeds_unless_time_is_short(is_short: bool) -> None:
    plan = FinalistPlan(seeds=5, most=5, leave_one_out=False)
    context = replace(study(finalists=plan), trials=4, workers=3, random_baseline=False)
    store, pool = filled(context, crafted()[:4]), Counted()
    # Too short with what is under way, and long enough once that has ended.
    fits = itertools.cycle([False, True]) if is_short else itertools.repeat(True)
    train(context, store, pool, time=FinalsTime(lambda _trainings: next(fits)))
    assert len(pool.ran) == 20
    at_end = [4, 3, 2, 1]  # with three workers four are under way
    assert pool.under_way == (at_end * 5 if is_short else [4] * 16 + at_end)


def test_with_one_seed_nothing_is_known_of_the_noise() -> None:
    context, pool = (
        study(finalists=FinalistPlan(seeds=1, most=6, extra=10.0, leave_one_out=False)),
        Exact(),
    )
    final(context, filled(context, crafted()), pool)
    assert len(pool.ran) == 4


SD = 2.0
"""So much noise that the recommendation is not clear at once."""


def with_tests(record: Record, *errors: float) -> Record:
    """The record with these tests."""
    seeds = tuple(FRESH + i for i in range(len(errors)))
    return replace(record, test_metrics=errors, test_seeds=seeds)


def after_tests(*records: Record) -> list[Record]:
    """The records, tested: each as good as it was validated."""
    luck = ((0.0, 0.2, 0.1), (0.1, 0.1, 0.3), (0.2, 0.0, 0.0), (0.0, 0.1, 0.1), (0.1, 0.0, 0.2))
    return [
        with_tests(record, *(record.val_metric + one for one in row))  # type: ignore[operator]
        for record, row in zip(records, luck, strict=False)
    ]


def test_ablations_are_the_recommended_one_without_each_site() -> None:
    context = study(finalists=FinalistPlan())
    records = after_tests(*crafted()[:4])
    found = ablations(context, PLAN, records)
    assert [r.placement for r in found] == [
        "layer2=bam layer3=bam(r=8)",
        "layer1=bam layer3=bam(r=8)",
        "layer1=bam layer2=bam",
    ]
    assert [r.name for r in found] == [
        "#3 without layer1",
        "#3 without layer2",
        "#3 without layer3",
    ]
    assert [r.tag for r in found] == ["A3000", "A3001", "A3002"]
    assert {r.origin for r in found} == {ABLATION}
    assert not any(r.complete for r in found)
    for record in found:
        assert record.params == PLAN.costs.cost(resolve(record.placement, SITES)).params
    # Their own tests do not change what they are of.
    again = [*records, *(with_tests(r, 60.0, 60.1, 60.2) for r in found)]
    assert [r.name for r in ablations(context, PLAN, again)] == [r.name for r in found]


def test_a_reference_or_a_random_candidate_may_be_recommended() -> None:
    context = study(finalists=FinalistPlan())
    text = "layer1=bam layer2=bam(r=8)"
    for number, origin in ((7, REFERENCE), (FIRST[RANDOM] + 2, RANDOM)):
        best = known(number, text, 60.0, 9.0, origin=origin, name="best")
        found = ablations(context, PLAN, after_tests(*crafted()[:4], best))
        assert [r.name for r in found] == [f"#{best.tag} without layer1"]  # the other is #1
        assert [r.ablation_of for r in found] == [number]


def test_an_ablation_that_is_a_finalist_already_is_not_trained_twice() -> None:
    two = known(3, "layer1=bam layer2=bam", 70.2, 3.0)
    # Each site alone is #1 or #2.
    records = after_tests(*crafted()[:3], two)
    assert ablations(study(finalists=FinalistPlan()), PLAN, records) == []
    one = known(3, "layer3=bam", 70.2, 3.0)
    # Nothing at all is the reference.
    assert ablations(study(finalists=FinalistPlan()), PLAN, after_tests(crafted()[0], one)) == []


def test_no_ablations_unless_asked_for_or_where_nothing_helps_or_nothing_was_learnt() -> None:
    records = after_tests(*crafted())
    assert ablations(study(finalists=FinalistPlan(leave_one_out=False)), PLAN, records) == []
    assert ablations(study(finalists=FinalistPlan()), PLAN, crafted()) == []
    worse = replace(crafted()[3], val_metric=85.0)
    assert ablations(study(finalists=FinalistPlan()), PLAN, after_tests(crafted()[0], worse)) == []
    guessing = replace(PLAN, metric=replace(PLAN.metric, chance=81.0))
    assert ablations(study(finalists=FinalistPlan()), guessing, records) == []


@pytest.mark.parametrize(
    "fails", [(), ((TEXTS[2], 3),), ((TEXTS[2], 4), (TEXTS[1], 3))], ids=["none", "later", "two"]
)
def test_finals_interrupted_anywhere_end_the_same(fails: tuple[tuple[str, int], ...]) -> None:
    # With so much noise much is unclear, and the share runs out.
    context, whole = (
        study(finalists=FinalistPlan(seeds=3, most=6, extra=0.7, leave_one_out=True)),
        Exact(SD, fails),
    )
    expected = final(context, filled(context, crafted()), whole)
    assert max(len(record.test_seeds) for record in expected.values()) > 3
    assert any(record.is_ablation for record in expected.values())
    for stop in range(len(whole.ran)):
        store, rest = filled(context, crafted()), Exact(SD, fails)
        with pytest.raises(KeyboardInterrupt):
            final(context, store, Exact(SD, fails, stop))
        assert final(context, store, rest) == expected
        assert rest.ran == whole.ran[stop:]


def test_finals_of_a_finished_study_train_nothing() -> None:
    context = study(finalists=FinalistPlan(seeds=2, most=4, extra=0.5))
    store = filled(context, crafted())
    before, again = final(context, store, Exact()), Exact()
    assert final(context, store, again) == before
    assert again.ran == []


def test_nothing_is_left_to_train_at_the_end_and_not_before() -> None:
    context = with_everything(9)
    store, whole = memory_store(context), Shuffled()
    train(context, store, whole)
    assert nothing_left(context, PLAN, store)
    assert not nothing_left(replace(context, trials=10), PLAN, store)
    for stop in {*range(0, len(whole.ran), 5), len(whole.ran) - 1}:
        store = memory_store(context)
        with pytest.raises(KeyboardInterrupt):
            train(context, store, Shuffled(stop))
        assert not nothing_left(context, PLAN, store)


def test_nothing_is_left_of_a_space_that_has_no_more_placements() -> None:
    about = replace(PLAN, choice_space=TINY)
    context = study(40, sampler="additive", startup=2, random_baseline=True)
    store = memory_store(context)
    searched = train(context, store, Shuffled(), about, with_finals=False)
    assert len([record for record in searched.values() if record.is_main]) < 40
    assert not nothing_left(context, about, store)
    train(context, store, Shuffled(), about)
    assert nothing_left(context, about, store)


def test_what_is_left_is_not_asked_before_the_latencies_to_keep_to_are_known() -> None:
    context = study(9)
    store = memory_store(context)
    train(context, store, Shuffled(), with_finals=False)
    by_time = replace(context, trials=10, objectives=("metric", "deployed_latency_overhead"))
    assert not nothing_left(by_time, PLAN, store)


def test_a_comparison_trains_no_ablations() -> None:
    context = replace(with_everything(4), random_baseline=False)
    records = train(context, memory_store(context), Shuffled())
    assert all(record.is_tested for record in records.values())
    assert not any(record.is_ablation for record in records.values())


def test_an_ablation_is_no_candidate_of_a_continued_search() -> None:
    context = replace(with_everything(14), random_baseline=False)
    store = memory_store(context)
    before = train(context, store, Shuffled())
    assert any(record.is_ablation for record in before.values())
    after = train(replace(context, trials=18), store, Shuffled(), with_finals=False)
    assert {number: after[number] for number in before} == before
    assert [record.number for record in after.values() if record.is_main] == list(range(18))
