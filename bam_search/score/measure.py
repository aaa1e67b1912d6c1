"""Measure a model on held-out images: its top-1 error and its mean loss.

Takes an nn.Module: knows no placement.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import cuda_graph, replayed, stream
from bam_search.score.data import Images

BATCH = {"cpu": 125, "cuda": 1000}
"""Images that are measured at a time: as many as stay in a core's cache, or fill a GPU."""
NO_LABEL = -1
"""The label of an image that only fills the last batch.

It equals no answer, and the loss leaves it out.
"""


@dataclass(frozen=True)
class Measured:
    """The top-1 error in percent, and the mean cross-entropy without label smoothing."""

    error: float
    loss: float


@dataclass(frozen=True, eq=False)
class HeldOut:
    """`n` images in full batches on a device.

    `pixels` is (steps, B, 32, 32, 3) uint8 and `labels` is (steps, B) int64.
    """

    pixels: Tensor
    labels: Tensor
    n: int

    @classmethod
    def of(cls, images: Images, device: str) -> "HeldOut":
        """The images in batches of one shape: black images without a label fill the last batch."""
        batch = BATCH[device]
        missing = -len(images) % batch
        pixels = functional.pad(torch.from_numpy(images.x), (0, 0, 0, 0, 0, 0, 0, missing))
        labels = functional.pad(torch.from_numpy(images.y), (0, missing), value=NO_LABEL)
        pixels = pixels.view(-1, batch, *pixels.shape[1:])
        return cls(pixels.to(device), labels.view(-1, batch).to(device), len(images))


@dataclass(frozen=True, eq=False)
class Meter:
    """A model and the images that it is measured on.

    `number`, (1,) int64, is the next batch; `correct` and `loss` are sums so far. All three lie on
    the device, so that nothing is decided in Python. `replays` says whether a batch is to be one
    CUDA graph.
    """

    model: nn.Module
    context: TrainingContext
    held_out: HeldOut
    number: Tensor
    correct: Tensor
    loss: Tensor
    replays: bool

    @classmethod
    def of(
        cls, model: nn.Module, context: TrainingContext, held_out: HeldOut, replays: bool = False
    ) -> "Meter":
        """A meter that has measured nothing yet."""
        device = context.device.type
        number = torch.zeros(1, dtype=torch.int64, device=device)
        correct = number.new_zeros(())
        loss = torch.zeros((), dtype=torch.float64, device=device)
        replays = replays and device == "cuda"
        return cls(model, context, held_out, number, correct, loss, replays)

    def make_step(self) -> Callable[[], None]:
        """A function that takes the next batch at each call, as fast as the device allows."""
        return replayed(self.step, cuda_graph) if self.replays else self.step

    @torch.no_grad()
    def step(self) -> None:
        """Count the right answers of the next batch, and add its loss."""
        pixels = self.held_out.pixels.index_select(0, self.number)[0]
        labels = self.held_out.labels.index_select(0, self.number)[0]
        logits = self.context.forward(self.model, pixels)
        self.correct.add_((logits.argmax(1) == labels).sum())
        loss = functional.cross_entropy(logits, labels, reduction="sum", ignore_index=NO_LABEL)
        self.loss.add_(loss)
        self.number.add_(1)

    def start(self) -> Callable[[], Measured]:
        """A function that measures the model as it is at each call.

        It measures in eval mode, and waits for the device.
        """
        take = self.make_step()

        def measure() -> Measured:
            self.model.eval()
            for total in (self.number, self.correct, self.loss):
                total.zero_()
            with stream(self.context.device.type):
                for _ in range(len(self.held_out.labels)):
                    take()
            return self.measured()

        return measure

    def measured(self) -> Measured:
        """The result of the last measurement."""
        wrong = self.held_out.n - int(self.correct)
        return Measured(100 * wrong / self.held_out.n, float(self.loss) / self.held_out.n)


def top1_error(model: nn.Module, images: Images, context: TrainingContext) -> float:
    """Top-1 error of `model` on `images`, in percent, in eval mode."""
    held_out = HeldOut.of(images, context.device.type)
    measure = Meter.of(model, context, held_out).start()
    return measure().error
