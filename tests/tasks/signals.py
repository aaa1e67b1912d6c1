"""A task of a user's own: 16x16 signals of one channel, in four classes, scored by F1.

No file of bam_search knows of it. It implements `bam_search.tasks.task.Task` without a line of the
classification that ships, and gives a small backbone for its inputs.
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bam_search.model.load import Inputs
from bam_search.space.search_space import SearchSpace
from bam_search.tasks.metric import Metric
from bam_search.tasks.outputs import Model, OneTensor
from bam_search.tasks.reading import Reading
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Gallery, Measured, Source, Split

CLASSES = 4


@dataclass(frozen=True, eq=False)
class Signals:
    """`x`: (N, 1, 16, 16) float32; `y`: (N,) int64."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def first(self, n: int) -> "Signals":
        return Signals(self.x[:n], self.y[:n])

    def take(self, index: np.ndarray) -> "Signals":
        return Signals(self.x[index], self.y[index])

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.x, self.y


def waves(n: int, seed: int) -> Signals:
    """Waves in noise; the class is how many fit across."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    across = np.sin((1 + y[:, None]) * np.linspace(0, 2 * np.pi, 16) + phase)
    x = across[:, None, None, :] + 2.0 * rng.standard_normal((n, 1, 16, 16))
    return Signals(x.astype(np.float32), y)


@dataclass(frozen=True, eq=False)
class Part:
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Shuffled:
    x: Tensor
    y: Tensor
    order: Tensor

    def __len__(self) -> int:
        return len(self.order)

    def load(self, seed: int, epoch: int) -> None:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{epoch}".encode()))
        order = torch.randperm(len(self.y), generator=generator)
        self.order.copy_(order[: self.order.numel()].view_as(self.order))

    def ready(self, step: int) -> None:
        """All are there."""

    def parts(self, step: Tensor, n: int) -> Iterator[Part]:
        for index in self.order.index_select(0, step)[0].tensor_split(n):
            yield Part(self.x[index], self.y[index])


@dataclass(frozen=True, eq=False)
class OnDevice:
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, samples: Signals, device: str) -> "OnDevice":
        return cls(torch.from_numpy(samples.x).to(device), torch.from_numpy(samples.y).to(device))

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, batch: int) -> Shuffled:
        steps = len(self) // batch
        order = torch.zeros(steps, batch, dtype=torch.int64, device=self.y.device)
        return Shuffled(self.x, self.y, order)

    def loss(self, model: Model, part: Part) -> Tensor:
        return nn.functional.cross_entropy(model(part.x).float(), part.y)

    def held_out(self, samples: Signals) -> "HeldOut":
        return HeldOut(OnDevice.of(samples, self.y.device.type))

    def inputs(self, samples: Signals) -> Tensor:
        return OnDevice.of(samples, self.y.device.type).x


@dataclass(frozen=True, eq=False)
class HeldOut:
    """All samples as one batch."""

    samples: OnDevice

    def __len__(self) -> int:
        return 1

    def ready(self, step: int) -> None:
        """It is there."""

    def tally(self) -> "Tally":
        counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
        return Tally(self.samples, counts, torch.zeros((), dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Tally:
    """`counts[i, j]` is how many signals of class i were taken for class j."""

    samples: OnDevice
    counts: Tensor
    loss: Tensor

    def reset(self) -> None:
        self.counts.zero_()
        self.loss.zero_()

    def add(self, model: Model, step: Tensor) -> None:
        del step  # there is one batch
        outputs, y = model(self.samples.x).float(), self.samples.y
        pairs = torch.bincount(CLASSES * y + outputs.argmax(1), minlength=CLASSES**2)
        self.counts.add_(pairs.view(CLASSES, CLASSES))
        self.loss.add_(nn.functional.cross_entropy(outputs, y, reduction="sum"))

    def measured(self) -> Measured:
        """F1, the mean over classes; its standard error by bootstrap over the signals."""
        counts, n = self.counts.double().numpy(), len(self.samples)
        drawn = np.random.default_rng(0).multinomial(n, counts.ravel() / n, size=200)
        spread = f1(drawn.reshape(-1, CLASSES, CLASSES)).std()
        return Measured(float(f1(counts)), float(self.loss) / n, float(spread))


def f1(counts: np.ndarray) -> np.ndarray:
    """The mean over classes: (..., classes, classes) counts -> (...)."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(-1) + counts.sum(-2)
    return np.asarray((2 * right / np.maximum(both, 1)).mean(-1))


F1 = Metric("F1 of counts", larger_is_better=True, decimals=4)
INPUTS = Inputs((1, 16, 16), CLASSES)
LOGITS = OneTensor((CLASSES,))


@dataclass(frozen=True)
class CountWaves:
    name: str = "counting waves"
    sample: str = "signal"
    metric: Metric = F1
    inputs: Inputs = INPUTS
    outputs: OneTensor = LOGITS
    recipe_keys: tuple[str, ...] = ()

    def locate(self, wanted: str, reading: Reading) -> Source:
        del wanted, reading
        return Source("waves in noise", 200, 100, self._data)

    def _data(self) -> Dataset:
        return Dataset("waves", "made here", waves(200, 0), waves(100, 1))

    def split(self, data: Dataset, sizes: SplitSizes, seed: int) -> Split:
        order = np.random.default_rng(seed).permutation(sizes.total)
        return Split.of(data, order, sizes, "at random")

    def noise(self, n: int) -> Signals:
        return waves(n, 2)

    def on_device(self, samples: Signals, recipe: Recipe, device: str, room: int) -> OnDevice:
        del recipe, room
        return OnDevice.of(samples, device)

    def gallery(self, samples: Signals) -> Gallery:
        levels = (64 * samples.x[:, 0] + 128).clip(0, 255).astype(np.uint8)
        pixels = np.repeat(levels[..., None], 3, axis=-1)
        return Gallery(pixels, [f"{1 + count} waves" for count in samples.y])

    def from_pictures(self, pixels: np.ndarray) -> Signals:
        raise NotImplementedError


def task() -> CountWaves:
    return CountWaves()


def net(classes: int) -> nn.Module:
    """Two convolutions, at whose ends attention may go."""
    layers: dict[str, nn.Module] = {}
    for name, before in (("one", 1), ("two", 16)):
        layers[name] = nn.Sequential(
            nn.Conv2d(before, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()
        )
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(16, classes)}
    return nn.Sequential(OrderedDict({**layers, **head}))


def space() -> SearchSpace:
    return SearchSpace(
        name="signals",
        backbone=net,
        input_shape=(1, 16, 16),
        classes=CLASSES,
        sites=("one", "two"),
        modules={"se": {"r": (2, 4)}},
    )
