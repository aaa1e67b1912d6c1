"""How much of a score is noise.

It compares the spread of one placement's error over seeds with the binomial error of the images
alone.

    python -m benchmarks.seed_noise --data cifar100.npz [--seeds 8] [--device auto]
        [--out FILE.json]

Trains the references of the placement study with several seeds, with the study's own recipe on a
fixed split, as finalists are: on all training images of the study, measured on the test set. States
for each reference the mean, the standard deviation over seeds and n, and for each difference to "no
attention" the standard deviation of paired (same seed) and of unpaired differences: what common
seeds gain.
"""

import argparse
import json
import platform
import statistics
from itertools import combinations
from pathlib import Path

import torch

from bam_search.files import write
from bam_search.model.build import sites_of
from bam_search.score.device import DEVICES, choose, threads_each
from bam_search.score.evaluate import Experiment, Job
from bam_search.search.executors import local
from bam_search.search.study import load_study
from bam_search.space.search_space import load_space
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.metric import binomial

Errors = dict[str, list[float]]


def measure(data: str, seeds: int, device_name: str) -> dict[str, object]:
    """Train every reference with every seed; the summary, for JSON."""
    device = choose(device_name)
    study = load_study("placement", device, {}, [])
    dataset = locate(data).load()
    parts = sources.task().split(dataset, study.data.sizes(len(dataset.train)), study.seed)
    sites = sites_of(load_space(study.space))
    recipe = study.recipe.for_size(CIFAR_INPUTS.shape[1:])
    task = Experiment(
        "classification",
        study.space,
        sites,
        parts,
        recipe,
        device,
        threads_each(study.workers),
    )
    errors: Errors = {name: [] for name in study.references}
    with local(task, study.workers, "") as submit:
        # Seeds outside, references inside: a drift of the machine meets all references alike.
        epochs, texts = study.recipe.epochs, study.references
        jobs = [
            (name, submit(Job(text, seed, epochs, final=True)))
            for seed in range(seeds)
            for name, text in texts.items()
        ]
        for name, future in jobs:
            result = future.result()
            assert result.score is not None, result.failure
            errors[name].append(result.score.value)
            print(
                f"{name:28} {result.score.value:6.2f} %  {result.score.seconds:6.1f} s", flush=True
            )
    return {
        "variant": device.variant,
        "device": device.name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data": dataset.name,
        "images": len(parts.train),
        "test_images": len(parts.test),
        "recipe": vars(recipe),
        "references": {name: _summary(values, len(parts.test)) for name, values in errors.items()},
        "differences": {
            f"{b} - {a}": _difference(errors[a], errors[b]) for a, b in combinations(errors, 2)
        },
    }


def _summary(values: list[float], images: int) -> dict[str, object]:
    mean = statistics.mean(values)
    return {
        "mean": mean,
        "sd": statistics.stdev(values),
        "n": len(values),
        "binomial_se": binomial(mean, images),
        "errors": values,
    }


def _difference(a: list[float], b: list[float]) -> dict[str, float]:
    paired = [y - x for x, y in zip(a, b, strict=True)]
    unpaired = (statistics.variance(a) + statistics.variance(b)) ** 0.5
    return {
        "mean": statistics.mean(paired),
        "sd_paired": statistics.stdev(paired),
        "sd_unpaired": unpaired,
        "n": len(paired),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    summary = json.dumps(measure(args.data, args.seeds, args.device), indent=2)
    if args.out:
        write(args.out, summary + "\n")
    print(summary)
