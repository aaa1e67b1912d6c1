"""How well a search searches, on trained tables and on landscapes of known truth.

    python -m benchmarks.search [--seeds 60] [--out FILE.json]

Nothing is trained: a replay takes a placement's errors from `placement_table.csv` or from an
invented landscape, and runs the study loop itself on them. On the table each placement is seen with
one of its seeds, drawn anew for each replay, and its truth is the mean of the others, which the
replay has not seen; what a seed does to all placements alike is taken out first, as all candidates
of a study share theirs. Hypervolume is of the true errors of the placements that an arm recommends
after so many epochs of training, with their exact costs, as a share of that of all placements.

Arms: ours (the default sampler; it recommends the study's finalists), the same with only the front
as measured, with rungs, with every other sampler; random search without repetition, its number of
sites uniform, which recommends the front as measured or, as ours, the study's finalists; and
Optuna's TPE and NSGA-II in Optuna's own loop with full trainings, where a repeated placement is
trained again. These recommend the front as measured.
"""

import argparse
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pandas as pd

from bam_search.analysis.additive import PlacementEncoder
from bam_search.analysis.pareto import hypervolume, nondominated, pareto_front
from bam_search.analysis.pruning import stopping
from bam_search.files import write
from bam_search.model.attach import resolve
from bam_search.processes import cores
from bam_search.score.cost import overheads
from bam_search.score.device import choose
from bam_search.score.evaluate import Job, Result, Score
from bam_search.score.train import EpochResult
from bam_search.search.finalists import choose_finalists
from bam_search.search.generator import SAMPLERS, _suggest
from bam_search.search.loop import SearchContext, candidate_generator, search
from bam_search.search.study import Study, load_study
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import Record, main_records
from benchmarks.invented import context_of

TABLE = Path("benchmarks/results/placement_table.csv")
KEYS = ("params_overhead", "macs_conv_fc_overhead")


@dataclass(frozen=True, eq=False)
class Landscape:
    """What training would give in one replay.

    `observe(placement text, seed, epochs)` is an error, `truth(placement text)` the expected one.

    `worst` is the hypervolume's reference point: error and costs; `best` the hypervolume of all
    placements (or of many).
    """

    plan: SearchContext
    budgets: tuple[int, ...]
    observe: Callable[[str, int, int], float]
    truth: Callable[[str], float]
    worst: np.ndarray
    best: float

    def value(self, record: Record) -> list[float]:
        """The true error and the costs of a record."""
        return [self.truth(record.placement), *(record.objective(key) for key in KEYS)]

    def volume(self, rows: Sequence[Sequence[float]]) -> float:
        """The hypervolume of these true values, as a share of the best."""
        return hypervolume(np.array(rows), self.worst) / self.best


@dataclass(eq=False)
class Memory:
    """A store in memory, with the methods of the real one (`Store`) that the loop calls."""

    kept: dict[int, Record] = field(default_factory=dict)
    tested: dict[tuple[int, int], float] = field(default_factory=dict)

    def records(self) -> dict[int, Record]:
        """As Store.records."""
        by_number: dict[int, dict[int, float]] = {}
        for (number, seed), error in sorted(self.tested.items()):
            by_number.setdefault(number, {})[seed] = error
        found = {
            n: (tuple(by_number.get(n, {})), tuple(by_number.get(n, {}).values()))
            for n in self.kept
        }
        return {
            n: replace(r, test_seeds=found[n][0], test_metrics=found[n][1])
            for n, r in sorted(self.kept.items())
        }

    def is_running(self, _number: int) -> bool:
        """Yes: it keeps nothing of candidates under way."""
        return True

    def add(self, record: Record, _values: object) -> None:
        """As Store.add."""
        self.kept[record.number] = record

    def add_final(self, number: int, seed: int, fields: Mapping[str, Any]) -> None:
        """As Store.add_final."""
        self.tested[number, seed] = fields["metric"]

    def final_seeds(self) -> set[tuple[int, int]]:
        """As Store.final_seeds."""
        return set(self.tested)


class Spent(Exception):
    """The replay's training cost is used up."""


@dataclass(frozen=True)
class Point:
    """What is recommended after `spent` epochs of training.

    It holds the number of placements and their hypervolume.
    """

    spent: int
    volume: float
    size: int


Curve = list[Point]
Recommend = Callable[[Study, ChoiceSpace, Sequence[Record]], list[Record]]


def as_measured(
    study: Study, _choice_space: ChoiceSpace, records: Sequence[Record]
) -> list[Record]:
    """What any search recommends: the front of the errors that it saw."""
    return pareto_front(records, study.objectives)


def ours(
    landscape: Landscape,
    replay: int,
    most: int,
    sampler: str,
    rungs: bool,
    startup: int,
    recommend: Recommend = choose_finalists,
) -> tuple[Curve, list[Record]]:
    """Run the search loop until `most` epochs are spent.

    The first `startup` candidates are random; in the random search all are.
    """
    study = _study(landscape, replay, sampler, rungs, startup)
    store, spent = Memory(), 0
    curve: Curve = []

    def submit(job: Job) -> "Future[Result]":
        nonlocal spent
        spent += job.epochs
        if spent > most:
            raise Spent
        return _done(landscape.observe(job.placement, job.seed, job.epochs))

    def told(_record: Record) -> None:
        recommended = recommend(study, landscape.plan.choice_space, list(store.kept.values()))
        curve.append(
            Point(
                spent, landscape.volume([landscape.value(r) for r in recommended]), len(recommended)
            )
        )

    with contextlib.suppress(Spent):
        search(study, landscape.plan, store, submit, told)  # type: ignore[arg-type]
    return curve, list(store.kept.values())


def plain_optuna(
    landscape: Landscape, replay: int, most: int, sampler: optuna.samplers.BaseSampler
) -> Curve:
    """Run Optuna's own loop with full trainings, as its documentation shows it.

    The baseline comes first, as in every arm.
    """
    study = optuna.create_study(directions=["minimize"] * 3, sampler=sampler)
    plan, full = landscape.plan, landscape.budgets[-1]
    spent, curve, found = (
        full,
        [],
        [
            (
                [landscape.observe("none", replay, full), 0.0, 0.0],
                [landscape.truth("none"), 0.0, 0.0],
            )
        ],
    )
    while spent + full <= most:
        trial = study.ask()
        placement = resolve(_suggest(plan.choice_space, trial), plan.sites)
        costs = _costs(plan, placement)
        error = landscape.observe(placement.text, replay, full)
        study.tell(trial, [error, *costs])
        found.append(([error, *costs], [landscape.truth(placement.text), *costs]))
        spent += full
        kept = nondominated(np.array([seen for seen, _ in found]))
        chosen = {tuple(true) for (_, true), keep in zip(found, kept, strict=True) if keep}
        curve.append(Point(spent, landscape.volume(list(chosen)), len(chosen)))
    return curve


def _study(landscape: Landscape, replay: int, sampler: str, rungs: bool, startup: int) -> Study:
    study = _placement_study()
    return replace(
        study,
        sampler=sampler,
        seed=replay,
        startup=startup,
        trials=100_000,
        workers=1,
        references={"no attention": "none"},
        rungs=replace(study.rungs, epochs=landscape.budgets[:-1] if rungs else ()),
        recipe=replace(study.recipe, epochs=landscape.budgets[-1]),
    )


def _done(error: float) -> "Future[Result]":
    future: Future[Result] = Future()
    future.set_result(Result(Score(error, 0.0, 1000, (EpochResult(0.0, error),), 0.0)))
    return future


@functools.cache
def _plan(space_name: str) -> SearchContext:
    return context_of(space_name, {"no attention": "none"})


def _rows(plan: SearchContext, texts: Sequence[str]) -> np.ndarray:
    """(n, 2) overheads of placements."""
    return np.array([_costs(plan, Placement.parse(text)) for text in texts])


def _costs(plan: SearchContext, placement: Placement) -> list[float]:
    """The overheads of KEYS."""
    above = overheads(plan.costs.cost(placement), plan.costs.base)
    return [above[key.removesuffix("_overhead")] for key in KEYS]


@functools.cache
def _table(path: Path) -> tuple[SearchContext, Mapping[int, pd.DataFrame], np.ndarray]:
    """The search context, the errors by epochs, and the placements' overheads of a trained table.

    The errors are of placements (rows) and seeds (columns), with the seeds' means made equal.
    """
    table = pd.read_csv(path)
    plan = _plan(json.loads(path.with_suffix(".json").read_text())["space"])
    by_epochs = {}
    for epochs, rows in table.groupby("epochs"):
        errors = rows.pivot(index="placement", columns="seed", values="error")
        by_epochs[cast("int", epochs)] = errors - errors.mean() + errors.to_numpy().mean()
    return plan, by_epochs, _rows(plan, errors.index.tolist())


def from_table(path: Path, replay: int) -> Landscape:
    """A replay of the trained table.

    An observation is of one seed of a placement, the same on every rung; the truth is the mean of
    the other seeds.
    """
    plan, by_epochs, costs = _table(path)
    budgets = tuple(sorted(by_epochs))
    full = by_epochs[budgets[-1]]
    drawn = np.random.default_rng(replay).integers(full.shape[1], size=len(full))
    seen = {
        epochs: dict(
            zip(
                full.index,
                errors.loc[full.index].to_numpy()[np.arange(len(full)), drawn],
                strict=True,
            )
        )
        for epochs, errors in by_epochs.items()
    }
    others = (full.to_numpy().sum(1) - np.array(list(seen[budgets[-1]].values()))) / (
        full.shape[1] - 1
    )
    truth = dict(zip(full.index, others.tolist(), strict=True))
    values = np.column_stack([others, costs])
    worst = values.max(0) + 1e-9
    best = hypervolume(values[nondominated(values)], worst)
    return Landscape(
        plan,
        budgets,
        lambda text, _seed, epochs: float(seen[epochs][text]),
        truth.__getitem__,
        worst,
        best,
    )


def invented(space_name: str, number: int, interactions: float, replay: int) -> Landscape:
    """A landscape of known truth on a real choice space.

    It has additive effects, `interactions` between pairs of sites, and noise.

    A short training sees half of each effect, with more noise; a training seed moves all placements
    alike.
    """
    plan = _plan(space_name)
    encoder = PlacementEncoder.of(plan.choice_space)
    rng = np.random.default_rng(number)
    effects = rng.normal(-0.3, 0.5, len(encoder.sites))
    options = [rng.normal(0, 0.15, len(choices) + 1) for choices in encoder.choices]
    pairs = rng.normal(0, interactions, (len(encoder.sites), len(encoder.sites)))

    def truth(text: str) -> float:
        vector = encoder.vector(Placement.parse(text))
        assert vector is not None
        on = vector > 0
        own = sum(effects[i] + options[i][j] for i, j in enumerate(vector) if j)
        return float(80 + own + on @ np.triu(pairs, 1) @ on)

    def observe(text: str, seed: int, epochs: int) -> float:
        drawn = np.random.default_rng(zlib.crc32(f"{text}:{seed}:{epochs}:{replay}".encode()))
        common = np.random.default_rng(zlib.crc32(f"{seed}:{epochs}:{replay}".encode())).normal(
            0, 0.2
        )
        short = epochs < 3
        return float(
            (88 + 0.5 * (truth(text) - 80) if short else truth(text))
            + common
            + drawn.normal(0, 0.3 if short else 0.25)
        )

    some = _sample(plan, encoder)
    values = np.column_stack([[truth(text) for text in some], _rows(plan, some)])
    worst = values.max(0) + 1e-9
    kept = values[nondominated(values)]
    return Landscape(plan, (1, 3), observe, truth, worst, hypervolume(kept, worst))


def _sample(plan: SearchContext, encoder: PlacementEncoder) -> list[str]:
    """All placements of a small space, 3,000 of a large one."""
    if plan.choice_space.size <= 5000:
        vectors = itertools.product(*(range(1 + len(choices)) for choices in encoder.choices))
        return [resolve(encoder.placement(vector), plan.sites).text for vector in vectors]
    rng = np.random.default_rng(0)
    pool = candidate_generator(_placement_study(), plan)._pool
    return list(
        {resolve(encoder.placement(v), plan.sites).text for v in pool.some(3000, rng)} | {"none"}
    )


@functools.cache  # the file is read once, not for each replay
def _placement_study() -> Study:
    return load_study("placement", choose("cpu"), {}, [])


def _default(landscape: Landscape, replay: int, most: int) -> Curve:
    return ours(landscape, replay, most, DEFAULT, rungs=False, startup=STARTUP)[0]


def _with_rungs(landscape: Landscape, replay: int, most: int) -> Curve:
    return ours(landscape, replay, most, DEFAULT, rungs=True, startup=STARTUP)[0]


def _by(sampler: str) -> Callable[[Landscape, int, int], Curve]:
    return lambda landscape, replay, most: ours(
        landscape, replay, most, sampler, rungs=False, startup=STARTUP
    )[0]


def _measured(landscape: Landscape, replay: int, most: int) -> Curve:
    return ours(
        landscape, replay, most, DEFAULT, rungs=False, startup=STARTUP, recommend=as_measured
    )[0]


def _random(landscape: Landscape, replay: int, most: int) -> Curve:
    return ours(
        landscape, replay, most, "random", rungs=False, startup=100_000, recommend=as_measured
    )[0]


def _random_finalists(landscape: Landscape, replay: int, most: int) -> Curve:
    return ours(landscape, replay, most, "random", rungs=False, startup=100_000)[0]


def _tpe(landscape: Landscape, replay: int, most: int) -> Curve:
    return plain_optuna(landscape, replay, most, optuna.samplers.TPESampler(seed=replay))


def _nsga2(landscape: Landscape, replay: int, most: int) -> Curve:
    # Its default population of 50 would leave so short a search in its first, random generation.
    return plain_optuna(
        landscape, replay, most, optuna.samplers.NSGAIISampler(seed=replay, population_size=10)
    )


STARTUP = 6
DEFAULT = next(iter(SAMPLERS))
RANDOM = "random search"
ARMS: Mapping[str, Callable[[Landscape, int, int], Curve]] = {
    "ours": _default,
    "ours, front as measured": _measured,
    "ours, with rungs": _with_rungs,
    # Not the Gaussian process: it takes seconds a proposal, so a replay of it takes ten minutes.
    **{
        f"{name} in our loop": _by(name)
        for name in SAMPLERS
        if name not in (DEFAULT, "random", "gp")
    },
    RANDOM: _random,
    f"{RANDOM}, recommends finalists": _random_finalists,
    "Optuna's TPE": _tpe,
    "Optuna's NSGA-II": _nsga2,
}


def landscape_of(key: str, replay: int) -> Landscape:
    """A landscape by its name: a table's path, or 'additive' or 'interacting' with a number."""
    if key.endswith(".csv"):
        return from_table(Path(key), replay)
    kind, number = key.split()
    return invented("small", int(number), {"additive": 0.0, "interacting": 0.3}[kind], replay)


def _curve(key: str, arm: str, replay: int, most: int) -> Curve:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return ARMS[arm](landscape_of(key, replay), replay, most)


def compare(pool: Executor, key: str, seeds: int, full_trainings: int) -> dict[str, Any]:
    """Compare all arms on `seeds` replays.

    The result has the epochs that each needs for what random search reaches with so many full
    trainings, and the volumes at equal cost.
    """
    most = full_trainings * landscape_of(key, 0).budgets[-1]
    running = {}
    for arm in ARMS:
        running[arm] = [pool.submit(_curve, key, arm, seed, most) for seed in range(seeds)]
    curves = {}
    for arm, futures in running.items():
        curves[arm] = [future.result() for future in futures]
    target = statistics.median(_at(curve, most) for curve in curves[RANDOM])
    found = {arm: _summary(taken, target, most) for arm, taken in curves.items()}
    ratios = {arm: round(row["cost_ratio_to_random"], 3) for arm, row in found.items()}
    _say(f"{key}: cost for the target, beside random search: {ratios}")
    return {"epochs_of_random": most, "target": target, "arms": found}


def _summary(curves: Sequence[Curve], target: float, most: int) -> dict[str, Any]:
    """What an arm's curves say: its cost until the target, and what it has at shares of `most`."""
    until = _until(curves, target, most)
    volumes, sizes = {}, {}
    for share in SHARES:
        spent = share * most
        volumes[str(share)] = _spread([_at(curve, spent) for curve in curves])
        sizes[str(share)] = statistics.mean(_size(curve, spent) for curve in curves)
    return {
        "epochs_to_target": until,
        "cost_ratio_to_random": until / most,
        "volume_at_share_of_cost": volumes,
        "recommended_at_share_of_cost": sizes,
    }


SHARES = (0.125, 0.25, 0.5, 1.0)


def _at(curve: Curve, epochs: float) -> float:
    return next((point.volume for point in reversed(curve) if point.spent <= epochs), 0.0)


def _size(curve: Curve, epochs: float) -> int:
    return next((point.size for point in reversed(curve) if point.spent <= epochs), 0)


def _until(curves: Sequence[Curve], target: float, most: int) -> float:
    """The least cost at which the median of the curves is at the target, or above it."""
    reached = (
        spent
        for spent in range(1, most + 1)
        if statistics.median(_at(curve, spent) for curve in curves) >= target
    )
    return next(reached, float("inf"))


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return {"median": float(middle), "p10": float(low), "p90": float(high), "n": len(values)}


def _stops(key: str, replay: int, most: int) -> tuple[int, int, int, int]:
    """What stopping costs and saves.

    Counted are stopped candidates, those of them truly on the front of all that was tried, epochs
    saved and epochs spent.
    """
    landscape = landscape_of(key, replay)
    _, records = ours(landscape, replay, most, DEFAULT, rungs=True, startup=STARTUP)
    tried = [r for r in records if r.complete or r.stopped]
    on_front = nondominated(np.array([landscape.value(r) for r in tried]))
    wrong = sum(bool(r.stopped) and bool(on) for r, on in zip(tried, on_front, strict=True))
    main = main_records(records)
    found = stopping(main, pareto_front(main, ("metric", *KEYS)))
    return (
        sum(bool(r.stopped) for r in tried),
        wrong,
        found.without - found.spent if found else 0,
        sum(r.trained_epochs for r in tried),
    )


def false_stops(pool: Executor, key: str, seeds: int, full_trainings: int) -> dict[str, float]:
    """How often stopping was wrong, over `seeds` replays, and what it saved."""
    most = full_trainings * landscape_of(key, 0).budgets[-1]
    futures = [pool.submit(_stops, key, seed, most) for seed in range(seeds)]
    counts = [future.result() for future in futures]
    stopped, wrong, saved, spent = (sum(column) for column in zip(*counts, strict=True))
    return {
        "stopped": stopped,
        "wrong": wrong,
        "rate": wrong / max(stopped, 1),
        "epochs_saved_share": saved / (saved + spent),
    }


def main() -> None:
    """Replay everything, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the processes to come: their matrices are small
    key = str(asked.table)
    half = min(200, landscape_of(key, 0).plan.choice_space.size // 2)
    found: dict[str, Any] = {
        "seeds": asked.seeds,
        "optuna": optuna.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    with ProcessPoolExecutor(cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
        parts: dict[str, Callable[[], Any]] = {
            "table": lambda: compare(pool, key, asked.seeds, half),
            "stopping": lambda: false_stops(pool, key, asked.seeds, half),
            "additive 1": lambda: compare(pool, "additive 1", asked.seeds // 3, 60),
            "interacting 1": lambda: compare(pool, "interacting 1", asked.seeds // 3, 60),
        }
        for name, part in parts.items():
            found[name] = part()
            if asked.out:  # after each part, as the whole takes half an hour
                write(asked.out, json.dumps(_headed(found), indent=2) + "\n")
    print(json.dumps(_headed(found), indent=2))


def _headed(found: Mapping[str, Any]) -> dict[str, Any]:
    """The results with the figures that matter on top, of the parts that are there."""
    top: dict[str, Any] = {}
    if "table" in found:
        ours_at, tpe_at = (
            found["table"]["arms"][arm]["volume_at_share_of_cost"]
            for arm in ("ours", "Optuna's TPE")
        )
        top["cost_ratio_to_random"] = found["table"]["arms"]["ours"]["cost_ratio_to_random"]
        top["hypervolume_vs_tpe"] = {
            share: ours_at[share]["median"] / tpe_at[share]["median"] for share in ours_at
        }
    if "stopping" in found:
        top["false_stop_rate"] = found["stopping"]["rate"]
    return {**top, **found}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
