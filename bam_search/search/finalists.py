"""Finalists: the references, the fronts and the best random candidate, trained again with fresh
seeds on all training images.

Each training is measured on the test set once. All have the first seeds; then, within the study's
limit, further seeds go to those of which it is least clear whether they are on the front. The
winner is also trained without each of its sites.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

import numpy as np

from bam_search.model.attach import resolve
from bam_search.score.evaluate import Job, Result
from bam_search.search.additive import explain
from bam_search.search.executors import Submit
from bam_search.search.loop import OnResult, SearchContext, max_in_flight, new_record
from bam_search.search.pareto import pareto_front
from bam_search.search.record import (
    ABLATION,
    FIRST,
    RANDOM,
    REFERENCE,
    SEARCH,
    Record,
    best_of,
    main_records,
)
from bam_search.search.statistics import membership, noise
from bam_search.search.store import Store
from bam_search.search.study import Study
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace

FRESH = 1_000_003
"""Added to the study's seed for the finalists: seeds that the search has not seen, so that no test
error is a lucky draw of it.
"""
UNCLEAR = (0.05, 0.95)
"""Between these probabilities it is unclear whether a finalist is on the front."""


def choose_finalists(
    study: Study, choice_space: ChoiceSpace, records: Sequence[Record]
) -> list[Record]:
    """The references, then the members of the front and of the expected front, then the random
    candidate of least validation error.
    """
    own = main_records(records)
    members = [record for record in own if record.origin == REFERENCE and record.complete]
    for more in (pareto_front(own, study.objectives), expected_front(study, choice_space, records)):
        known = {record.number for record in members}
        members += [
            record for record in more if record.number not in known and record.origin == SEARCH
        ]
    best = best_of(record for record in records if record.origin == RANDOM)
    if best is None or best.id in {record.id for record in members}:
        return members
    return [*members, best]


def expected_front(
    study: Study, choice_space: ChoiceSpace, records: Sequence[Record]
) -> list[Record]:
    """The references and searched records on the front of the errors that the additive model
    expects, cheapest first.

    The front as measured is drawn by luck where noise is as large as the differences; the model has
    every record's noise averaged out. Empty where the model predicts no better than the plain mean.
    """
    found = explain(records, choice_space)
    if found is None or found[0].left_out >= found[0].left_out_mean:
        return []
    learned = found[0]
    own = [
        (record, learned.encoder.vector(Placement.parse(record.placement)))
        for record in main_records(records)
        if record.complete
    ]
    in_space = [(record, vector) for record, vector in own if vector is not None]
    if not in_space:
        return []
    errors = learned.predict(learned.encoder.features(np.array([vector for _, vector in in_space])))
    expected = [
        replace(record, val_error=float(error))
        for (record, _), error in zip(in_space, errors, strict=True)
    ]
    by_number = {record.number: record for record, _ in in_space}
    return [by_number[record.number] for record in pareto_front(expected, study.objectives)]


def train_finalists(
    study: Study, context: SearchContext, store: Store, submit: Submit, on_result: OnResult
) -> None:
    """Train the finalists again; what the store has already is not repeated."""
    records = store.records()
    members = choose_finalists(study, context.choice_space, list(records.values()))
    without = ablations(study, context, members)
    for record in without:
        if record.number not in records:
            store.add(record, None, [])
    first = range(study.finalists.seeds)
    _round(
        study,
        store,
        submit,
        on_result,
        [(record, index) for index in first for record in (*members, *without)],
    )
    left = round(study.finalists.extra * len(members) * study.finalists.seeds)
    for index in range(study.finalists.seeds, study.finalists.most):
        chosen = unclear(study, store, members, index)[:left]
        left -= len(chosen)
        _round(study, store, submit, on_result, [(record, index) for record in chosen])


def ablations(study: Study, context: SearchContext, members: Sequence[Record]) -> list[Record]:
    """The winner, the searched finalist of least validation error, without each of its sites;
    nothing where that is known already.
    """
    winner = best_of(record for record in members if record.origin == SEARCH)
    if winner is None or not study.finalists.leave_one_out:
        return []
    sites = dict(Placement.parse(winner.placement).choices)
    known = {record.id for record in members}
    found = []
    for index, site in enumerate(sites):
        rest = resolve(
            Placement.of({name: choice for name, choice in sites.items() if name != site}),
            context.sites,
        )
        number = FIRST[ABLATION] + 1000 * winner.number + index
        if rest.id not in known:
            found.append(
                new_record(
                    study, context, number, ABLATION, f"#{winner.number} without {site}", rest
                )
            )
    return found


def unclear(study: Study, store: Store, members: Sequence[Record], index: int) -> list[Record]:
    """The finalists that may or may not be on the front after the seeds before `index`, the least
    clear first.
    """
    records = store.records()
    known = [_before(study, records[record.number], index) for record in members]
    known = [record for record in known if len(record.test_errors) > 1]
    chances = membership(known, study.costs, noise(known)) if known else []
    doubtful = [
        (abs(p - 0.5), r)
        for p, r in zip(chances, known, strict=True)
        if UNCLEAR[0] < p < UNCLEAR[1]
    ]
    # Only those with all seeds so far go on: one that failed once would fail again.
    tried = Counter(
        number for number, seed in store.final_seeds() if seed < study.seed + FRESH + index
    )
    return [
        r
        for _, r in sorted(doubtful, key=lambda pair: (pair[0], pair[1].number))
        if len(r.test_seeds) == tried[r.number]
    ]


def _before(study: Study, record: Record, index: int) -> Record:
    """The record as it was before the seed `index`: an interrupted study decides as it would have
    without.
    """
    kept = [
        (s, e)
        for s, e in zip(record.test_seeds, record.test_errors, strict=True)
        if s < study.seed + FRESH + index
    ]
    return replace(
        record, test_seeds=tuple(s for s, _ in kept), test_errors=tuple(e for _, e in kept)
    )


def _round(
    study: Study,
    store: Store,
    submit: Submit,
    on_result: OnResult,
    wanted: Sequence[tuple[Record, int]],
) -> None:
    """Train each (record, index of its seed) that the store does not have."""
    pending: dict[Future[Result], tuple[Record, int]] = {}
    done = store.final_seeds()
    for record, index in wanted:
        seed = study.seed + FRESH + index
        if (record.number, seed) not in done:
            if len(pending) == max_in_flight(study):
                _collect(store, pending, on_result)
            pending[submit(Job(record.placement, seed, record.epochs, final=True))] = (record, seed)
    while pending:
        _collect(store, pending, on_result)


def _collect(
    store: Store, pending: dict[Future[Result], tuple[Record, int]], on_result: OnResult
) -> None:
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        record, seed = pending.pop(future)
        store.add_final(record.number, seed, _fields(future.result()))
        on_result(store.records()[record.number])


def _fields(result: Result) -> Mapping[str, Any]:
    if result.score is None:
        return {"failure": result.failure}
    score = result.score
    return {
        "error": score.error,
        "images": score.images,
        "seconds": score.seconds,
        "micro_batches": score.micro_batches,
    }
