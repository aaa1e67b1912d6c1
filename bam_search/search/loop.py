"""The study loop: references first, then what the proposer says, at last the finalists on the test set.

Candidate n is proposed once candidates 0 to n - window are told, in their order, whichever finished first: with the same seed and
number of workers a study makes the same proposals, also when it was interrupted.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from bam_search.model.attach import resolve
from bam_search.score.cost import COUNTS, Cost, overheads
from bam_search.score.cost_table import CostTable
from bam_search.score.evaluate import Job, Result
from bam_search.search.executors import Submit
from bam_search.search.front import front
from bam_search.search.record import REFERENCE, SEARCH, Record
from bam_search.search.sampler import Proposer, trial_of
from bam_search.search.store import Store
from bam_search.search.study import Study
from bam_search.space.placement import Placement
from bam_search.space.search_space import Menu
from bam_search.space.sites import Sites

FRESH = 1_000_003
"""Added to the study's seed for the finalists: a seed that the search has not seen, so their test error is no lucky draw of the search."""


@dataclass(frozen=True)
class Plan:
    """What a study's loop needs to know beside the study: the data's name, the references by name, the sites, the menu, the costs."""

    data: str
    references: Mapping[str, Placement]
    sites: Sites
    menu: Menu
    costs: CostTable


Told = Callable[[Record], None]
Pending = dict["Future[Result]", Record]


def search(study: Study, plan: Plan, store: Store, submit: Submit, told: Told) -> None:
    """Run the study's candidates up to `study.trials`, those in the store not again; `told` hears of each new record.

    Ends early if the space has no further placement.
    """
    references = list(plan.references.items())
    proposer = _proposer(study, plan, first=len(references))
    records = store.records()
    pending: Pending = {}
    taken = {record.id for record in records.values()}
    heard = 0
    for number in range(study.trials):
        while heard <= number - _window(study):
            while heard not in records:
                _collect(study, plan, store, pending, records, told)
            _teach(proposer, study, records[heard])
            heard += 1
        if number in records:
            continue
        name, placement = references[number] if number < len(references) else ("", proposer.propose(number, taken))
        if placement is None:
            break
        record = _begun(study, plan, number, name, placement)
        taken.add(record.id)
        pending[submit(Job(record.placement, study.seed, record.epochs))] = record
    while pending:
        _collect(study, plan, store, pending, records, told)


def finals(study: Study, store: Store, submit: Submit, told: Told) -> None:
    """Train the references and the front again, with a fresh seed on all training images, and measure each once on the test set."""
    pending: Pending = {}
    for record in finalists(study, list(store.records().values())):
        if not record.tested:
            if len(pending) == _window(study):
                _collect_final(study, store, pending, told)
            pending[submit(Job(record.placement, study.seed + FRESH, record.epochs, final=True))] = record
    while pending:
        _collect_final(study, store, pending, told)


def _window(study: Study) -> int:
    # How many may be under way: one more than there are workers, so that no worker waits while the driver proposes.
    return study.workers + 1 if study.workers > 1 else 1


def _proposer(study: Study, plan: Plan, first: int) -> Proposer:
    def canonical(placement: Placement) -> Placement:
        resolved = resolve(placement, plan.sites)
        plan.costs.cost(resolved)  # raises for a `block` where the backbone has none to repeat
        return resolved

    return Proposer(
        menu=plan.menu,
        canonical=canonical,
        objectives=len(study.objectives),
        sampler=study.sampler,
        seed=study.seed,
        first=first,
        startup=study.startup,
    )


def finalists(study: Study, records: list[Record]) -> list[Record]:
    """The references, then the members of the front that are none."""
    references = [record for record in records if record.origin == REFERENCE and record.complete]
    return references + [record for record in front(records, study.objectives) if record.origin == SEARCH]


def _collect(study: Study, plan: Plan, store: Store, pending: Pending, records: dict[int, Record], told: Told) -> None:
    """Wait for at least one candidate, and keep all that are finished."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        result = future.result()
        record = replace(pending.pop(future), **_score_fields(result), failure=result.failure)
        values = _values(study, record)
        store.add(record, trial_of(plan.menu, Placement.parse(record.placement), values) if record.complete else None, values)
        records[record.number] = record
        told(record)


def _collect_final(study: Study, store: Store, pending: Pending, told: Told) -> None:
    """Wait for at least one finalist, and keep all that are finished."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        record, fields = pending.pop(future), _final_fields(study, future.result())
        store.add_final(record.number, fields)
        told(replace(record, **fields))


def _teach(proposer: Proposer, study: Study, record: Record) -> None:
    if record.complete:
        proposer.tell(Placement.parse(record.placement), _values(study, record))


def _values(study: Study, record: Record) -> list[float]:
    return [record.objective(key) for key in study.objectives] if record.complete else []


def _begun(study: Study, plan: Plan, number: int, name: str, placement: Placement) -> Record:
    return Record(
        number=number,
        origin=REFERENCE if name else SEARCH,
        name=name,
        placement=placement.text,
        id=placement.id,
        data=plan.data,
        seed=study.seed,
        epochs=study.recipe.epochs,
        **_cost_fields(plan.costs.base, plan.costs.cost(placement)),
    )


def _cost_fields(base: Cost, cost: Cost) -> Mapping[str, Any]:
    counts = {key: getattr(cost, key) for key in COUNTS}
    above = {f"{key}_overhead": percent for key, percent in overheads(cost, base).items()}
    return {**counts, **above, "by_operator": dict(cost.by_operator), "uncounted": dict(cost.uncounted)}


def _score_fields(result: Result) -> Mapping[str, Any]:
    score = result.score
    if score is None:
        return {}
    return {
        "val_error": score.error,
        "val_images": score.images,
        "val_errors": tuple(epoch.error for epoch in score.per_epoch),
        "train_losses": tuple(epoch.loss for epoch in score.per_epoch),
        "seconds": score.seconds,
        "micro_batches": score.micro_batches,
    }


def _final_fields(study: Study, result: Result) -> Mapping[str, Any]:
    if result.score is None:
        return {"test_failure": result.failure}
    return {
        "test_error": result.score.error,
        "test_images": result.score.images,
        "test_seed": study.seed + FRESH,
        "test_seconds": result.score.seconds,
        "test_micro_batches": result.score.micro_batches,
    }
