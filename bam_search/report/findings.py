"""What a study found, in numbers.

Finalists, differences to the references, where attention helps, what the rungs saved, and what the
search was worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.search.additive import Effect, effects_of, explain
from bam_search.search.pareto import hypervolume, nondominated, pareto_front
from bam_search.search.pruner import at_rung
from bam_search.search.record import (
    ABLATION,
    FIRST,
    RANDOM,
    REFERENCE,
    SEARCH,
    Record,
    best_of,
    main_records,
    startup_of,
)
from bam_search.search.statistics import (
    Difference,
    Mean,
    difference,
    mean,
    membership,
    noise,
    rank_correlation,
)
from bam_search.space.search_space import ChoiceSpace


@dataclass(frozen=True)
class Finalist:
    """A finalist, and how surely it is on the front.

    test: the mean of its test errors.
    p_on_front: the probability that it is on the front of mean test error and costs.
    validation_gain, test_gain: how many points better than the first reference it is, in the search
        and in the final trainings. The search chooses its front partly for good luck, and luck does
        not last. None where it cannot be compared.
    """

    record: Record
    test: Mean
    p_on_front: float
    validation_gain: float | None
    test_gain: float | None


@dataclass(frozen=True)
class ComparedTo:
    """A record beside another: the difference of their test errors, paired by seed."""

    record: Record
    other: Record
    difference: Difference


@dataclass(frozen=True)
class Rung:
    """What trainings of `epochs` epochs were worth.

    `agreement` is Kendall's tau between their errors and those of the full training.
    """

    epochs: int
    agreement: Mean | None


@dataclass(frozen=True)
class Stopping:
    """What stopping candidates early did.

    stopped: how many were stopped.
    control: how many would have been stopped, and were trained to the end all the same.
    wrong: how many of the control group ended on the front.
    spent: the epochs of the search.
    saved: the epochs that the stopped candidates had still before them.
    """

    rungs: tuple[Rung, ...]
    stopped: int
    control: int
    wrong: int
    spent: int
    saved: int


@dataclass(frozen=True)
class SearchVsRandom:
    """The search and the random search beside it.

    Of each: epochs spent, least validation error, and hypervolume of its front. The hypervolume is
    of validation error and the costs, up to the worst of either, as a share of the larger one.
    """

    search: tuple[int, float, float]
    random: tuple[int, float, float]


@dataclass(frozen=True)
class SiteEffects:
    """The effects of the additive model, and how well the model predicts.

    `left_out` is its error in points for a record that it has not seen, `left_out_mean` that of the
    plain mean of the other records.
    """

    effects: tuple[Effect, ...]
    left_out: float
    left_out_mean: float
    records: int


def finalists(records: Sequence[Record], costs: Sequence[str]) -> list[Finalist]:
    """All finalists but ablations, the cheapest first."""
    tested = [record for record in records if record.complete and record.test_errors]
    if not tested:
        return []
    first = next((record for record in tested if record.origin == REFERENCE), None)
    probabilities = membership(tested, costs, noise(records))
    found = [
        Finalist(record, mean(record.test_errors), p, *_gains(record, first))
        for record, p in zip(tested, probabilities, strict=True)
    ]
    return sorted(found, key=lambda finalist: _costs_and_error(finalist, costs))


def _costs_and_error(finalist: Finalist, costs: Sequence[str]) -> tuple[list[float], float]:
    return [finalist.record.objective(key) for key in costs], finalist.test.mean


def _gains(record: Record, first: Record | None) -> tuple[float | None, float | None]:
    """By how many points the record is better than the first reference: on validation, on test."""
    if first is None or record is first:
        return None, None
    if record.val_error is None or first.val_error is None:
        return None, None
    compared = difference(record, first, None)
    test_gain = None if compared is None else -compared.mean
    return first.val_error - record.val_error, test_gain


def recommended(records: Sequence[Record]) -> Record | None:
    """The searched finalist of least validation error: chosen before any test."""
    return best_of(r for r in records if r.origin == SEARCH and r.test_errors)


def compare_to(
    records: Sequence[Record], record: Record, origins: Sequence[str]
) -> list[ComparedTo]:
    """`record` beside each other tested record of these origins.

    The intervals are from the noise of all `records`.
    """
    others = [r for r in records if r.origin in origins and r is not record]
    return _beside(records, [(record, other) for other in others])


def ablations(records: Sequence[Record]) -> list[ComparedTo]:
    """The winner without each of its sites, beside the winner: positive where the site helps."""
    best = recommended(records)
    if best is None:
        return []
    without = [record for record in records if _is_ablation_of(record, best)]
    return _beside(records, [(record, best) for record in without])


def _is_ablation_of(record: Record, best: Record) -> bool:
    """Whether it leaves a site of `best` out: not of a former winner, before an extension."""
    return record.origin == ABLATION and (record.number - FIRST[ABLATION]) // 1000 == best.number


def _beside(records: Sequence[Record], pairs: Sequence[tuple[Record, Record]]) -> list[ComparedTo]:
    """Each pair that has seeds in common, with the noise of all `records`."""
    spread = noise(records)
    compared = []
    for record, other in pairs:
        paired = difference(record, other, spread)
        if paired is not None:
            compared.append(ComparedTo(record, other, paired))
    return compared


def site_effects(records: Sequence[Record], choice_space: ChoiceSpace) -> SiteEffects | None:
    """The effects on the validation error; None if there are too few records."""
    explained = explain(records, choice_space)
    if explained is None:
        return None
    model, vectors = explained
    effects = tuple(effects_of(model, vectors))
    return SiteEffects(effects, model.left_out, model.left_out_mean, len(vectors))


def stopping(records: Sequence[Record], objectives: Sequence[str]) -> Stopping | None:
    """What the rungs did; None if there are none."""
    main = main_records(records)
    budgets = sorted({epochs for record in main for epochs in record.rung_epochs})
    if not budgets:
        return None
    front = pareto_front(main, objectives)
    control = [record for record in main if record.control and record.complete]
    stopped = [record for record in main if record.stopped]
    return Stopping(
        rungs=tuple(_rung(main, epochs) for epochs in budgets),
        stopped=len(stopped),
        control=len(control),
        wrong=_how_many_of(control, front),
        spent=_search_epochs(main),
        saved=sum(_epochs_left(record, budgets) for record in stopped),
    )


def _how_many_of(records: Sequence[Record], front: Sequence[Record]) -> int:
    on_front = {record.number for record in front}
    return sum(record.number in on_front for record in records)


def _search_epochs(records: Sequence[Record]) -> int:
    """The epochs that the search has trained its own candidates, references not counted."""
    return sum(record.trained_epochs for record in records if record.origin == SEARCH)


def _rung(records: Sequence[Record], epochs: int) -> Rung:
    short_errors, full_errors = [], []
    for record in records:
        short = at_rung(record, epochs)
        if record.complete and short is not None:
            short_errors.append(short)
            full_errors.append(record.objective("error"))
    return Rung(epochs, rank_correlation(short_errors, full_errors))


def _epochs_left(record: Record, budgets: Sequence[int]) -> int:
    """The epochs that a stopped candidate had before it: the later rungs and the full training."""
    reached = record.rung_epochs[-1]
    return record.epochs + sum(budget for budget in budgets if budget > reached)


def search_vs_random(
    records: Sequence[Record], objectives: Sequence[str], startup: int
) -> SearchVsRandom | None:
    """The search beside the random search of equal cost; None if there was none."""
    lines = progress(records, objectives, startup)
    if len(lines) < 2:
        return None
    searched, random = _arms(records, startup)
    search_spent = _search_epochs(searched)
    random_spent = sum(record.epochs for record in random if record.complete)
    search_line, random_line = lines.values()
    return SearchVsRandom(
        search=(search_spent, _least_error(searched), search_line[-1][1]),
        random=(random_spent, _least_error(random), random_line[-1][1]),
    )


def _least_error(records: Sequence[Record]) -> float:
    return min(record.objective("error") for record in records if record.complete)


Line = list[tuple[int, float]]


def progress(records: Sequence[Record], objectives: Sequence[str], startup: int) -> dict[str, Line]:
    """The hypervolume of what was found by so many epochs, for "the search" and "random search".

    Without a random search that completed a candidate it has no line, and without a search that did
    there are none. The hypervolume is of validation error and the costs, up to the worst of either,
    as a share of the larger one at its end.
    """
    searched, random = _arms(records, startup)
    if not any(record.complete for record in searched):
        return {}
    worst = _worst([*searched, *random], objectives)
    # The random search has no rungs, and the startup that it shares counts as if trained without.
    lines = {"the search": _volumes(searched, objectives, worst, rungs=True)}
    if any(record.complete for record in random):
        lines["random search"] = _volumes(random, objectives, worst, rungs=False)
    most = max(line[-1][1] for line in lines.values()) or 1.0
    return {name: _scaled(line, most) for name, line in lines.items()}


def _worst(records: Sequence[Record], objectives: Sequence[str]) -> np.ndarray:
    """(objectives,): just above the greatest value of each, so that every record adds volume."""
    complete = [record for record in records if record.complete]
    greatest = [max(record.objective(key) for record in complete) for key in objectives]
    return np.array(greatest) + 1e-9


def _scaled(line: Line, most: float) -> Line:
    return [(spent, volume / most) for spent, volume in line]


def _arms(records: Sequence[Record], startup: int) -> tuple[list[Record], list[Record]]:
    """The searched candidates, and those of the random search.

    The random search begins with the search's startup; the second list is empty without one.
    """
    searched = [record for record in records if record.origin == SEARCH]
    drawn = [record for record in records if record.origin == RANDOM]
    if not drawn:
        return searched, []
    return searched, [*startup_of(records, startup), *drawn]


def _volumes(
    arm: Sequence[Record], objectives: Sequence[str], worst: np.ndarray, rungs: bool
) -> Line:
    """Epochs spent and the front's hypervolume up to `worst`, after each complete record.

    `rungs` says whether the epochs of shorter trainings count.
    """
    line: Line = []
    spent, front = 0, np.zeros((0, len(objectives)))
    for record in arm:
        spent += record.trained_epochs if rungs else record.epochs * record.complete
        if record.complete:
            front = np.vstack([front, [record.objective(key) for key in objectives]])
            front = front[nondominated(front)]
            line.append((spent, hypervolume(front, worst)))
    return line
