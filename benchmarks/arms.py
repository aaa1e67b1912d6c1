"""The two arms of `benchmarks/engine.py`: the same trainings by the engine and the usual loop.

Each arm runs in a fresh process.

    python -m benchmarks.arms ours|usual SETTING.json-text

prints the validation errors and the memory of the largest process.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.device import choose, threads_each
from bam_search.score.evaluate import Experiment, Job
from bam_search.search.executors import local
from bam_search.search.study import Study, load_study
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.task import Split
from benchmarks import usual_loop

SEEDS = 4
"""Of each reference in a process: as many trainings as the study has candidates, so that starting a
process weighs what it weighs there.
"""


@dataclass(frozen=True)
class Setting:
    """What both arms share; `seed` is the round."""

    data: str
    device: str
    net: str
    images: int | None  # None: all
    seed: int
    workers: int = 0  # of the usual loop's DataLoader
    processes: int | None = None  # of the engine; None: as many as the study has
    batch: int = usual_loop.BATCH  # of the engine

    def study(self, own_batch: bool = False) -> Study:
        """The placement study on this net, with the usual loop's batches and optimizer.

        With the same ones both arms take the same steps.

        With `own_batch` it keeps its own ones, for which its learning rate is.
        """
        flags: dict[str, object] = {
            "space": self.net,
            "data": {"images": self.images or "all"},
            "seed": self.seed,
        }
        if not own_batch:
            flags["recipe"] = {"batch": self.batch, "optimizer": "sgd"}
        if self.processes is not None:
            flags["workers"] = self.processes
        study = load_study("placement", choose(self.device), flags, [])
        return replace(study, recipe=study.recipe.for_size(CIFAR_INPUTS.shape[1:]))

    def split(self) -> Split:
        """The images, split by the first seed, whatever this one is."""
        data = locate(self.data).load()
        return sources.task().split(data, self.study().data.sizes(len(data.train)), seed=0)

    def some(self, images: int) -> Images:
        """The first images that train."""
        return self.split().fit.take(slice(0, images))


def ours(setting: Setting) -> list[float]:
    """The validation errors of the references, trained by the engine as a study trains them."""
    study = setting.study()
    sites = sites_of(load(study.space, CIFAR_INPUTS))
    task = Experiment(
        "classification",
        study.space,
        sites,
        setting.split(),
        study.recipe,
        choose(setting.device),
        threads_each(study.workers),
    )
    with local(task, study.workers, "") as submit:
        futures = [
            submit(Job(text, seed, study.recipe.epochs))
            for seed, text in _trainings(study, setting)
        ]
        results = [future.result() for future in futures]
    if failures := [result.failure for result in results if not result.score]:
        raise RuntimeError(failures[0])
    return [result.score.value for result in results if result.score]


def usual(setting: Setting) -> list[float]:
    """The same by the usual loop, one after the other, with all cores."""
    study, parts = setting.study(), setting.split()
    space = load(study.space, CIFAR_INPUTS)
    sites = sites_of(space)
    models = (build(space, sites, text, seed) for seed, text in _trainings(study, setting))
    device = choose(setting.device).type
    return [
        usual_loop.train(net, parts.fit, parts.validation, study.recipe, device, setting.workers)
        for net in models
    ]


def _trainings(study: Study, setting: Setting) -> list[tuple[int, str]]:
    """Seeds and placements."""
    return [
        (SEEDS * setting.seed + seed, text)
        for seed in range(SEEDS)
        for text in study.references.values()
    ]


ARMS: dict[str, Callable[[Setting], list[float]]] = {"ours": ours, "usual": usual}


def main(name: str, setting: Setting) -> None:
    """Run one arm, and tell what came of it."""
    errors = ARMS[name](setting)
    most = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"errors": errors, "largest_process_mib": most / 1024}))
    sys.stdout.flush()
    os._exit(0)  # worker processes of either arm do not hold the clock


if __name__ == "__main__":
    main(sys.argv[1], Setting(**json.loads(sys.argv[2])))
