"""Our engine beside the loop of torchvision's tutorials, on a folder of images.

    python -m benchmarks.own_images FOLDER [--seeds 0 1 2] [--out benchmarks/results/own_images.csv]

FOLDER has train/CLASS/* and val/CLASS/*. `loop` is what people write today: ImageFolder, transforms
v2 on each picture, a DataLoader, SGD; `engine` is a training of bam_search. Both train the same
network from the same weights by the same recipe, in float32 on one thread, on random resized crops
of 128 pixels, and measure on the middle of each picture, resized to 8/7 of that. One row a
training: who, the seed, the top-1 error in percent on val/, and seconds of CPU time and by the
clock. Rows are appended as they come, and those that are there are not made again; the means and
their difference are told at the end. A training of 2,500 pictures takes four minutes of one core.
"""

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from bam_search.model.build import build, sites_of
from bam_search.model.load import Inputs, load
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.measure import measured
from bam_search.score.train import train
from bam_search.tasks.load_task import CLASSIFICATION, task_on
from bam_search.tasks.pictures.plan import SCALE
from bam_search.tasks.reading import Reading
from bam_search.tasks.recipe import Recipe
from benchmarks.placement_table import agree
from benchmarks.results import append_row, rows_done, rows_of

SPACE = "imagenet_small"
SIDE, STORED = 128, 146
RECIPE = Recipe(epochs=16, batch=64, lr=0.1, precision="fp32", augment="resized-crop-flip")
CONDITIONS = ("who", "seed")
COLUMNS = (*CONDITIONS, "error", "cpu_seconds", "seconds")
_TENSOR = [
    v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
]
TRAINING = v2.Compose(
    [v2.RandomResizedCrop(SIDE, scale=SCALE), v2.RandomHorizontalFlip(), *_TENSOR]
)
MEASURING = v2.Compose([v2.Resize(STORED), v2.CenterCrop(SIDE), *_TENSOR])

Loader = DataLoader[tuple[torch.Tensor, torch.Tensor]]


def main() -> None:
    """Train what is not in the table yet, and tell what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/own_images.csv"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    agree(asked.out.with_suffix(".json"), _about(asked.folder))
    done = rows_done(asked.out, COLUMNS, CONDITIONS)
    for seed, who in itertools.product(asked.seeds, WHO):
        if (who, str(seed)) not in done:
            append_row(asked.out, (who, seed, *_timed(WHO[who], asked.folder, seed)))
    print(_said(asked.out))


def _about(folder: Path) -> dict[str, object]:
    """What all trainings of the table have in common."""
    return {
        "data": folder.name,
        "space": SPACE,
        "side": SIDE,
        "recipe": asdict(RECIPE),
        "device": choose("cpu").name,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _timed(train_with: Callable[[Path, int], float], folder: Path, seed: int) -> tuple[float, ...]:
    """The error, and both times of a training with its measurement."""
    cpu, clock = time.process_time(), time.perf_counter()
    error = train_with(folder, seed)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    return round(error, 2), round(cpu, 1), round(clock, 1)


def engine(folder: Path, seed: int) -> float:
    """The error after a training of bam_search."""
    task, source = task_on(CLASSIFICATION, str(folder), Reading(SIDE))
    data, device = source.load(), choose("cpu")
    context = TrainingContext.of(task, device, RECIPE, data.train)
    model = network(len(data.classes), seed).to(memory_format=torch.channels_last)
    train(model, context, RECIPE, seed)
    return measured(model, data.test, context).value


def loop(folder: Path, seed: int) -> float:
    """The error after a training of the loop that people write."""
    torch.manual_seed(seed)
    training: Loader = DataLoader(
        ImageFolder(folder / "train", TRAINING), RECIPE.batch, shuffle=True, drop_last=True
    )
    held_out: Loader = DataLoader(ImageFolder(folder / "val", MEASURING), RECIPE.batch)
    model = network(len(ImageFolder(folder / "train").classes), seed)
    optimizer = torch.optim.SGD(
        model.parameters(),
        RECIPE.lr,
        momentum=RECIPE.momentum,
        nesterov=True,
        weight_decay=RECIPE.weight_decay,
    )
    steps = RECIPE.epochs * len(training)
    schedule = (RECIPE.lr_at(step, steps) for step in range(steps))
    for _ in range(RECIPE.epochs):
        model.train()
        for pixels, labels in training:
            optimizer.param_groups[0]["lr"] = next(schedule)
            loss = functional.cross_entropy(
                model(pixels), labels, label_smoothing=RECIPE.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _error(model, held_out)


def _error(model: nn.Module, held_out: Loader) -> float:
    model.eval()
    wrong = seen = 0
    with torch.no_grad():
        for pixels, labels in held_out:
            wrong += int((model(pixels).argmax(1) != labels).sum())
            seen += len(labels)
    return 100 * wrong / seen


def network(classes: int, seed: int) -> nn.Module:
    """The network that both train, with the weights of the seed."""
    space = load(SPACE, Inputs((3, SIDE, SIDE), classes))
    return build(space, sites_of(space), "none", seed)


WHO: Mapping[str, Callable[[Path, int], float]] = {"engine": engine, "loop": loop}


def _said(out: Path) -> str:
    """The mean error of each, and their difference with its standard error."""
    rows = rows_of(out)
    errors = {who: [float(row["error"]) for row in rows if row["who"] == who] for who in WHO}
    means = {who: statistics.mean(values) for who, values in errors.items()}
    told = ", ".join(f"{who} {mean:.2f} %" for who, mean in means.items())
    difference = f"difference {means['engine'] - means['loop']:+.2f} points"
    if min(map(len, errors.values())) < 2:
        return f"{told}; {difference}"
    variances = (statistics.variance(values) / len(values) for values in errors.values())
    return f"{told}; {difference}, standard error {sum(variances) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
