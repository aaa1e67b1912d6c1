"""What it costs to pack a folder of images, and to open it again.

    python -m benchmarks.packing --data FOLDER --out FILE.json [--sizes 64 128] [--rounds 3]

For each working size: CPU seconds of this process, all threads together, and seconds by the clock
of reading and packing the folder into an empty cache; of opening it again; and of the loop that one
would write with torchvision, ImageFolder with Resize and CenterCrop to the same stored size. The
JSON has each round, medians, the least, and by how many levels the pixels differ from the loop's on
average. On a machine that others use too, CPU seconds are more than they need to be: `load` is the
number of processes that ran beside it in the last minutes.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from torchvision.transforms import CenterCrop, Compose, Resize

from bam_search.score.device import choose
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.pictures import cache
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Dataset
from benchmarks.ladder import environment
from benchmarks.results import keep

Times = dict[str, float]


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="with train/CLASS and val/CLASS")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    found = {
        "device": choose("cpu").name,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
        "sizes": {size: measured(asked.data, size, asked.rounds) for size in asked.sizes},
    }
    keep(found, asked.out)
    for size, of_size in found["sizes"].items():
        print(size, json.dumps(of_size["median"]))


def measured(folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """The times of `rounds` rounds at a working size, and what they have in common."""
    table = [_round(folder, size) for _ in range(rounds)]
    times = [times for times, _, _ in table]
    _, data, difference = table[-1]
    return {
        "images": len(data.train) + len(data.test),
        "stored": list(data.train.x.shape[1:3]),
        "mean_difference_in_levels": round(difference, 3),
        "median": {key: statistics.median(one[key] for one in times) for key in times[0]},
        "least": {key: min(one[key] for one in times) for key in times[0]},
        "rounds": times,
    }


def _round(folder: Path, size: int) -> tuple[Times, Dataset, float]:
    """The times of one round, the data set, and the mean difference from the usual loop's."""

    def packed() -> Dataset:
        return locate(str(folder), Reading(size)).load()

    times: Times = {}
    with _empty_cache():
        data = _timed(times, "pack", packed)
        _timed(times, "open", packed)
        stored = data.train.x.shape[1]
        usual = _timed(times, "usual loop", lambda: _usual_loop(folder, stored))
        ours = np.concatenate([data.train.x, data.test.x])
    return times, data, float(np.abs(ours.astype(np.int16) - usual).mean())


@contextmanager
def _empty_cache() -> Iterator[None]:
    """A cache that is empty at first, and gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, environment({cache.VARIABLE: folder}):
        yield


def _timed(times: Times, name: str, function: Callable[[], Any]) -> Any:
    """What the function gives; its CPU seconds and its seconds by the clock go to `times`."""
    cpu, clock = time.process_time(), time.perf_counter()
    result = function()
    times[f"{name}, CPU s"] = round(time.process_time() - cpu, 3)
    times[f"{name}, s"] = round(time.perf_counter() - clock, 3)
    return result


def _usual_loop(folder: Path, stored: int) -> np.ndarray:
    """(N, stored, stored, 3) uint8: the images as the usual loop decodes and resizes them."""
    transform = Compose([Resize(stored), CenterCrop(stored), np.asarray])
    test = "test" if (folder / "test").is_dir() else "val"
    parts = [torchvision.datasets.ImageFolder(folder / part, transform) for part in ("train", test)]
    return np.stack([image for part in parts for image, _ in part])


if __name__ == "__main__":
    main()
