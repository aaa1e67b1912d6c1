"""How low an error a training recipe reaches, and in how much CPU time.

    python -m benchmarks.recipes --data cifar100.npz --out FILE.csv [--space small]
        [--placements none layer3=bam ...] [--images 9000] [--epochs 2] [--seeds 0 1 2]
        [--set recipe.optimizer=muon recipe.lr=0.1 ...]

One row a training: what was trained and how, the error in percent and the mean loss on held-out
training images, and the seconds of CPU time and by the clock of the training with its one
measurement, on one thread. `set` is what differs from the placement study's CPU variant, whose
recipe FILE.json has, beside the machine and the data. Rows are appended as they come, and those
that are there are not trained again. The images that score are those of `placement_table.py`.
"""

import argparse
import itertools
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.load import load
from bam_search.score.device import Device, choose
from bam_search.score.evaluate import Experiment, Job, evaluate
from bam_search.search.study import load_study
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.task import Dataset
from benchmarks.placement_table import agree, held_apart
from benchmarks.results import append_row, rows_done

CONDITIONS = ("space", "placement", "images", "epochs", "set", "seed")
COLUMNS = (*CONDITIONS, "error", "loss", "cpu_seconds", "seconds")
SIZE = CIFAR_INPUTS.shape[1:]
HELD_OUT = 5000
"""Images that score."""


def main() -> None:
    """Train what is not in the table yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--space", default="small")
    parser.add_argument("--placements", nargs="+", default=["none"])
    parser.add_argument("--images", type=int, default=9000, help="that train")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    dataset, device = locate(asked.data).load(), choose("cpu")
    agree(asked.out.with_suffix(".json"), about(dataset, device))
    experiment = _experiment(asked, dataset, device)
    done = rows_done(asked.out, COLUMNS, CONDITIONS)
    for condition in _conditions(asked, experiment):
        if tuple(map(str, condition)) not in done:
            append_row(asked.out, (*condition, *_measured(experiment, condition)))


def about(dataset: Dataset, device: Device) -> dict[str, object]:
    """What all trainings of the table have in common."""
    usual = asdict(load_study("placement", device, {}, []).recipe.for_size(SIZE))
    del usual["epochs"]
    return {
        "recipe": usual,
        "data": dataset.name,
        "digest": dataset.digest,
        "held_out": HELD_OUT,
        "device": device.name,
        "bf16": device.bf16,
        "threads": 1,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _experiment(asked: argparse.Namespace, dataset: Dataset, device: Device) -> Experiment:
    study = load_study("placement", device, {}, asked.set)
    recipe = replace(study.recipe.for_size(SIZE), epochs=asked.epochs)
    split = held_apart(dataset, asked.images, HELD_OUT)
    sites = sites_of(load(asked.space, CIFAR_INPUTS))
    return Experiment("classification", asked.space, sites, split, recipe, device, threads=1)


def _conditions(
    asked: argparse.Namespace, experiment: Experiment
) -> Iterator[tuple[str, str, int, int, str, int]]:
    """What is trained; seeds outside, so that each placement has about as many at any time."""
    texts = [resolve(text, experiment.sites).text for text in asked.placements]
    changed = " ".join(sorted(asked.set))
    for seed, text in itertools.product(asked.seeds, texts):
        yield asked.space, text, asked.images, asked.epochs, changed, seed


def _measured(
    experiment: Experiment, condition: tuple[str, str, int, int, str, int]
) -> tuple[float, ...]:
    """The error, the loss, and both times of a training."""
    _, text, _, epochs, _, seed = condition
    cpu, clock = time.process_time(), time.perf_counter()
    result = evaluate(experiment, Job(text, seed, epochs))
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    assert result.score is not None, result.failure
    score = result.score
    return round(score.value, 4), round(score.loss, 5), round(cpu, 2), round(clock, 2)


if __name__ == "__main__":
    main()
