"""What a study found, in numbers: finalists, differences to the references, where attention helps,
what the rungs saved.
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
    """A finalist: its test errors' mean, and the probability that it is on the front of mean test
    error and costs.

    `promised` is by how many points the search found it better than the first reference, `kept` by
    how many the final trainings do: the front of a search is chosen for good luck, and luck does
    not last.
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
    """What trainings of `epochs` epochs were worth: `agreement` is Kendall's tau with the full
    training.
    """

    epochs: int
    agreement: Mean | None


@dataclass(frozen=True)
class Stopping:
    """What stopping did: how many were `stopped`, how many were `audited` (hopeless, and trained on
    all the same), and how many of these ended on the front. `spent` and `saved` are epochs: of the
    search, and what the stopped ones had still before them."""

    rungs: tuple[Rung, ...]
    stopped: int
    control: int
    wrong: int
    spent: int
    saved: int


@dataclass(frozen=True)
class SearchVsRandom:
    """The search and the random search beside it: epochs spent, least validation error, and
    hypervolume of their fronts.

    The hypervolume is of validation error and the costs, up to the worst of either arm, as a share
    of the larger one.
    """

    search: tuple[int, float, float]
    random: tuple[int, float, float]


@dataclass(frozen=True)
class SiteEffects:
    """The effects of the additive model, and how well it predicts a record that it has not seen,
    beside the plain mean.
    """

    effects: tuple[Effect, ...]
    left_out: float
    left_out_mean: float
    records: int


def finalists(records: Sequence[Record], costs: Sequence[str]) -> list[Finalist]:
    """All finalists but ablations, the cheapest first."""
    tested = [r for r in records if r.complete and r.test_errors]
    base = next((r for r in tested if r.origin == REFERENCE), None)
    chances = membership(tested, costs, noise(records)) if tested else []
    found = [
        Finalist(r, mean(r.test_errors), chance, *_advantage(r, base))
        for r, chance in zip(tested, chances, strict=True)
    ]
    return sorted(found, key=lambda f: ([f.record.objective(key) for key in costs], f.test.mean))


def _advantage(record: Record, base: Record | None) -> tuple[float | None, float | None]:
    if base is None or record.val_error is None or base.val_error is None or record is base:
        return None, None
    found = difference(record, base, None)
    return base.val_error - record.val_error, None if found is None else -found.mean


def recommended(records: Sequence[Record]) -> Record | None:
    """The searched finalist of least validation error: chosen before any test."""
    return best_of(r for r in records if r.origin == SEARCH and r.test_errors)


def compare_to(
    records: Sequence[Record], record: Record, origins: Sequence[str]
) -> list[ComparedTo]:
    """`record` beside each other tested record of these origins; the noise is that of all
    `records`.
    """
    others = [r for r in records if r.origin in origins and r is not record]
    return _beside(records, [(record, other) for other in others])


def ablations(records: Sequence[Record]) -> list[ComparedTo]:
    """The winner without each of its sites, beside the winner: positive where the site helps."""
    best = recommended(records)
    if best is None:
        return []
    # Not those of a former winner, of a study that was extended since.
    own = [
        r
        for r in records
        if r.origin == ABLATION and (r.number - FIRST[ABLATION]) // 1000 == best.number
    ]
    return _beside(records, [(r, best) for r in own])


def _beside(records: Sequence[Record], pairs: Sequence[tuple[Record, Record]]) -> list[ComparedTo]:
    """Each pair that has seeds in common, with the noise of all `records`."""
    spread = noise(records)
    return [
        ComparedTo(a, b, found) for a, b in pairs if (found := difference(a, b, spread)) is not None
    ]


def site_effects(records: Sequence[Record], choice_space: ChoiceSpace) -> SiteEffects | None:
    """The effects on the validation error; None if there are too few records."""
    found = explain(records, choice_space)
    if found is None:
        return None
    learned, vectors = found
    return SiteEffects(
        tuple(effects_of(learned, vectors)), learned.left_out, learned.left_out_mean, len(vectors)
    )


def stopping(records: Sequence[Record], objectives: Sequence[str]) -> Stopping | None:
    """What the rungs did; None if there are none."""
    own = main_records(records)
    budgets = sorted({epochs for r in own for epochs in r.rung_epochs})
    if not budgets:
        return None
    on_front = {r.number for r in pareto_front(own, objectives)}
    audited = [r for r in own if r.control and r.complete]
    rungs = []
    for epochs in budgets:
        pairs = [
            (short, r.objective("error"))
            for r in own
            if r.complete and (short := at_rung(r, epochs)) is not None
        ]
        rungs.append(Rung(epochs, rank_correlation([p[0] for p in pairs], [p[1] for p in pairs])))
    stopped = [r for r in own if r.stopped]
    saved = sum(r.epochs + sum(b for b in budgets if b > r.rung_epochs[-1]) for r in stopped)
    wrong = sum(r.number in on_front for r in audited)
    return Stopping(
        tuple(rungs),
        len(stopped),
        len(audited),
        wrong,
        sum(r.trained_epochs for r in own if r.origin == SEARCH),
        saved,
    )


def search_vs_random(
    records: Sequence[Record], objectives: Sequence[str], startup: int
) -> SearchVsRandom | None:
    """The search beside the random search of equal cost; None if there was none."""
    lines = progress(records, objectives, startup)
    if len(lines) < 2:
        return None
    searched, chance = _arm(records, startup)
    best = [min(r.objective("error") for r in arm if r.complete) for arm in (searched, chance)]
    spent = [sum(r.trained_epochs for r in searched), sum(r.epochs for r in chance if r.complete)]
    found = [(s, b, line[-1][1]) for s, b, line in zip(spent, best, lines.values(), strict=True)]
    return SearchVsRandom(found[0], found[1])


Line = list[tuple[int, float]]


def progress(records: Sequence[Record], objectives: Sequence[str], startup: int) -> dict[str, Line]:
    """For "the search", and "random search" if there was one: epochs spent, and the hypervolume of
    what was found by then.

    The hypervolume is of validation error and the costs, up to the worst of either arm, as a share
    of the larger one at its end. Empty if the search has completed nothing.
    """
    searched, chance = _arm(records, startup)
    both = {"the search": searched, "random search": chance}
    measured = {name: arm for name, arm in both.items() if any(r.complete for r in arm)}
    if not any(r.complete for r in searched):
        return {}
    worst = (
        np.array(
            [
                max(r.objective(key) for arm in measured.values() for r in arm if r.complete)
                for key in objectives
            ]
        )
        + 1e-9
    )
    # The random search has no rungs, and the startup that it shares counts as if trained without.
    lines = {
        name: _volumes(arm, objectives, worst, rungs=arm is searched)
        for name, arm in measured.items()
    }
    most = max(line[-1][1] for line in lines.values()) or 1.0
    return {
        name: [(spent, volume / most) for spent, volume in line] for name, line in lines.items()
    }


def _arm(records: Sequence[Record], startup: int) -> tuple[list[Record], list[Record]]:
    """The searched candidates, and those of the random search, which begins with the search's
    startup; without one it has none.
    """
    drawn = [r for r in records if r.origin == RANDOM]
    return [r for r in records if r.origin == SEARCH], [
        *startup_of(records, startup),
        *drawn,
    ] if drawn else []


def _volumes(
    arm: Sequence[Record], objectives: Sequence[str], worst: np.ndarray, rungs: bool
) -> Line:
    line: Line = []
    spent, kept = 0, np.zeros((0, len(objectives)))
    for record in arm:
        spent += record.trained_epochs if rungs else record.epochs * record.complete
        if record.complete:
            kept = np.vstack([kept, [record.objective(key) for key in objectives]])
            kept = kept[nondominated(kept)]
            line.append((spent, hypervolume(kept, worst)))
    return line
