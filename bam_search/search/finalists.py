"""Finalists: the candidates that are trained again, with fresh seeds.

They are the references, the members of the fronts and the best random candidate. Each training is
measured on the test set once. All finalists are trained with the first seeds. Further seeds, within
the study's limit, go to those on which the recommendation hangs.
Last, the recommended placement is trained without each of its sites (ablations).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bam_search.analysis.additive import explain
from bam_search.analysis.final_metrics import FinalMetrics
from bam_search.analysis.pareto import pareto_front
from bam_search.analysis.recommendation import contenders, to_ablate
from bam_search.model.attach import resolve
from bam_search.score.evaluate import Job, Result
from bam_search.search.executors import Submit
from bam_search.search.loop import (
    OnResult,
    SearchContext,
    candidate_generator,
    ended_kept,
    max_in_flight,
    new_record,
    random_candidates,
    random_size,
)
from bam_search.search.store import Store
from bam_search.search.study import Study
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import (
    ABLATION,
    METRIC,
    Record,
    ablation_number,
    best_of,
    main_records,
)

FRESH = 1_000_003
"""The offset from the study's seed to the seeds of the final trainings.

The search never uses these seeds, so its selection does not bias the tests.
"""


def choose_finalists(
    study: Study, choice_space: ChoiceSpace, records: Sequence[Record]
) -> list[Record]:
    """The candidates to train again, each once.

    First the references, then the searched members of the front and of the expected front, then the
    random candidate of best score.
    """
    main = main_records(records)
    references = [record for record in main if record.is_reference and record.complete]
    measured = pareto_front(main, study.search_objectives)
    expected = expected_front(study, choice_space, records)
    searched = [record for record in (*measured, *expected) if record.is_searched]
    finalists = list({record.number: record for record in (*references, *searched)}.values())
    drawn = best_of(record for record in records if record.is_random)
    if drawn is not None and drawn.id not in {record.id for record in finalists}:
        finalists.append(drawn)
    return finalists


def expected_front(
    study: Study, choice_space: ChoiceSpace, records: Sequence[Record]
) -> list[Record]:
    """The references and searched records on the front of expected values, cheapest first.

    Where noise is as large as the differences, luck decides which records are on the measured
    front. The additive model averages the noise over all records. The list is empty if the model
    predicts no better than the plain mean (leave-one-out).
    """
    model = explain(records, choice_space)
    if model is None or model.loo_rmse >= model.loo_rmse_of_mean:
        return []
    in_space: dict[int, Record] = {}
    vectors = []
    for record in main_records(records):
        vector = model.encoder.vector(record.parsed_placement)
        if record.complete and vector is not None:
            in_space[record.number] = record
            vectors.append(vector)
    if not in_space:
        return []
    minimised = model.predict(model.encoder.features(np.array(vectors))).tolist()
    expected = [
        record.with_score(value) for record, value in zip(in_space.values(), minimised, strict=True)
    ]
    return [in_space[record.number] for record in pareto_front(expected, study.search_objectives)]


@dataclass(frozen=True)
class FinalsTime:
    """What the time that a run has allows of further seeds.

    `fits` says whether so many trainings fit into what is left. With `fills`, all finalists get
    further seeds where the recommendation hangs on none of them, as long as there is time.
    """

    fits: Callable[[int], bool] = lambda _trainings: True
    fills: bool = False


NO_LIMIT = FinalsTime()


@dataclass(frozen=True)
class Training:
    """A final training of a record, with the fresh seed of an index."""

    record: Record
    index: int

    def key(self, study: Study) -> tuple[int, int]:
        """The number of the record and the seed, by which a store knows it."""
        return self.record.number, study.seed + FRESH + self.index


def train_finalists(
    study: Study,
    context: SearchContext,
    store: Store,
    submit: Submit,
    on_result: OnResult,
    time: FinalsTime = NO_LIMIT,
) -> None:
    """Train the finalists again, except for the trainings that the store has already."""
    members = choose_finalists(study, context.choice_space, list(store.records().values()))
    _train(study, store, submit, on_result, _planned(study, store, members, time))


def train_ablations(
    study: Study, context: SearchContext, store: Store, submit: Submit, on_result: OnResult
) -> None:
    """Train the ablations, except for the trainings that the store has already.

    They follow from the finalists' tests, so these come first.
    """
    without = ablations(study, context, list(store.records().values()))
    for record in without:
        if record.number not in store.records():
            store.add(record, [])
    _train(study, store, submit, on_result, _with_seeds(without, range(study.finalists.seeds)))


def _with_seeds(records: Sequence[Record], seeds: Iterable[int]) -> Iterator[Training]:
    """The trainings of records with each of these seeds, seed by seed."""
    return (Training(record, index) for index in seeds for record in records)


def _planned(
    study: Study, store: Store, members: Sequence[Record], time: FinalsTime = NO_LIMIT
) -> Iterator[Training | None]:
    """Yield the final trainings, also those in the store already.

    None: what comes next depends on the results of all before it, so wait until they are in the
    store. The first seeds depend on none, unless the time is short: no worker waits there.
    """
    seeds = study.finalists.seeds
    for index in range(seeds):
        under_way = max_in_flight(study) if index else 0
        left = _missing(study, store, _with_seeds(members, range(index, seeds)))
        if not time.fits(left + under_way):
            yield None
            members = _affordable(study, store, members, index, time)
        yield from _with_seeds(members, [index])
    further = study.finalists.further(len(members))
    for index in range(seeds, study.finalists.most):
        yield None
        chosen = still_contending(study, store, members, index)
        if time.fills and not chosen:
            chosen = _sound(study, store, _known(study, store, members, index), index)
        further -= len(chosen)
        round_of = _missing(study, store, _with_seeds(chosen, [index]))
        if further < 0 or not chosen or not time.fits(round_of):
            return  # further rounds would be as long, or as empty
        yield from _with_seeds(chosen, [index])


def _affordable(
    study: Study, store: Store, members: Sequence[Record], index: int, time: FinalsTime
) -> list[Record]:
    """Those of the finalists that can have all first seeds from `index` on in the time.

    Where it is too short for all, as trainings became slower, the least promising get no more, so
    that the others have the seeds of a verdict; references stay.
    """
    rounds = range(index, study.finalists.seeds)
    records = store.records()
    promising = sorted(members, key=lambda record: _promise(records[record.number]))
    least = 1 + sum(record.is_reference for record in members)

    def fit(kept: int) -> bool:
        return time.fits(_missing(study, store, _with_seeds(promising[:kept], rounds)))

    kept = len(members)
    while kept > least and not fit(kept):
        kept -= 1
    chosen = {record.number for record in promising[:kept]}
    return [record for record in members if record.number in chosen]


def _missing(study: Study, store: Store, wanted: Iterator[Training]) -> int:
    """How many of these trainings the store has not yet: that of an extended study has some."""
    done = store.final_seeds()
    return sum(training.key(study) not in done for training in wanted)


def _promise(record: Record) -> tuple[bool, float]:
    """What to sort finalists by, the most promising first: references, then by their tests."""
    tests = record.test_objectives
    tested = sum(tests) / len(tests) if tests else record.objective(METRIC)
    return not record.is_reference, tested


def nothing_left(study: Study, context: SearchContext, store: Store) -> bool:
    """Whether the store has all trainings of the study, from the references to the finalists.

    A search may have ended with fewer candidates than asked for, as the space has no more.
    """
    by_number = store.records()
    records = list(by_number.values())
    main = {record.number: record for record in main_records(records)}
    # What can be proposed is not known before latencies are that it must keep to.
    is_known = context.latencies is not None or not study.latencies
    if len(main) < study.trials and not (is_known and _is_exhausted(study, context, main)):
        return False
    size = random_size(study, main) if study.random_baseline else 0
    if sum(record.is_random for record in records) < size:
        if not is_known:
            return False
        drawn = random_candidates(study, context, main)
        if any(number not in by_number for number, _ in drawn):
            return False
    members = choose_finalists(study, context.choice_space, records)
    done = store.final_seeds()

    def are_done(trainings: Iterator[Training | None]) -> bool:
        # `all` stops at the first missing training, so none is planned before its time.
        return all(training.key(study) in done for training in trainings if training)

    if not are_done(_planned(study, store, members)):
        return False
    without = ablations(study, context, records)
    return are_done(_with_seeds(without, range(study.finalists.seeds)))


def _is_exhausted(study: Study, context: SearchContext, main: Mapping[int, Record]) -> bool:
    """Whether the search finds no further candidate."""
    taken = {record.id for record in main.values()}
    return candidate_generator(study, context).ask(len(main), taken) is None


def ablations(study: Study, context: SearchContext, records: Sequence[Record]) -> list[Record]:
    """The records of the recommended placement without each of its sites.

    A placement that was tested itself is left out.
    """
    if not study.ablates:
        return []
    recommended = to_ablate(records, context.metric, study.recommend.by)
    if recommended is None:
        return []
    sites = dict(recommended.parsed_placement.choices)
    known = {record.id for record in records if record.is_tested and not record.is_ablation}
    found = []
    for index, site in enumerate(sites):
        others = {name: choice for name, choice in sites.items() if name != site}
        rest = resolve(Placement.of(others), context.sites)
        if rest.id not in known:
            number = ablation_number(recommended.number, index)
            name = f"#{recommended.tag} without {site}"
            found.append(new_record(study, context, number, ABLATION, name, rest))
    return found


def still_contending(
    study: Study, store: Store, members: Sequence[Record], index: int
) -> list[Record]:
    """The finalists on which the recommendation hangs, empty if it is clear.

    Only the seeds before `index` count.
    """
    known = _known(study, store, members, index)
    sound = _sound(study, store, known, index)
    if not sound or max(len(record.test_metrics) for record in sound) < 2:
        return []
    return contenders(sound, FinalMetrics.of(known), study.recommend.by)


def _known(study: Study, store: Store, members: Sequence[Record], index: int) -> list[Record]:
    """The finalists, each with the tests of the seeds before `index` only."""
    records = store.records()
    return [_before(study, records[record.number], index) for record in members]


def _sound(study: Study, store: Store, known: Sequence[Record], index: int) -> list[Record]:
    """Those of the known finalists that have not failed with a seed before `index`.

    One that failed with one seed would fail again, so it gets no further ones.
    """
    trained = _trainings_before(study, store, index)
    return [record for record in known if len(record.test_metrics) == trained[record.number]]


def _trainings_before(study: Study, store: Store, index: int) -> Counter[int]:
    """How many final trainings each candidate has had with the seeds before `index`."""
    limit = study.seed + FRESH + index
    return Counter(number for number, seed in store.final_seeds() if seed < limit)


def _before(study: Study, record: Record, index: int) -> Record:
    """The record with only the tests of the seeds before `index`.

    An interrupted study then decides as an uninterrupted one does.
    """
    limit = study.seed + FRESH + index
    before = [i for i, seed in enumerate(record.test_seeds) if seed < limit]
    return replace(
        record,
        test_seeds=tuple(record.test_seeds[i] for i in before),
        test_metrics=tuple(record.test_metrics[i] for i in before),
        train_metrics=tuple(record.train_metrics[i] for i in before if record.train_metrics),
    )


def _train(
    study: Study,
    store: Store,
    submit: Submit,
    on_result: OnResult,
    wanted: Iterator[Training | None],
) -> None:
    """Train what is wanted and not in the store; at each None, wait for all that is under way."""
    pending: dict[Future[Result], Training] = {}

    def keep(future: Future[Result]) -> Record:
        """Keep what came of a training, which is pending until it is in the store."""
        number, seed = pending[future].key(study)
        store.add_final(number, seed, _fields(future.result()))
        del pending[future]
        return store.records()[number]

    def collect(most: int) -> None:
        """Wait until at most so many trainings are under way."""
        while len(pending) > most:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                on_result(keep(future))

    done = store.final_seeds()
    with ended_kept(pending, keep):
        for training in wanted:
            if training is None:
                collect(0)
            elif training.key(study) not in done:
                collect(max_in_flight(study) - 1)
                pending[submit(_job(study, training))] = training
        collect(0)


def _job(study: Study, training: Training) -> Job:
    record = training.record
    return Job(
        record.placement,
        training.key(study)[1],
        record.final_epochs or record.epochs,
        final=True,
        train_metric=study.finalists.train_metric,
    )


def _fields(result: Result) -> Mapping[str, Any]:
    """What the store keeps of a final training."""
    if result.score is None:
        return {"failure": result.failure}
    score = result.score
    more = {
        "further": dict(score.further),
        "by_class": score.by_class,
        "class_samples": score.class_samples,
    }
    fit = {} if score.train_value is None else {"train_metric": score.train_value}
    return {
        **{key: value for key, value in more.items() if value},
        **fit,
        "metric": score.value,
        "standard_error": score.standard_error,
        "samples": score.samples,
        "seconds": score.seconds,
        "micro_batches": score.micro_batches,
    }
