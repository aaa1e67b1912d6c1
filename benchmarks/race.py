"""The engine's time to the usual loop's error (`benchmarks/usual_loop.py`), on one CPU thread.

    python -m benchmarks.race --data cifar100.npz --out FILE.csv [--seeds 0 1 2] [--images 10000]

The usual loop trains the bare net for the epochs of the placement study's CPU variant, on so many
images, with the study's learning rate and its own batch. The engine trains with the study's recipe
on shares of these images: so each training decays its learning rate to zero, and costs less. Its
time to the usual loop's error is interpolated between these, linearly in the logarithm of the
seconds. Both are measured on the same 5,000 other images, the usual loop after each epoch, as such
loops do. One row a training, in turn; CPU seconds of training and measuring, without the start of
the process. Rows are appended, and those that are there are not trained again; FILE.json has the
figures: the engine's seconds beside the usual loop's, with the default recipe and with Muon
(`recipe.optimizer=muon`), and of several seeds the range of 90 % of bootstrap samples of them.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.device import choose
from bam_search.score.evaluate import Experiment, Job, evaluate
from bam_search.search.study import load_study
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Split
from benchmarks import usual_loop
from benchmarks.placement_table import held_apart
from benchmarks.recipes import HELD_OUT, SIZE
from benchmarks.results import append_row, deliver, rows_done, rows_of

CONDITIONS = ("arm", "images", "seed")
COLUMNS = (*CONDITIONS, "error", "cpu_seconds")
SPACE = "small"
SHARES = (0.15, 0.25, 0.4, 0.65, 1.0)
"""Of the images: the engine's trainings."""
USUAL = "usual loop"
SAMPLES = 2000
Seconds = tuple[float, float]
"""An error in percent, and the CPU seconds that it took."""


@dataclass(frozen=True, eq=False)
class Track:
    """The images and the recipe of all arms."""

    split: Split
    recipe: Recipe

    def first(self, images: int) -> Split:
        """The split with so many images to train on."""
        return replace(self.split, fit=self.split.fit.first(images))


def usual(track: Track, seed: int) -> float:
    """The usual loop's error; it has no workers, which take the trainer's time on one core."""
    space = load(SPACE, CIFAR_INPUTS)
    net = build(space, sites_of(space), "none", seed)
    split = track.split
    return usual_loop.train(net, split.fit, split.validation, track.recipe, "cpu", workers=0)


def engine(track: Track, seed: int, optimizer: str) -> float:
    """The engine's error with an optimizer."""
    recipe = replace(track.recipe, optimizer=optimizer)  # type: ignore[arg-type]
    sites = sites_of(load(SPACE, CIFAR_INPUTS))
    device = choose("cpu")
    experiment = Experiment("classification", SPACE, sites, track.split, recipe, device, threads=1)
    result = evaluate(experiment, Job("none", seed, recipe.epochs))
    assert result.score is not None, result.failure
    return result.score.value


ARMS: Mapping[str, Callable[[Track, int], float]] = {
    USUAL: usual,
    "engine": partial(engine, optimizer="sgd"),
    "engine, Muon": partial(engine, optimizer="muon"),
}


def main() -> None:
    """Train what is not in the table yet, and sum it up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    device = choose("cpu")
    recipe = load_study("placement", device, {}, []).recipe.for_size(SIZE)
    track = Track(held_apart(locate(asked.data).load(), asked.images, HELD_OUT), recipe)
    done = rows_done(asked.out, COLUMNS, CONDITIONS)
    for seed in asked.seeds:
        for arm in ARMS:
            for share in SHARES if arm != USUAL else (1.0,):
                _row(asked.out, track, (arm, round(share * asked.images), seed), done)
    found = figures(asked.out)
    about = {"device": device.name, "bf16": device.bf16, "torch": torch.__version__}
    deliver({**about, "space": SPACE, **found}, asked.out.with_suffix(".json"))


def _row(
    out: Path, track: Track, condition: tuple[str, int, int], done: set[tuple[str, ...]]
) -> None:
    arm, images, seed = condition
    if tuple(map(str, condition)) in done:
        return
    part = replace(track, split=track.first(images))
    began = time.process_time()
    error = ARMS[arm](part, seed)
    append_row(out, (*condition, round(error, 4), round(time.process_time() - began, 2)))


def figures(path: Path) -> dict[str, dict[str, float]]:
    """By arm of the engine, its seconds to the usual loop's error, beside the usual loop's."""
    rows = rows_of(path)
    seeds = sorted({row["seed"] for row in rows})
    rng = np.random.default_rng(0)
    drawn = [seeds, *rng.choice(seeds, (SAMPLES, len(seeds))).tolist()]
    found = {}
    for arm in ARMS:
        if arm != USUAL:
            first, *ratios = [_ratio(rows, arm, some) for some in drawn]
            found[arm] = {"ratio": first, "seeds": len(seeds)}
            if len(seeds) > 1:
                # "lower": an infinite one is not interpolated.
                low, high = np.quantile(ratios, [0.05, 0.95], method="lower")
                found[arm] |= {"low": float(low), "high": float(high)}
    error, seconds = _curve(rows, USUAL, seeds)[0]
    return {**found, USUAL: {"error": error, "cpu_seconds": seconds}}


def _ratio(rows: list[dict[str, str]], arm: str, seeds: list[str]) -> float:
    """Infinite where no training of the arm reaches the usual loop's error."""
    (target, of_usual), *_ = _curve(rows, USUAL, seeds)
    curve = _curve(rows, arm, seeds)
    errors = np.array([error for error, _ in curve])
    if errors.min() > target:
        return float("inf")
    # From the lowest error to the highest, as np.interp wants them; below the first is the first.
    by_error = np.argsort(errors)
    logs = np.log([curve[i][1] for i in by_error])
    return float(np.exp(np.interp(target, errors[by_error], logs)) / of_usual)


def _curve(rows: list[dict[str, str]], arm: str, seeds: list[str]) -> list[Seconds]:
    """The mean error and the mean seconds of an arm, by number of images, from the least."""
    found = []
    for images in sorted({int(row["images"]) for row in rows if row["arm"] == arm}):
        of = {r["seed"]: r for r in rows if (r["arm"], r["images"]) == (arm, str(images))}
        errors = [float(of[seed]["error"]) for seed in seeds]
        seconds = [float(of[seed]["cpu_seconds"]) for seed in seeds]
        found.append((float(np.mean(errors)), float(np.mean(seconds))))
    return found


if __name__ == "__main__":
    main()
