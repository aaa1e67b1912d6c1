"""Whether short trainings rank placements as long ones do.

    python -m benchmarks.agreement SHORT.csv LONG.csv [--space small] [--set recipe.optimizer=muon]

SHORT.csv is of `benchmarks.recipes` or of `benchmarks.placement_table`. LONG.csv has one row a
training (placement, error), as the latter has, or one a placement (placement, error, sd, n). For
the placements that both have: Kendall's tau and Pearson's r of the mean errors, and of the short
trainings' mean losses with the long ones' errors. The ranges are 90 % of bootstrap samples: seeds
are drawn anew, those of the short trainings for all placements together, as they are paired; where
only a mean and a standard deviation are known, values are drawn from the normal distribution that
these give.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.load import load
from bam_search.space.sites import Sites
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from benchmarks.results import Rows, rows_of

SAMPLES = 4000


def short_values(rows: Iterable[Mapping[Any, Any]], column: str) -> dict[str, dict[str, float]]:
    """The values of a column by placement and seed."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        found[str(row["placement"])][str(row["seed"])] = float(row[column])
    return found


def long_draws(rows: Rows, sites: Sites, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """By placement, (1 + SAMPLES,): the mean of the long trainings, then bootstrap samples."""
    by_placement = defaultdict(list)
    for row in rows:
        by_placement[resolve(row["placement"], sites).text].append(row)
    return {text: _draws(of, rng) for text, of in by_placement.items()}


def _draws(rows: Rows, rng: np.random.Generator) -> np.ndarray:
    values = np.array([float(row["error"]) for row in rows])
    if "sd" in rows[0]:
        se = float(rows[0]["sd"]) / float(rows[0]["n"]) ** 0.5
        drawn = rng.normal(values[0], se, SAMPLES)
    else:
        drawn = rng.choice(values, (SAMPLES, len(values))).mean(1)
    return np.concatenate([[values.mean()], drawn])


def short_draws(
    values: Mapping[str, Mapping[str, float]], placements: list[str], rng: np.random.Generator
) -> np.ndarray:
    """(1 + SAMPLES, placements): the means of the short trainings, then bootstrap samples."""
    seeds = sorted(set.intersection(*(set(values[text]) for text in placements)))
    table = np.array([[values[text][seed] for seed in seeds] for text in placements])
    drawn = table[:, rng.integers(0, len(seeds), (SAMPLES, len(seeds)))].mean(2).T
    return np.concatenate([table.mean(1)[None], drawn])


def agreement(short: np.ndarray, long: np.ndarray) -> str:
    """Both correlations with their ranges, in words; of each row of (1 + SAMPLES, placements)."""
    pairs = list(zip(short, long, strict=True))
    words = []
    for name, of in (("tau", stats.kendalltau), ("r", stats.pearsonr)):
        first, *drawn = (of(one, other).statistic for one, other in pairs)
        low, high = np.nanquantile(drawn, [0.05, 0.95])
        words.append(f"{name} {first:.2f} ({low:.2f} to {high:.2f})")
    return ", ".join(words)


def main() -> None:
    """Print how the short trainings of one recipe agree with the long ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("short", type=Path)
    parser.add_argument("long", type=Path)
    parser.add_argument("--space", default="small")
    parser.add_argument("--images", default="9000")
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--set", default="", help="as in the table's column")
    parser.add_argument("--without", nargs="*", default=[], help="placements to leave out")
    asked = parser.parse_args()
    # A table of placements has one space, one recipe and one number of images.
    wanted = {"space": asked.space, "images": asked.images, "epochs": asked.epochs}
    wanted["set"] = asked.set
    rows = [
        row
        for row in rows_of(asked.short)
        if all(row.get(column, value) == value for column, value in wanted.items())
    ]
    sites, rng = sites_of(load(asked.space, CIFAR_INPUTS)), np.random.default_rng(0)
    long = long_draws(rows_of(asked.long), sites, rng)
    left_out = {resolve(text, sites).text for text in asked.without}
    both = {row["placement"] for row in rows}.intersection(long).difference(left_out)
    placements = sorted(both, key=lambda text: float(long[text][0]))
    for column in ("error", "loss"):
        values = short_values(rows, column)
        short = short_draws(values, placements, rng)
        print(f"{column}: {agreement(short, np.array([long[text] for text in placements]).T)}")
        for text, mean in zip(placements, short[0], strict=True):
            print(f"  {text:60} {mean:8.3f}  long {long[text][0]:.2f}")


if __name__ == "__main__":
    main()
