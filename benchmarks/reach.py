"""What the sampler costs until it has tried 0.90, 0.93 and 0.95 of the best hypervolume.

    python -m benchmarks.reach [--seeds 100] [--startup 6] [--landscapes NAME ...] [--out FILE.json]

It is set beside random search without repetition. As in `benchmarks/search.py` the study loop is
replayed and nothing is trained, but here it is the sampler alone that is measured: hypervolume is
of the true errors and exact costs of all placements tried so far, not of those recommended, as a
share of that of every placement. All are enumerated, in the space `small_grid` with its 125
placements. A cost is a number of full trainings, the baseline's included, 125 at most.

Landscapes: placements of `benchmarks/known_truth.py` with a standard deviation of 0.44 points, seen
with a noise of 0.9 ("known 0.9") and of 0.5; the additive and interacting ones of
`benchmarks/search.py`; each replay has a landscape of its own. "all" is the mean of their four
ratios. On the trained table the truth is the mean of the two seeds that a replay has not seen,
noise included, so that its best is in part luck that nobody can search for.

"warm start 0.3" is as "known", scored from a trained backbone (`scoring = "warm_start"`), beside a
random search that trains from scratch: a candidate costs half of a training, the backbone two
more. Its noise is what leaves a correlation of 0.83 with the truth, which the loss of one warm
start has (`benchmarks/results/rung_agreement.json`); "warm start 0.5" has one of 0.66.

FILE keeps what other calls have found for other landscapes.

`ratio` is that of the mean costs, with the 90 % range of 1,000 bootstraps over replays;
`ratio_of_medians` likewise.
"""

import argparse
import contextlib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from bam_search.analysis.additive import PlacementEncoder
from bam_search.analysis.pareto import hypervolume, nondominated
from bam_search.score.evaluate import Job, Result
from bam_search.search.loop import SearchContext, search
from bam_search.search.scoring import SCORINGS
from bam_search.space.placement import Placement
from bam_search.study.record import WARM_START, Record
from benchmarks.known_truth import Parts, Truth, drawn
from benchmarks.results import deliver, say
from benchmarks.search import (
    DEFAULT,
    KEYS,
    TABLE,
    Landscape,
    Memory,
    Spent,
    _done,
    _placement_study,
    _plan,
    _rows,
    _sample,
    _study,
    from_table,
    invented,
)

GRID = "small_grid"
SHARES = (0.90, 0.93, 0.95)
SD = 0.44
LEVEL = 0.9


def known(noise: float, number: int) -> Landscape:
    """Landscape `number` of known truth, seen with so much noise."""
    plan, encoder, texts, vectors, costs = _grid()
    error = functools.cache(Truth.draw(encoder, vectors, SD, Parts(), number).error)
    values = np.column_stack([[error(text) for text in texts], costs])
    worst = values.max(0) + 1e-9
    best = hypervolume(values[nondominated(values)], worst)

    def observe(text: str, _seed: int, _epochs: int) -> float:
        return error(text) + noise * drawn(number, "validation", text)

    return Landscape(plan, (1,), observe, error, worst, best)


@functools.cache
def _grid() -> tuple[SearchContext, PlacementEncoder, list[str], np.ndarray, np.ndarray]:
    """The grid's context and encoder; its placements as texts and vectors, and their overheads."""
    plan = _plan(GRID)
    encoder = PlacementEncoder.of(plan.choice_space)
    texts = _sample(plan, encoder)
    vectors = np.array([encoder.vector(Placement.parse(text)) for text in texts])
    return plan, encoder, texts, vectors, _rows(plan, texts)


KNOWN: Mapping[str, Callable[[int], Landscape]] = {
    "known 0.9": lambda number: known(0.9, number),
    "known 0.5": lambda number: known(0.5, number),
    "additive": lambda number: invented(GRID, number, 0.0, number),
    "interacting": lambda number: invented(GRID, number, 0.3, number),
}
WARM: Mapping[str, Callable[[int], Landscape]] = {
    "warm start 0.3": lambda number: known(0.3, number),
    "warm start 0.5": lambda number: known(0.5, number),
}
"""Ours are scored from a trained backbone."""
LANDSCAPES: Mapping[str, Callable[[int], Landscape]] = {
    **KNOWN,
    **WARM,
    "table": lambda number: from_table(TABLE, number),
}


def trainings(landscape: Landscape, replay: int, sampler: str, startup: int) -> list[float]:
    """How many trainings a sampler needs for each of SHARES."""
    study = _study(landscape, replay, sampler, rungs=False, startup=startup)
    spent, reached = 0, Reached(landscape)

    def submit(job: Job) -> "Future[Result]":
        nonlocal spent
        spent += 1
        return _done(landscape.observe(job.placement, job.seed, job.epochs))

    def told(record: Record) -> None:
        reached.add(record, spent)

    with contextlib.suppress(Spent):
        search(study, landscape.plan, Memory(), submit, told)  # type: ignore[arg-type]
    size = landscape.plan.choice_space.size
    return [reached.after.get(share, size) for share in SHARES]


class Reached:
    """The true front of the placements tried, and `after` how many each share was reached.

    Raises Spent when all are.
    """

    def __init__(self, landscape: Landscape) -> None:
        self.after: dict[float, int] = {}
        self._landscape = landscape
        self._front = np.zeros((0, 1 + len(KEYS)))

    def add(self, record: Record, spent: int) -> None:
        """Take in a placement, tried after so many trainings."""
        front = np.vstack([self._front, self._landscape.value(record)])
        self._front = front[nondominated(front)]
        volume = hypervolume(self._front, self._landscape.worst) / self._landscape.best
        for share in SHARES:
            if volume >= share - 1e-9:
                self.after.setdefault(share, spent)
        if len(self.after) == len(SHARES):
            raise Spent


def compare(ours: np.ndarray, random: np.ndarray) -> dict[str, Any]:
    """Our costs beside those of random search, one of each a replay."""
    return {
        "ratio": ratio([(ours, random)], np.mean),
        "ratio_of_medians": ratio([(ours, random)], np.median),
        "trainings": float(np.mean(ours)),
        "random_trainings": float(np.mean(random)),
    }


def ratio(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], middle: Callable[..., Any]
) -> dict[str, float]:
    """The ratio of the middles of costs, the mean ratio of several pairs, with its range."""
    n = len(pairs[0][0])
    rows = np.random.default_rng(0).integers(n, size=(1000, n))
    drawn_again = [middle(a[rows], axis=1) / middle(b[rows], axis=1) for a, b in pairs]
    low, high = np.quantile(np.mean(drawn_again, axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(np.mean([middle(a) / middle(b) for a, b in pairs]))
    return {"value": value, "low": float(low), "high": float(high), "n": n * len(pairs)}


def _warm_cost(candidates: float) -> float:
    """The cost of so many warm starts, in full trainings."""
    scoring = SCORINGS[WARM_START]
    return scoring.backbone + float(scoring.candidate) * candidates


def main() -> None:
    """Replay both on every landscape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--startup", type=int, default=_placement_study().startup)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=list(LANDSCAPES))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    before = json.loads(asked.out.read_text()) if asked.out and asked.out.exists() else {}
    found: dict[str, Any] = {**before, "seeds": asked.seeds, "startup": asked.startup}
    costs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in asked.landscapes:
        make, rows = LANDSCAPES[name], []
        for replay in range(asked.seeds):
            landscape = make(replay)
            ours = trainings(landscape, replay, DEFAULT, asked.startup)
            if name in WARM:
                ours = [_warm_cost(n) for n in ours]
            rows.append((ours, trainings(landscape, replay, "random", 100_000)))
        costs[name] = tuple(np.array(rows).transpose(1, 2, 0))
        found[name] = {
            str(share): compare(*(of_arm[i] for of_arm in costs[name]))
            for i, share in enumerate(SHARES)
        }
        say(f"{name}: {[round(row['ratio']['value'], 2) for row in found[name].values()]}")
    if costs.keys() >= KNOWN.keys():
        found["all"] = {
            str(share): ratio([(costs[name][0][i], costs[name][1][i]) for name in KNOWN], np.mean)
            for i, share in enumerate(SHARES)
        }
    deliver(found, asked.out)


if __name__ == "__main__":
    main()
