"""A task of a user's own: 16x16 signals of one channel, in four classes.

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
from bam_search.tasks.metric import Metric, binomial
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Dataset, Gallery, Measured, Model, Source, Split

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

    def joined(self, other: "Signals") -> "Signals":
        return Signals(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.x, self.y


def waves(n: int, seed: int) -> Signals:
    """Waves in noise; the class is how many fit across."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    across = np.sin((1 + y[:, None]) * np.linspace(0, 2 * np.pi, 16) + phase)
    x = across[:, None, None, :] + 0.5 * rng.standard_normal((n, 1, 16, 16))
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

    def tally(self) -> "Tally":
        return Tally(self.samples, torch.zeros(2, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Tally:
    samples: OnDevice
    sums: Tensor

    def reset(self) -> None:
        self.sums.zero_()

    def add(self, model: Model, step: Tensor) -> None:
        del step  # there is one batch
        outputs = model(self.samples.x).float()
        wrong = (outputs.argmax(1) != self.samples.y).double().sum()
        loss = nn.functional.cross_entropy(outputs, self.samples.y, reduction="sum")
        self.sums.add_(torch.stack([wrong, loss.double()]))

    def measured(self) -> Measured:
        wrong, loss = (self.sums / len(self.samples)).tolist()
        return Measured(100 * wrong, loss)


WRONG = Metric("wrong counts", "%", larger_is_better=False, standard_error=binomial)
INPUTS = Inputs((1, 16, 16), CLASSES)


@dataclass(frozen=True)
class CountWaves:
    name: str = "counting waves"
    sample: str = "signal"
    metric: Metric = WRONG
    inputs: Inputs = INPUTS
    recipe_keys: tuple[str, ...] = ()

    def locate(self, wanted: str) -> Source:
        del wanted
        return Source("waves in noise", 200, 100, self._data)

    def _data(self) -> Dataset:
        return Dataset("waves", "made here", waves(200, 0), waves(100, 1))

    def split(self, data: Dataset, samples: int | None, validation: float, seed: int) -> Split:
        n = samples or len(data.train)
        order = np.random.default_rng(seed).permutation(n)
        held_out, fit = np.split(order, [round(n * validation)])
        x, y = data.train.x, data.train.y
        return Split(Signals(x[fit], y[fit]), Signals(x[held_out], y[held_out]), data.test)

    def noise(self, n: int) -> Signals:
        return waves(n, 2)

    def on_device(self, samples: Signals, recipe: Recipe, device: str) -> OnDevice:
        del recipe
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
