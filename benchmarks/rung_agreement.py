"""How well the cheap scores of `benchmarks.rungs` rank placements, and what each costs.

    python -m benchmarks.rung_agreement RUNGS.csv LONG.csv [--space small] [--seeds 0 1]
        [--out FILE.json]

LONG.csv has one row a long training, as for `benchmarks.agreement`. For each score, and for the
number of parameters, which costs nothing: Kendall's tau-b and Pearson's r of its mean over seeds
with the long trainings' mean error; the mean tau of one seed alone, and how its seeds agree among
each other (the mean r of two); tau beside parameters, which is Kendall's partial tau given the
number of parameters: a score that only counts parameters adds nothing to a front that has them as
an axis; how much tau is above that of each placement's own training from scratch; and the mean long
error of the best BEST placements by the score, less that of all.

Each figure comes with a range, 90 % of bootstrap samples: seeds are drawn anew, those of the
scores for all placements together, as they are paired, and for differences of tau placements too.
CPU seconds are those of a candidate: its own, and the share of what CANDIDATES candidates share.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bam_search.model.build import sites_of
from bam_search.model.load import load
from bam_search.score.cost_table import cost_table
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace
from bam_search.space.sites import Sites
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from benchmarks.agreement import long_draws, short_draws, short_values
from benchmarks.results import deliver, rows_of
from benchmarks.rungs import ALL, SHARED

CANDIDATES = 24
"""Of the placement study on a CPU."""
BEST = 3
BASELINE = ("scratch", "error")
Range = dict[str, float]


def tau(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row of x and y, (samples, placements)."""
    signs = [np.sign(one[:, :, None] - one[:, None, :]) for one in (x, y)]
    together, *alone = ((a * b).sum((1, 2)) for a, b in (signs, signs[:1] * 2, signs[1:] * 2))
    with np.errstate(invalid="ignore"):
        return together / np.sqrt(alone[0] * alone[1])


def partial_tau(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Kendall's partial tau of x and y: what x tells of y beside `given`."""
    xy, xz, yz = tau(x, y), tau(x, given), tau(y, given)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r of each row."""
    x, y = (one - one.mean(1, keepdims=True) for one in (x, y))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))


def above(one: np.ndarray, other: np.ndarray, long: np.ndarray) -> Range:
    """How much tau with `long` is above that of another score, with placements drawn anew too."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, long.shape[1], long.shape)
    drawn[0] = np.arange(long.shape[1])
    one, other, long = (np.take_along_axis(table, drawn, 1) for table in (one, other, long))
    return ranged(tau(one, long) - tau(other, long))


def best_of(short: np.ndarray, long: np.ndarray) -> np.ndarray:
    """The mean long error of the best placements by the score, less that of all."""
    chosen = np.argsort(short, 1)[:, :BEST]
    return np.take_along_axis(long, chosen, 1).mean(1) - long.mean(1)


def ranged(values: np.ndarray) -> Range:
    """The first value, and the range of 90 % of the others."""
    low, high = np.nanquantile(values[1:], [0.05, 0.95])
    figures = {"value": values[0], "low": low, "high": high}
    return {name: round(float(figure), 3) for name, figure in figures.items()}


def judged(
    short: np.ndarray, baseline: np.ndarray, long: np.ndarray, parameters: np.ndarray
) -> dict[str, Range]:
    """All figures of a score; of arrays (1 + samples, placements)."""
    return {
        "tau": ranged(tau(short, long)),
        "r": ranged(pearson(short, long)),
        "tau_beside_parameters": ranged(partial_tau(short, long, parameters)),
        "tau_above_scratch": above(short, baseline, long),
        "best_three": ranged(best_of(short, long)),
    }


def by_seed(
    values: Mapping[str, Mapping[str, float]], placements: Sequence[str], long: np.ndarray
) -> dict[str, float]:
    """What one seed of a score tells, and how much of that another one tells too."""
    seeds = sorted(values[placements[0]])
    table = np.array([[values[text][seed] for text in placements] for seed in seeds])
    alone = float(tau(table, np.broadcast_to(long[0], table.shape)).mean())
    found = {"tau_of_one_seed": round(alone, 3)}
    pairs = list(itertools.combinations(table, 2))
    if pairs:
        r = pearson(*(np.array(side) for side in zip(*pairs, strict=True)))
        found["r_of_two_seeds"] = round(float(r.mean()), 3)
    return found


def cpu_seconds(rows: pd.DataFrame, rung: str) -> float:
    """Those of a candidate with one seed."""
    one = rows.drop_duplicates(["rung", "placement", "seed"])
    own = one[(one.rung == rung) & (one.placement != ALL)].cpu_seconds.mean()
    shared = [one[one.rung == name].cpu_seconds.mean() for name in SHARED.get(rung, ())]
    return round(float(own + sum(shared) / CANDIDATES), 2)


def compare(
    rows: pd.DataFrame, long: Mapping[str, np.ndarray], space: SearchSpace, sites: Sites
) -> dict[str, Any]:
    """By rung and score, what `judged` tells."""
    placements = _common(rows, long)
    truth = np.array([long[text] for text in placements]).T
    parameters = np.broadcast_to(_parameters(placements, space, sites), truth.shape)
    rng = np.random.default_rng(0)
    scores = rows[rows.placement.isin(placements)].groupby(["rung", "predictor"])
    seen = {name: short_values(of.to_dict("records"), "value") for name, of in scores}
    drawn = {name: short_draws(values, placements, rng) for name, values in seen.items()}
    # More parameters are predicted to be better.
    drawn["parameters", "fewer"] = -parameters
    found: dict[str, Any] = {"placements": placements, "scores": {}}
    for (rung, predictor), short in drawn.items():
        seconds = cpu_seconds(rows, str(rung)) if rung != "parameters" else 0.0
        seeds = rows[(rows.rung == rung) & (rows.predictor == predictor)].seed.nunique()
        figures: dict[str, Any] = judged(short, drawn[BASELINE], truth, parameters)
        if rung == "parameters":
            del figures["tau_beside_parameters"]
        else:
            figures |= by_seed(seen[rung, predictor], placements, truth)
        found["scores"][f"{rung}: {predictor}"] = {
            "seeds": seeds,
            "cpu_seconds": round(seconds * seeds, 2),
            **figures,
        }
    return found


def _common(rows: pd.DataFrame, long: Mapping[str, np.ndarray]) -> list[str]:
    """The placements that every score and the long trainings have."""
    by_score = rows[rows.placement != ALL].groupby(["rung", "predictor", "seed"]).placement
    sets: Sequence[set[str]] = [set(texts) for _, texts in by_score]
    return sorted(set.intersection(set(long), *sets), key=lambda text: float(long[text][0]))


def _parameters(placements: Sequence[str], space: SearchSpace, sites: Sites) -> np.ndarray:
    costs = cost_table(space, sites)
    return np.array([costs.cost(Placement.parse(text)).params for text in placements], float)


def main() -> None:
    """Judge every score of the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rungs", type=Path)
    parser.add_argument("long", type=Path)
    parser.add_argument("--space", default="small")
    parser.add_argument("--seeds", type=int, nargs="+", help="[default: all]")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    space = load(asked.space, CIFAR_INPUTS)
    sites = sites_of(space)
    rows = pd.read_csv(asked.rungs, keep_default_na=False)
    rows = rows[rows.space == asked.space]
    if asked.seeds is not None:
        rows = rows[rows.seed.isin(asked.seeds)]
    long = long_draws(rows_of(asked.long), sites, np.random.default_rng(0))
    found = compare(rows, long, space, sites)
    deliver({"space": asked.space, "long": asked.long.name, **found}, asked.out)


if __name__ == "__main__":
    main()
