"""A task made of a few functions: for samples that are two arrays, inputs and targets.

All samples lie on the device, twice where they are augmented; data that do not fit need a task
written against `bam_search.tasks.task.Task`.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.bootstrap import resamples
from bam_search.tasks.metric import Metric
from bam_search.tasks.outputs import Model, Outputs
from bam_search.tasks.reading import Reading
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Gallery, Measured, Source, Split

MEASURED = 128
"""Samples that are measured at a time, at most."""

PerSample = Callable[[Tensor, Tensor], Tensor]
"""Of the outputs (B, ...) in float32 and the targets (B, ...): a number, or numbers, a sample."""
Augment = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Of a batch of inputs and targets: another such batch. All that is random is the generator's."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Samples: inputs `x`, (N, C, H, W) float32, and their targets `y`, (N, ...)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def first(self, n: int) -> "Arrays":
        """The first `n` samples; they share the memory."""
        return Arrays(self.x[:n], self.y[:n])

    def take(self, index: np.ndarray) -> "Arrays":
        """The samples at `index`."""
        return Arrays(self.x[index], self.y[index])

    def arrays(self) -> Iterable[np.ndarray]:
        """Inputs and targets."""
        return self.x, self.y


def first(means: np.ndarray) -> np.ndarray:
    """The first of some means: (..., scores) -> (...)."""
    return means[..., 0]


def picture(x: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) uint8: of inputs (n, C, H, W), the first channel or three, black to white."""
    shown = x[:, :3] if x.shape[1] >= 3 else x[:, :1].repeat(3, 1)
    low, high = shown.min(), shown.max()
    levels = 255 * (shown - low) / max(high - low, 1e-12)
    return levels.round().astype(np.uint8).transpose(0, 2, 3, 1)


@dataclass(frozen=True)
class TensorTask:
    """A task for samples that are `Arrays`; `docs/examples/unet_shapes.py` is one.

        >>> import numpy as np
        >>> from bam_search import Task, TensorTask
        >>> from bam_search.model.load import Inputs
        >>> from bam_search.tasks.metric import Metric
        >>> from bam_search.tasks.outputs import OneTensor
        >>> from bam_search.tasks.task import Dataset
        >>> from bam_search.tasks.tensors import Arrays
        >>> from torch.nn.functional import cross_entropy
        >>> def noise(n):
        ...     return Arrays(np.zeros((n, 1, 8, 8), np.float32), np.arange(n) % 4)
        >>> task = TensorTask(
        ...     name="counting",
        ...     metric=Metric("accuracy", larger_is_better=True, best=1.0),
        ...     inputs=Inputs((1, 8, 8), 4),
        ...     outputs=OneTensor((4,)),
        ...     data=lambda wanted: Dataset(wanted, "made here", noise(80), noise(20)),
        ...     noise=noise,
        ...     loss=lambda logits, y: cross_entropy(logits, y, reduction="none"),
        ...     score=lambda logits, y: logits.argmax(1) == y,
        ... )
        >>> isinstance(task, Task)
        True

    Args:
        name: as a sentence has it; `sample` is what one sample is called.
        metric: what is measured.
        inputs: what a backbone gets, and how many outputs it has.
        outputs: what it must return, such as `OneTensor((classes,))`.
        data: gives the data set for `--data`, whose samples are `Arrays`.
        noise: gives so many samples of any contents, to measure how fast a device trains.
        loss: the loss of each sample, (B,); a training minimises its mean.
        score: what the metric is made of, for each sample: (B,), or (B, scores). As `loss`, it runs
            in a CUDA graph, so it must not look at values in Python.
        scores: how many numbers that are.
        value: the metric of the means of the score over samples, (..., scores) -> (...). By default
            that is the first mean. The standard error is found by resampling the samples.
        augment: what is done to each batch of a training.
        picture: inputs as pictures, (n, C, H, W) -> (n, H, W, 3) uint8.
    """

    name: str
    metric: Metric
    inputs: Inputs
    outputs: Outputs
    data: Callable[[str], Dataset]
    noise: Callable[[int], Arrays]
    loss: PerSample
    score: PerSample
    scores: int = 1
    value: Callable[[np.ndarray], np.ndarray] = first
    augment: Augment | None = None
    picture: Callable[[np.ndarray], np.ndarray] = picture
    sample: str = "sample"
    recipe_keys: tuple[str, ...] = ()

    def locate(self, wanted: str, reading: Reading) -> Source:
        """The source of the data; they are read for it."""
        del reading
        data = self.data(wanted)
        return Source(
            f"{data.name} ({data.origin}): {len(data.train):,} {self.sample}s to train and "
            f"{len(data.test):,} to test",
            len(data.train),
            len(data.test),
            lambda: data,
            at_hand=True,
        )

    def split(self, data: Dataset, sizes: SplitSizes, seed: int) -> Split:
        """A random split."""
        order = np.random.default_rng(seed).permutation(sizes.total)
        return Split.of(data, order, sizes, "at random")

    def on_device(self, samples: Arrays, recipe: Recipe, device: str, room: int) -> "OnDevice":
        """The samples on `device`. Raises UserError if they need more than `room` bytes."""
        del recipe
        copies = 1 if self.augment is None else 2
        needed = copies * (samples.x.nbytes + samples.y.nbytes)
        if needed > room:
            raise UserError(
                f"{len(samples):,} {self.sample}s need {needed / 1e6:,.0f} MB of the memory of "
                f"{device}, and {room / 1e6:,.0f} MB are for them",
                "set data.images or data.device_bytes; or write a task whose samples pass through",
            )
        return OnDevice.of(self, samples, device)

    def gallery(self, samples: Arrays) -> Gallery:
        """The inputs as pictures, by their numbers."""
        return Gallery(self.picture(samples.x), [f"number {i}" for i in range(len(samples))])

    def from_pictures(self, pixels: np.ndarray) -> Arrays:
        """Raises UserError: only the task's author knows how a picture becomes an input."""
        raise UserError(
            f"{self.name} does not say how {len(pixels)} pictures become its inputs",
            "leave them out, and maps are those of test samples",
        )


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a batch, on the device."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class OnDevice:
    """Samples of a task on a device, to train on or to be measured."""

    task: TensorTask
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, task: TensorTask, samples: Arrays, device: str) -> "OnDevice":
        """The samples, copied to `device`."""
        x, y = (torch.tensor(array, device=device) for array in (samples.x, samples.y))
        return cls(task, x, y)

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, batch: int) -> "EpochBatches":
        """Batches of an epoch, which `load` fills."""
        steps = len(self) // batch
        order = torch.zeros(steps * batch, dtype=torch.int64, device=self.x.device)
        if self.task.augment is None:
            return EpochBatches(self, steps, order, self.x, self.y)
        made = (torch.zeros_like(whole[: len(order)]) for whole in (self.x, self.y))
        return EpochBatches(self, steps, order, *made)

    def loss(self, model: Model, part: Part) -> Tensor:
        """The mean loss."""
        outputs = self.task.outputs.returned(model, part.x, training=True)
        return self.task.loss(outputs.float(), part.y).mean()

    def held_out(self, samples: Arrays) -> "HeldOutSamples":
        """Other samples, in batches of one size."""
        batch = -(-len(samples) // -(-len(samples) // MEASURED))
        return HeldOutSamples(self.of(self.task, samples, self.x.device.type), batch)

    def inputs(self, samples: Arrays) -> Tensor:
        """What a model gets for these samples."""
        return torch.tensor(samples.x, device=self.x.device)


@dataclass(frozen=True, eq=False)
class EpochBatches:
    """The batches of an epoch: the samples `order` of `x` and `y`; augmented ones lie in order."""

    samples: OnDevice
    steps: int
    order: Tensor
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return self.steps

    def load(self, seed: int, epoch: int) -> None:
        """Draw the order of an epoch, and augment its batches."""
        number = zlib.crc32(f"{seed}:{epoch}".encode())
        drawn = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(number))
        self.order.copy_(drawn[: len(self.order)])
        augment = self.samples.task.augment
        if augment is None:
            return
        generator = torch.Generator(self.order.device).manual_seed(number)
        for rows, x, y in self._chunks(self.order, self.x, self.y):
            made_x, made_y = augment(self.samples.x[rows], self.samples.y[rows], generator)
            x.copy_(made_x)
            y.copy_(made_y)
        torch.arange(len(self.order), out=self.order)

    def _chunks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        yield from zip(*(tensor.chunk(self.steps) for tensor in tensors), strict=True)

    def ready(self, step: int) -> None:
        """All are there."""

    def parts(self, step: Tensor, n: int) -> Iterator[Part]:
        """Batch number `step` in `n` parts."""
        rows = self.order.view(self.steps, -1).index_select(0, step)[0]
        for some in rows.tensor_split(n):
            yield Part(self.x.index_select(0, some), self.y.index_select(0, some))


@dataclass(frozen=True, eq=False)
class HeldOutSamples:
    """Samples that are measured, `batch` at a time; the last ones may be measured twice."""

    samples: OnDevice
    batch: int

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch)

    def ready(self, step: int) -> None:
        """It is there."""

    def tally(self) -> "SampleTally":
        """Losses and scores of no sample yet."""
        device, n = self.samples.x.device, len(self.samples)
        rows = torch.arange(len(self) * self.batch, device=device).clamp_(max=n - 1)
        columns = 1 + self.samples.task.scores
        return SampleTally(
            self.samples, rows.view(len(self), -1), torch.zeros(n, columns, device=device)
        )


@dataclass(frozen=True, eq=False)
class SampleTally:
    """The loss and the scores of each sample, (N, 1 + scores); `rows` are those of each batch."""

    samples: OnDevice
    rows: Tensor
    table: Tensor

    def reset(self) -> None:
        """Begin again, in the same memory."""
        self.table.zero_()

    def add(self, model: Model, step: Tensor) -> None:
        """Measure batch number `step`."""
        task, rows = self.samples.task, self.rows.index_select(0, step)[0]
        targets = self.samples.y.index_select(0, rows)
        inputs = self.samples.x.index_select(0, rows)
        outputs = task.outputs.returned(model, inputs, training=False).float()
        columns = task.loss(outputs, targets), task.score(outputs, targets)
        measured = [column.float().reshape(len(rows), -1) for column in columns]
        self.table.index_copy_(0, rows, torch.cat(measured, 1))

    def measured(self) -> Measured:
        """The value of all samples, with a standard error by bootstrap."""
        table, value = self.table.double().cpu().numpy(), self.samples.task.value
        n, scores = len(table), table[:, 1:]
        spread = value(resamples(n) @ scores / n).std(ddof=1)
        return Measured(float(value(scores.mean(0))), float(table[:, 0].mean()), float(spread))
