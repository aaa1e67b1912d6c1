"""Measure a model on held-out samples: the value of the task's metric, and the mean loss.

Takes an nn.Module: knows no placement.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import cuda_graph, replayed, stream
from bam_search.tasks.task import HeldOut, Measured, Tally


@dataclass(frozen=True, eq=False)
class Meter:
    """A model and the samples that it is measured on.

    `number`, (1,) int64, is the next batch. It lies on the device with the sums of `tally`, so that
    nothing is decided in Python. `replays` says whether a batch is to be one CUDA graph.
    """

    model: nn.Module
    context: TrainingContext
    held_out: HeldOut
    tally: Tally
    number: Tensor
    replays: bool

    @classmethod
    def of(
        cls, model: nn.Module, context: TrainingContext, held_out: HeldOut, replays: bool = False
    ) -> "Meter":
        """A meter that has measured nothing yet."""
        device = context.device.type
        number = torch.zeros(1, dtype=torch.int64, device=device)
        replays = replays and device == "cuda"
        return cls(model, context, held_out, held_out.tally(), number, replays)

    def make_step(self) -> Callable[[], None]:
        """A function that takes the next batch at each call, as fast as the device allows."""
        return replayed(self.step, cuda_graph) if self.replays else self.step

    @torch.no_grad()
    def step(self) -> None:
        """Add the next batch to the sums."""
        self.tally.add(self.context.model(self.model), self.number)
        self.number.add_(1)

    def start(self) -> Callable[[], Measured]:
        """A function that measures the model as it is at each call.

        It measures in eval mode, and waits for the device.
        """
        take = self.make_step()

        def measure() -> Measured:
            self.model.eval()
            self.number.zero_()
            self.tally.reset()
            with stream(self.context.device.type):
                for batch in range(len(self.held_out)):
                    self.held_out.ready(batch)
                    take()
            return self.measured()

        return measure

    def measured(self) -> Measured:
        """The result of the last measurement."""
        return self.tally.measured()


def measured(model: nn.Module, samples: Any, context: TrainingContext) -> Measured:
    """The metric and the loss of `model` on `samples`, in eval mode."""
    return Meter.of(model, context, context.data.held_out(samples)).start()()
