"""The search loop: the references, then the proposals of a generator, then a random search.

Each candidate goes through the study's rungs. The random search, the baseline, has the same
training cost as the search.

Candidate n is proposed, and later stopped or not, from candidates 0 to n - max_in_flight, in
whatever order these finished. So a study with the same seed and number of workers makes the same
proposals, also when it was interrupted.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

from bam_search.errors import UserError
from bam_search.model.attach import resolve
from bam_search.model.start import Start
from bam_search.score.cost import COUNTS, UNITS, Cost, overhead, overheads
from bam_search.score.cost_table import CostTable
from bam_search.score.evaluate import Job, Result
from bam_search.score.latency_table import LatencyTable
from bam_search.search.candidate_pool import CandidatePool
from bam_search.search.executors import Submit
from bam_search.search.generator import CandidateGenerator, running_trial
from bam_search.search.pruner import forecast, in_control_group, should_stop
from bam_search.search.store import Store
from bam_search.search.study import Study
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.space.sites import Sites
from bam_search.study.record import (
    FIRST,
    OBJECTIVES,
    RANDOM,
    REFERENCE,
    SEARCH,
    WARM_START,
    Record,
    main_records,
    search_epochs,
    startup_of,
)
from bam_search.tasks.metric import Metric


@dataclass(frozen=True)
class SearchContext:
    """What the loop needs beside the study.

    `data` is the data's name, `metric` that of the task; `references` are by name. `latencies` says
    what attention adds to the backbone's time, where the study needs to know that before training.
    `start` is what candidates start from; None is what the study's finalists start from.
    """

    data: str
    metric: Metric
    references: Mapping[str, Placement]
    sites: Sites
    choice_space: ChoiceSpace
    costs: CostTable
    latencies: LatencyTable | None = None
    start: Start | None = None

    def predicted(self, placement: Placement) -> Mapping[str, Any]:
        """The fields of a record with the latencies that are predicted of a placement."""
        table, sites = self.latencies, self.sites.by_name
        if table is None:
            return {}
        return {OBJECTIVES[key]: table.overhead(key, placement, sites) for key in table.added}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A record under way, and the records `seen` when it was proposed.

    Only these decide whether it is stopped.
    """

    record: Record
    seen: Sequence[Record]


OnResult = Callable[[Record], None]

VALIDATED = (
    *("val_metric", "val_standard_error", "val_loss", "val_samples", "val_further"),
    *("epoch_metrics", "train_losses", "micro_batches"),
)
"""The fields of a record that its full training in the search gives it, but for its seconds."""


@dataclass(frozen=True, eq=False)
class Trainings:
    """The trainings of candidates that are `pending`, and what becomes of their results.

    A finished record is in the store before `on_result` is called with it.
    """

    study: Study
    context: SearchContext
    store: Store
    submit_job: Submit
    on_result: OnResult
    pending: dict["Future[Result]", Candidate] = field(default_factory=dict)

    def submit(self, candidate: Candidate) -> None:
        """Submit the next training of a candidate, which begins now if a worker is free."""
        study, record = self.study, candidate.record
        if len(self.pending) < study.workers:
            self._begin(record)
        epochs = _epochs(study, record)
        # The curves of references tell whether trainings are long enough; others take time only.
        has_curve = record.is_reference and epochs == study.search_epochs
        start = self.context.start
        job = Job(record.placement, study.seed, epochs, each_epoch=has_curve, start=start)
        self.pending[self.submit_job(job)] = candidate

    def collect(self) -> dict[int, Record]:
        """Wait for at least one training; return the finished records by number.

        What is not finished by it is submitted again, for its next rung.
        """
        finished = {}
        for future in wait(self.pending, return_when=FIRST_COMPLETED).done:
            candidate = self.pending[future]
            record = _after(self.study, candidate, future.result())
            if _is_finished(record):
                self.keep(record)
                del self.pending[future]
                finished[record.number] = record
            else:
                del self.pending[future]
                self.submit(Candidate(record, candidate.seen))
        for candidate in itertools.islice(self.pending.values(), self.study.workers):
            self._begin(candidate.record)  # the first of them have a worker each
        return finished

    def collect_all(self) -> None:
        """Wait until nothing is pending."""
        while self.pending:
            self.collect()

    def keep(self, record: Record) -> None:
        """Keep a finished record, and tell of it."""
        self._add(record)
        self.on_result(record)

    @contextlib.contextmanager
    def kept_whatever_happens(self) -> Iterator[None]:
        """Whatever interrupts what is done here, keep the records that are finished by then."""
        with ended_kept(self.pending, self._keep_ended):
            yield

    def _keep_ended(self, future: "Future[Result]") -> None:
        record = _after(self.study, self.pending[future], future.result())
        if _is_finished(record) and record.number not in self.store.records():
            self._add(record)

    def _add(self, record: Record) -> None:
        self._begin(record)  # it may have ended before this process saw it begin
        values = [record.value(key) for key in self.study.objectives] if record.complete else []
        self.store.add(record, values)

    def _begin(self, record: Record) -> None:
        """Keep in the store that a candidate is under way, unless it was already."""
        if not self.store.is_running(record.number):
            parameters = running_trial(self.context.choice_space, record.parsed_placement)
            self.store.begin(record, parameters)


def search(
    study: Study,
    context: SearchContext,
    store: Store,
    submit: Submit,
    on_result: OnResult,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Train the study's candidates up to `study.trials`, except for those in the store.

    `on_result` is called with each new record. Ends early if the space has no further placement
    within the limits, and if `is_over`, which is asked before each proposal after the first one.
    """
    generator = candidate_generator(study, context)
    records = _main_records(store)
    taken = {record.id for record in records.values()}
    seen: list[Record] = []
    trainings = Trainings(study, context, store, submit, on_result)
    with trainings.kept_whatever_happens():
        for number in range(study.trials):
            for index in range(len(seen), number - max_in_flight(study) + 1):
                while index not in records:
                    records |= trainings.collect()
                _teach(generator, study, records[index], seen)
                seen.append(records[index])
            if number in records:
                # What has a smaller number, alone: a proposal must not depend on what ended first.
                generator.exclude(Placement.parse(records[number].placement))
                continue
            if number > len(context.references) and is_over():
                break
            new = _next_record(study, context, generator, number, taken)
            if new is None:
                break
            taken.add(new.id)
            generator.exclude(Placement.parse(new.placement))
            trainings.submit(Candidate(new, tuple(seen)))
        trainings.collect_all()


def _next_record(
    study: Study,
    context: SearchContext,
    generator: CandidateGenerator,
    number: int,
    taken: Collection[str],
) -> Record | None:
    """The new record of candidate `number`: a reference, else a proposal; None if there is none."""
    references = list(context.references.items())
    if number < len(references):
        name, reference = references[number]
        return new_record(study, context, number, REFERENCE, name, reference)
    placement = generator.ask(number, taken)
    if placement is None:
        return None
    return new_record(study, context, number, SEARCH, "", placement)


def random_baseline(
    study: Study, context: SearchContext, store: Store, submit: Submit, on_result: OnResult
) -> None:
    """Run a random search of the same training cost as the search.

    The search's random startup counts as its beginning. A placement that the search has trained to
    the end is not trained again: its record is repeated.
    """
    main = _main_records(store)
    trained = {record.id: record for record in main.values() if record.complete}
    finished = store.records()
    trainings = Trainings(study, context, store, submit, on_result)
    with trainings.kept_whatever_happens():
        for number, placement in random_candidates(study, context, main):
            if number in finished:
                continue
            if placement.id in trained:
                trainings.keep(_as_random(study, context, trained[placement.id], number))
                continue
            if len(trainings.pending) == max_in_flight(study):
                trainings.collect()
            record = new_record(study, context, number, RANDOM, "", placement)
            trainings.submit(Candidate(record, ()))
        trainings.collect_all()


def random_candidates(
    study: Study, context: SearchContext, main: Mapping[int, Record]
) -> Iterator[tuple[int, Placement]]:
    """The random candidates beside the startup, as (number, placement).

    Each placement comes once. They are fewer than asked for if the space has no more.
    """
    generator = candidate_generator(study, context)
    taken = {record.id for record in startup_of(main.values(), study.startup)}
    for index in range(random_size(study, main)):
        placement = generator.at_random(index, taken)
        if placement is None:
            return
        taken.add(placement.id)
        yield FIRST[RANDOM] + index, placement


def _as_random(study: Study, context: SearchContext, record: Record, number: int) -> Record:
    """A complete record of the search, repeated as random candidate `number`, at no cost."""
    anew = new_record(study, context, number, RANDOM, "", record.parsed_placement)
    return replace(anew, seconds=0.0, **{name: getattr(record, name) for name in VALIDATED})


def random_size(study: Study, main: Mapping[int, Record]) -> int:
    """How many random candidates the baseline trains beside the startup.

    `main` are the references and the search's records, by number.
    """
    spent = search_epochs(main.values())
    return random_count(study, spent, len(startup_of(main.values(), study.startup)))


def random_count(study: Study, epochs: int, startup: int) -> int:
    """How many random candidates cost as much, with the `startup` ones, as so many epochs."""
    return max(0, math.ceil(epochs / study.search_epochs) - startup)


def max_in_flight(study: Study) -> int:
    """How many candidates may be under way.

    With several workers it is one more than these, so that none waits while the driver proposes.
    """
    return study.workers + 1 if study.workers > 1 else 1


def new_record(
    study: Study, context: SearchContext, number: int, origin: str, name: str, placement: Placement
) -> Record:
    """The record of a candidate that is not trained yet: its placement and its costs."""
    return Record(
        number=number,
        origin=origin,
        name=name,
        placement=placement.text,
        id=placement.id,
        data=context.data,
        metric_name=context.metric.name,
        unit=context.metric.unit,
        larger_is_better=context.metric.larger_is_better,
        decimals=context.metric.decimals,
        seed=study.seed,
        epochs=study.search_epochs,
        final_epochs=study.recipe.epochs,
        scoring=study.scoring,
        **_cost_fields(context.costs.base, context.costs.cost(placement)),
        **context.predicted(placement),
    )


def candidate_generator(study: Study, context: SearchContext) -> CandidateGenerator:
    """The candidate generator of a study, before any result."""
    # The objectives' costs first, then those that only have a limit.
    keys = tuple(dict.fromkeys((*study.costs, *study.limits)))
    limits = [study.limits.get(key, math.inf) for key in keys]

    def canonical(placement: Placement) -> Placement:
        resolved = resolve(placement, context.sites)
        context.costs.cost(resolved)  # raises for a `block` where the backbone has none to repeat
        return resolved

    def added(site: str, choice: Choice) -> list[float]:
        return _added_overheads(context, site, choice, keys)

    pool = CandidatePool.of(context.choice_space, added, limits, len(study.costs))
    return CandidateGenerator(
        pool,
        canonical,
        study.sampler,
        study.seed,
        first=len(context.references),
        startup=study.startup,
    )


def _added_overheads(
    context: SearchContext, site: str, choice: Choice, keys: Sequence[str]
) -> list[float]:
    """What a choice adds at a site to the overheads `keys`, in percent; infinite if impossible."""
    base, table = context.costs.base, context.latencies
    try:
        added = context.costs.added(site, choice)
    except UserError:
        return [math.inf] * len(keys)
    percent = {}
    for count in COUNTS:
        without = getattr(base, count)
        with_added = without + getattr(added, count)
        percent[f"{count}_overhead"] = overhead(with_added, without, UNITS[count])
    if table is not None:
        at = context.sites.by_name[site]
        percent |= {key: table.increment(key, at, choice) for key in table.added}
    return [percent[key] for key in keys]


def _main_records(store: Store) -> dict[int, Record]:
    """The references and the search's records, by number."""
    return {record.number: record for record in main_records(store.records().values())}


def _epochs(study: Study, record: Record) -> int:
    """The epochs of a record's next training; the random baseline has the full training only."""
    if record.is_random:
        return study.search_epochs
    return study.budgets[len(record.rung_metrics)]


@contextlib.contextmanager
def ended_kept(
    pending: Iterable["Future[Result]"], keep: Callable[["Future[Result]"], object]
) -> Iterator[None]:
    """Whatever interrupts what is done here, `keep` the trainings that have a result by then."""
    try:
        yield
    except BaseException:
        done = [future for future in pending if future.done() and not future.cancelled()]
        for future in done:
            if future.exception() is None:
                keep(future)
        raise


def _after(study: Study, candidate: Candidate, result: Result) -> Record:
    """The record of a candidate after its next training, which may be a reason to stop it."""
    record = _trained(study, candidate.record, result)
    return record if _is_finished(record) else _judged(study, record, candidate.seen)


def _is_finished(record: Record) -> bool:
    """Whether it is trained no further."""
    return record.complete or bool(record.failure or record.stopped)


def _trained(study: Study, record: Record, result: Result) -> Record:
    """The record after its next training."""
    score = result.score
    if score is None:
        return replace(record, failure=result.failure)
    seconds = (record.seconds or 0) + score.seconds
    epochs = _epochs(study, record)
    if epochs < study.search_epochs:
        return replace(
            record,
            rung_epochs=(*record.rung_epochs, epochs),
            rung_metrics=(*record.rung_metrics, score.value),
            seconds=seconds,
        )
    loss = score.loss if math.isfinite(score.loss) else None
    if loss is None and record.scoring == WARM_START:
        return replace(record, failure=f"NoLoss: the loss on validation samples is {score.loss}")
    return replace(
        record,
        val_metric=score.value,
        val_standard_error=score.standard_error,
        val_loss=loss,
        val_samples=score.samples,
        val_further=dict(score.further),
        epoch_metrics=tuple(epoch.value for epoch in score.per_epoch if epoch.value is not None),
        train_losses=tuple(epoch.loss for epoch in score.per_epoch),
        seconds=seconds,
        micro_batches=score.micro_batches,
    )


def _judged(study: Study, record: Record, seen: Sequence[Record]) -> Record:
    """The record with the reason to stop it, if there is one.

    References and the startup are never stopped.
    """
    searched = sum(other.is_searched for other in seen)
    if not record.is_searched or searched < study.startup:
        return record
    reason = should_stop(record, seen, study.costs, study.rungs.margin)
    if reason and in_control_group(study.seed, record.number, study.rungs.control):
        return replace(record, control=True)
    return replace(record, stopped=reason)


def _teach(
    generator: CandidateGenerator, study: Study, record: Record, before: Sequence[Record]
) -> None:
    """Tell the generator of a finished record.

    A record that was stopped counts with the value that its last rung forecasts, weighted by how
    much of the values' variance the forecast explains. `before` are the records before this one.
    """
    placement = record.parsed_placement
    costs = [record.objective(key) for key in study.costs]
    if record.complete:
        generator.tell(placement, record.score, costs)
    elif record.stopped:
        epochs = record.rung_epochs[-1]
        predicted = forecast(before, epochs)
        if predicted is not None and predicted.explained > 0:
            expected = predicted.full(record.rung_objectives[epochs])
            generator.tell(placement, expected, costs, predicted.explained)


def _cost_fields(base: Cost, cost: Cost) -> Mapping[str, Any]:
    """The fields of a record that say what its placement costs, overheads in percent."""
    counts = {key: getattr(cost, key) for key in COUNTS}
    above = {f"{key}_overhead": percent for key, percent in overheads(cost, base).items()}
    return {
        **counts,
        **above,
        "by_operator": dict(cost.by_operator),
        "uncounted": dict(cost.uncounted),
    }
