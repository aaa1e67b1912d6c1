"""A table of trained placements of one small space.

`benchmarks/search.py` replays samplers and rungs on it.

    python -m benchmarks.placement_table --data cifar100.npz [--space small_grid] [--seeds 3]
        [--first-seed 0] [--epochs 2 6] [--images 9000] [--set recipe.lr=0.2 ...]
        [--placements none layer3=bam ...] [--out FILE.csv]

One row a training: placement, seed, epochs, the error in percent and the mean loss on held-out
training images, the mean training loss of each epoch, seconds. Each number of epochs is a training
of its own with a complete learning-rate decay. Rows are appended as they come, and the same command
continues; what was trained and how stands in FILE.json beside it. The images that train and the
images that score are the same for all rows. Without `--placements` every placement of the space is
trained.
"""

import argparse
import csv
import itertools
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from bam_search.errors import UserError
from bam_search.files import write
from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.model.load import load
from bam_search.score.device import DEVICES, Device, choose, threads_each
from bam_search.score.evaluate import Experiment, Job, Score
from bam_search.search.executors import local
from bam_search.search.study import load_study
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace, SearchSpace
from bam_search.space.sites import Sites
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Split
from benchmarks.results import rows_of

COLUMNS = ("placement", "seed", "epochs", "error", "loss", "train_losses", "seconds")


def placements(choice_space: ChoiceSpace, sites: Sites) -> list[Placement]:
    """Every placement in the choice space, in its canonical form."""
    choices = [[None, *choice_space.choices(site)] for site in choice_space.sites]
    found = []
    for row in itertools.product(*choices):
        by_site = zip(choice_space.sites, row, strict=True)
        chosen = {site: choice for site, choice in by_site if choice}
        found.append(resolve(Placement.of(chosen), sites))
    return found


def main() -> None:
    """Train what is not in the table yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--space", default="small_grid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 6])
    parser.add_argument("--images", type=int, default=9000, help="that train")
    parser.add_argument("--held-out", type=int, default=5000, help="that score")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of the study, as for `run`"
    )
    parser.add_argument("--placements", nargs="+", help="[default: all of the space]")
    parser.add_argument("--workers", type=int, help="[default: as the placement study has it]")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/placement_table_2.csv")
    )
    _train(parser.parse_args())


def _train(asked: argparse.Namespace) -> None:
    device = choose(asked.device)
    study = load_study("placement", device, {}, asked.set)
    workers = asked.workers or study.workers
    recipe = study.recipe.for_size(CIFAR_INPUTS.shape[1:])
    recipe = replace(recipe, epochs=max(asked.epochs))
    space = load(asked.space, CIFAR_INPUTS)
    sites = sites_of(space)
    dataset = locate(asked.data).load()
    parts = held_apart(dataset, asked.images, asked.held_out)
    agree(asked.out.with_suffix(".json"), _about(asked.space, dataset, parts, recipe, device))
    done = _done(asked.out)
    texts = _placements(asked.placements, space, sites)
    jobs = [job for job in _jobs(asked, texts) if (job.placement, job.seed, job.epochs) not in done]
    print(
        f"{len(texts)} placements, {len(done)} trainings in {asked.out}, {len(jobs)} to come",
        file=sys.stderr,
    )
    task = Experiment(
        "classification", asked.space, sites, parts, recipe, device, threads_each(workers)
    )
    _append(asked.out, jobs, task, workers)


def held_apart(dataset: Dataset, images: int, held_out: int) -> Split:
    """`held_out` training images that score, the same for any number of `images` that train."""
    sizes = SplitSizes.of(len(dataset.train), images + held_out, CIFAR_INPUTS.classes)
    both = sources.task().split(dataset, sizes, seed=0).train
    scores, trains = both.first(held_out), both.take(np.arange(held_out, len(both)))
    return Split(trains, scores, trains, dataset.test)


def _about(
    space: str, dataset: Dataset, parts: Split, recipe: Recipe, device: Device
) -> dict[str, object]:
    """What all trainings of the table have in common."""
    fields = asdict(recipe)
    del fields["epochs"]
    return {
        "space": space,
        "data": dataset.name,
        "digest": dataset.digest,
        "images": len(parts.fit),
        "held_out": len(parts.validation),
        "recipe": fields,
        "device": device.name,
        "bf16": device.bf16,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _placements(wanted: Sequence[str] | None, space: SearchSpace, sites: Sites) -> list[str]:
    """The placements that are wanted, or all of the space, in canonical form."""
    if wanted:
        return [resolve(text, sites).text for text in wanted]
    return [placement.text for placement in placements(choice_space_of(space, sites), sites)]


def _jobs(asked: argparse.Namespace, texts: Sequence[str]) -> Iterator[Job]:
    # Seeds outside: whenever it is stopped, every placement has about as many.
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    for seed, text, epochs in itertools.product(seeds, texts, asked.epochs):
        yield Job(text, seed, epochs)


def _append(path: Path, jobs: Sequence[Job], task: Experiment, workers: int) -> None:
    """Train the jobs, and write a row of the table as each ends."""
    with local(task, workers, "") as submit, path.open("a", newline="") as file:
        futures = {submit(job): job for job in jobs}
        for future in as_completed(futures):
            job, result = futures[future], future.result()
            assert result.score is not None, result.failure
            csv.writer(file).writerow(_row(job, result.score))
            file.flush()


def _row(job: Job, score: Score) -> tuple[object, ...]:
    losses = " ".join(f"{epoch.loss:.4f}" for epoch in score.per_epoch)
    return (
        job.placement,
        job.seed,
        job.epochs,
        round(score.value, 4),
        round(score.loss, 5),
        losses,
        round(score.seconds, 2),
    )


def agree(path: Path, about: dict[str, object]) -> None:
    """Write what the table is about; raises UserError if there is one about something else."""
    if path.exists() and json.loads(path.read_text()) != json.loads(json.dumps(about)):
        raise UserError(f"{path} is about another table", "choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(about, indent=2) + "\n")


def _done(path: Path) -> set[tuple[str, int, int]]:
    """The trainings in the table; a new one gets its header."""
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    return {(row["placement"], int(row["seed"]), int(row["epochs"])) for row in rows_of(path)}


if __name__ == "__main__":
    main()
