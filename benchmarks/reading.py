"""What share of a training's CPU time goes to reading and augmenting its images.

    python -m benchmarks.reading [--sides 32 64 128 224] [--rounds 5] [--out FILE.json]

For each side, images of a mapped file: crops and flips of images of that size below 64 pixels, from
there boxes of images as they are stored, resized. `resident` are images that are all in memory,
`streamed` pass through a ring of two batches. A round is the CPU time of reading an epoch, alone,
and of a few steps of a training of the network, in batches of 64 on one thread; the share is what
reading a batch takes, divided by what a step takes, which reads one too. Each side is measured in a
process that starts as a worker does.
"""

import argparse
import itertools
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bam_search.model.build import build, sites_of
from bam_search.model.load import Inputs, load
from bam_search.processes import MEMORY
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.step import TrainingStep
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.sizing import stored
from bam_search.tasks.recipe import LARGE, Recipe
from benchmarks.ladder import alone, environment
from benchmarks.results import deliver, say, spread

BATCH, BATCHES, STEPS = 64, 16, 4
NETWORKS = ("small", "imagenet_small")
ROOM = {"resident": 2**32, "streamed": 1}
CLASSES = 10


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128, 224])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    about = {"device": choose("cpu").name, "torch": torch.__version__, "batch": BATCH}
    found: dict[str, object] = {**about, "python": platform.python_version()}
    for side in asked.sides:
        with environment(MEMORY):
            found[str(side)] = alone(of_side, side, asked.rounds)
        say(f"{side}: {found[str(side)]}")
    deliver(found, asked.out)


def of_side(side: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """The shares of each network, in percent, by where its images are."""
    torch.set_num_threads(1)
    networks = NETWORKS if side >= LARGE else NETWORKS[:1]
    with tempfile.TemporaryDirectory() as folder:
        images = _mapped(Path(folder) / "x.npy", side)
        return {
            network: {how: _share(network, images, side, how, rounds) for how in ROOM}
            for network in networks
        }


def _mapped(path: Path, side: int) -> Images:
    """Noise for an epoch, of the size in which pictures are stored."""
    pictures = np.array([[2 * side, 2 * side]])
    shape = (BATCHES * BATCH, *stored((side, side), pictures), 3)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    np.save(path, pixels)
    return Images(np.load(path, mmap_mode="r"), rng.integers(0, CLASSES, len(pixels)))


def _share(network: str, images: Images, side: int, how: str, rounds: int) -> dict[str, float]:
    inputs, device = Inputs((3, side, side), CLASSES), choose("cpu")
    task, space = sources.task().for_inputs(inputs), load(network, inputs)
    model = build(space, sites_of(space), "none", 0).to(memory_format=torch.channels_last)
    recipe = Recipe(epochs=10_000, batch=BATCH)
    context = TrainingContext.of(task, device, recipe, images, ROOM[how])
    step = TrainingStep.first(model.train(), context, recipe)
    number_of = itertools.count()

    def each(do: Callable[[], object], steps: int) -> float:
        """CPU seconds of each of the first steps of an epoch."""
        began = time.process_time()
        step.batches.load(0, next(number_of))
        for number in range(steps):
            step.batches.ready(number)
            do()
        return (time.process_time() - began) / steps

    def read() -> None:
        list(step.batches.parts(step.number % len(step.batches), 1))

    each(read, 1)
    each(step.step, 1)
    shares = [each(read, BATCHES) / each(step.step, STEPS) for _ in range(rounds)]
    return spread([100 * share for share in shares])


if __name__ == "__main__":
    main()
