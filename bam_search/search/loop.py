"""The study loop: references first, then what the candidate generator says, each through its rungs;
then a random search of the same cost.

Candidate n is proposed, and later stopped or not, from candidates 0 to n - window, whichever
finished first: with the same seed and number of workers a study makes the same proposals, also when
it was interrupted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from bam_search.errors import UserError
from bam_search.model.attach import resolve
from bam_search.score.cost import COUNTS, Cost, overheads
from bam_search.score.cost_table import CostTable
from bam_search.score.evaluate import Job, Result
from bam_search.search.candidate_pool import CandidatePool
from bam_search.search.executors import Submit
from bam_search.search.pruner import forecast, in_control_group, should_stop
from bam_search.search.record import (
    FIRST,
    RANDOM,
    REFERENCE,
    SEARCH,
    Record,
    main_records,
    startup_of,
)
from bam_search.search.sampler import CandidateGenerator, kept_trial
from bam_search.search.store import Store
from bam_search.search.study import Study
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.space.sites import Sites


@dataclass(frozen=True)
class SearchContext:
    """What a study's loop needs beside the study: the data's name, the references by name, the
    sites, the choice space, the costs.
    """

    data: str
    references: Mapping[str, Placement]
    sites: Sites
    choice_space: ChoiceSpace
    costs: CostTable


@dataclass(frozen=True, eq=False)
class Candidate:
    """A record under way, and the records that had been heard of when it was proposed: all that
    decides whether it is stopped.
    """

    record: Record
    seen: Sequence[Record]


OnResult = Callable[[Record], None]
Pending = dict["Future[Result]", Candidate]


def search(
    study: Study, context: SearchContext, store: Store, submit: Submit, on_result: OnResult
) -> None:
    """Run the study's candidates up to `study.trials`, those in the store not again; `told` hears
    of each new record.

    Ends early if the space has no further placement within the limits.
    """
    references = list(context.references.items())
    generator = candidate_generator(study, context)
    records = _own(store)
    pending: Pending = {}
    taken = {record.id for record in records.values()}
    heard: list[Record] = []
    for number in range(study.trials):
        while len(heard) <= number - max_in_flight(study):
            while len(heard) not in records:
                _collect(study, context, store, submit, pending, records, on_result)
            _teach(generator, study, records[len(heard)], heard)
            heard.append(records[len(heard)])
        if number in records:
            continue
        name, placement = (
            references[number] if number < len(references) else ("", generator.ask(number, taken))
        )
        if placement is None:
            break
        record = new_record(study, context, number, REFERENCE if name else SEARCH, name, placement)
        taken.add(record.id)
        _submit(study, submit, pending, Candidate(record, tuple(heard)))
    while pending:
        _collect(study, context, store, submit, pending, records, on_result)


def random_baseline(
    study: Study, context: SearchContext, store: Store, submit: Submit, on_result: OnResult
) -> None:
    """A random search of the same training cost as the search proper, whose random startup counts
    as its beginning.

    A placement that the search has trained to the end is not trained again: its record is repeated.
    """
    own = _own(store)
    arm = {record.id for record in startup_of(own.values(), study.startup)}
    known = {record.id: record for record in own.values() if record.complete}
    done = {record.number for record in store.records().values() if record.origin == RANDOM}
    generator = candidate_generator(study, context)
    pending: Pending = {}
    for index in range(random_size(study, own)):
        placement = generator.at_random(index, arm)
        if placement is None:
            break
        arm.add(placement.id)
        number = FIRST[RANDOM] + index
        if number in done:
            continue
        if placement.id in known:
            record = replace(
                known[placement.id],
                number=number,
                origin=RANDOM,
                name="",
                test_errors=(),
                test_seeds=(),
                seconds=0.0,
            )
            _finish(
                study,
                context,
                store,
                replace(record, rung_epochs=(), rung_errors=(), control=False),
                on_result,
            )
            continue
        if len(pending) == max_in_flight(study):
            _collect(study, context, store, submit, pending, {}, on_result)
        _submit(
            study,
            submit,
            pending,
            Candidate(new_record(study, context, number, RANDOM, "", placement), ()),
        )
    while pending:
        _collect(study, context, store, submit, pending, {}, on_result)


def random_size(study: Study, own: Mapping[int, Record]) -> int:
    """How many random candidates have, with the startup, the search's training cost."""
    searched = [record for record in own.values() if record.origin == SEARCH]
    spent = sum(record.trained_epochs for record in searched)
    return random_count(study, spent, len(startup_of(own.values(), study.startup)))


def random_count(study: Study, epochs: int, startup: int) -> int:
    """How many random candidates have, with those of the startup, the cost of a search that trained
    for so many epochs.
    """
    return max(0, math.ceil(epochs / study.recipe.epochs) - startup)


def max_in_flight(study: Study) -> int:
    """How many candidates may be under way: one more than there are workers, so that no worker
    waits while the driver proposes.
    """
    return study.workers + 1 if study.workers > 1 else 1


def new_record(
    study: Study, context: SearchContext, number: int, origin: str, name: str, placement: Placement
) -> Record:
    """The record of a candidate that is not trained yet: what it is, and what it costs."""
    return Record(
        number=number,
        origin=origin,
        name=name,
        placement=placement.text,
        id=placement.id,
        data=context.data,
        seed=study.seed,
        epochs=study.recipe.epochs,
        **_cost_fields(context.costs.base, context.costs.cost(placement)),
    )


def candidate_generator(study: Study, context: SearchContext) -> CandidateGenerator:
    """The candidate generator of a study, before any result."""

    def canonical(placement: Placement) -> Placement:
        resolved = resolve(placement, context.sites)
        context.costs.cost(resolved)  # raises for a `block` where the backbone has none to repeat
        return resolved

    keys = (*study.costs, *(key for key in study.limits if key not in study.costs))

    def added(site: str, choice: Choice) -> list[float]:
        try:
            more, base = context.costs.added(site, choice), context.costs.base
        except UserError:
            return [math.inf] * len(keys)  # not possible at this site
        counts = {
            f"{key}_overhead": 100 * getattr(more, key) / getattr(base, key) for key in COUNTS
        }
        return [counts[key] for key in keys]

    pool = CandidatePool.of(
        context.choice_space,
        added,
        [study.limits.get(key, math.inf) for key in keys],
        len(study.costs),
    )
    return CandidateGenerator(
        pool,
        canonical,
        study.sampler,
        study.seed,
        first=len(context.references),
        startup=study.startup,
    )


def _own(store: Store) -> dict[int, Record]:
    """The references and the search's records."""
    return {record.number: record for record in main_records(store.records().values())}


def _submit(study: Study, submit: Submit, pending: Pending, candidate: Candidate) -> None:
    """The next training of a candidate; the random search beside this one has no rungs but the
    last.
    """
    record = candidate.record
    pending[submit(Job(record.placement, study.seed, _epochs(study, record)))] = candidate


def _epochs(study: Study, record: Record) -> int:
    return (
        study.recipe.epochs if record.origin == RANDOM else study.budgets[len(record.rung_errors)]
    )


def _collect(
    study: Study,
    context: SearchContext,
    store: Store,
    submit: Submit,
    pending: Pending,
    records: dict[int, Record],
    on_result: OnResult,
) -> None:
    """Wait for at least one training; candidates go on to their next rung, or are kept as finished."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        candidate, result = pending.pop(future), future.result()
        record = _trained(study, candidate.record, result)
        if result.score is not None and not record.complete:
            record = _judged(study, record, candidate.seen)
            if not record.stopped:
                _submit(study, submit, pending, Candidate(record, candidate.seen))
                continue
        records[record.number] = record
        _finish(study, context, store, record, on_result)


def _trained(study: Study, record: Record, result: Result) -> Record:
    """The record after its next training."""
    score, epochs = result.score, _epochs(study, record)
    if score is None:
        return replace(record, failure=result.failure)
    seconds = (record.seconds or 0) + score.seconds
    if epochs < study.recipe.epochs:
        rung_epochs, rung_errors = (*record.rung_epochs, epochs), (*record.rung_errors, score.error)
        return replace(record, rung_epochs=rung_epochs, rung_errors=rung_errors, seconds=seconds)
    return replace(
        record,
        val_error=score.error,
        val_images=score.images,
        val_errors=tuple(epoch.error for epoch in score.per_epoch if epoch.error is not None),
        train_losses=tuple(epoch.loss for epoch in score.per_epoch),
        seconds=seconds,
        micro_batches=score.micro_batches,
    )


def _judged(study: Study, record: Record, seen: Sequence[Record]) -> Record:
    """The record with the reason to stop it, if there is one; references and the startup are never
    stopped.
    """
    if record.origin != SEARCH or len([r for r in seen if r.origin == SEARCH]) < study.startup:
        return record
    reason = should_stop(record, seen, study.costs, study.rungs.margin)
    if reason and in_control_group(study.seed, record.number, study.rungs.control):
        return replace(record, control=True)
    return replace(record, stopped=reason)


def _finish(
    study: Study, context: SearchContext, store: Store, record: Record, on_result: OnResult
) -> None:
    values = [record.objective(key) for key in study.objectives] if record.complete else []
    store.add(
        record,
        kept_trial(context.choice_space, Placement.parse(record.placement), values)
        if record.complete
        else None,
        values,
    )
    on_result(record)


def _teach(
    generator: CandidateGenerator, study: Study, record: Record, before: Sequence[Record]
) -> None:
    """Tell a finished record; one that was stopped with the error that its rung promised, as far as
    that says anything.
    """
    placement, costs = (
        Placement.parse(record.placement),
        [record.objective(key) for key in study.costs],
    )
    if record.complete:
        generator.tell(placement, record.objective("error"), costs)
    elif (
        record.stopped
        and (found := forecast(before, record.rung_epochs[-1]))
        and found.explained > 0
    ):
        generator.tell(placement, found.full(record.rung_errors[-1]), costs, found.explained)


def _cost_fields(base: Cost, cost: Cost) -> Mapping[str, Any]:
    counts = {key: getattr(cost, key) for key in COUNTS}
    above = {f"{key}_overhead": percent for key, percent in overheads(cost, base).items()}
    return {
        **counts,
        **above,
        "by_operator": dict(cost.by_operator),
        "uncounted": dict(cost.uncounted),
    }
