"""One training step, in which Python decides nothing.

All that changes from step to step lies on the device, so a step can be one CUDA graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bam_search.model.start import SCRATCH, Start
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import cuda_graph, replayed
from bam_search.score.optimizers import Optimizer, optimizer
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Batches


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """Forward, backward and optimizer on the next batch.

    A batch of `batch` samples goes through in `micro_batches` parts whose gradients add up.
    `number`, (1,) int64, is the steps taken so far, `rates`, (steps,), the learning rate of each
    and `rate` that of this one; `loss` adds up the mean loss of each batch. `replays` says whether
    steps are to be one CUDA graph.
    """

    model: nn.Module
    context: TrainingContext
    batches: Batches
    batch: int
    optimizer: Optimizer
    micro_batches: int
    number: Tensor
    rates: Tensor
    rate: Tensor
    loss: Tensor
    replays: bool

    @classmethod
    def first(
        cls,
        model: nn.Module,
        context: TrainingContext,
        recipe: Recipe,
        micro_batches: int = 1,
        start: Start = SCRATCH,
    ) -> "TrainingStep":
        """The first of a training of the recipe's epochs on the samples of the training context.

        `start` says which of the model's parameters train at another learning rate.

        Raises NothingForMuon.
        """
        batch = min(recipe.batch, len(context.data))
        batches = context.data.batches(batch)
        steps = recipe.epochs * len(batches)
        schedule = [recipe.lr_at(number, steps) for number in range(steps)]
        rates = torch.tensor(schedule, device=context.device.type)
        rate, loss = rates.new_zeros(()), rates.new_zeros(())
        number = torch.zeros(1, dtype=torch.int64, device=rates.device)
        replays = recipe.cuda_graph and context.device.type == "cuda"
        slow = start.slow_parameters(model)
        return cls(
            model,
            context,
            batches,
            batch,
            optimizer(model, recipe, rate, context.bf16, slow, start.factor),
            micro_batches,
            number,
            rates,
            rate,
            loss,
            replays,
        )

    def make_step(self) -> Callable[[], None]:
        """A function that takes one step at each call, as fast as the device allows."""
        return replayed(self.step, cuda_graph) if self.replays else self.step

    def step(self) -> None:
        """Take the step."""
        self.rate.copy_(self.rates.index_select(0, self.number)[0])
        self.optimizer.zero_grad()
        data, model = self.context.data, self.context.model(self.model)
        number = self.number % len(self.batches)
        for part in self.batches.parts(number, self.micro_batches):
            # Weighted, so that the parts' losses and gradients add up to those of the batch.
            loss = data.loss(model, part) * (len(part) / self.batch)
            loss.backward()
            self.loss.add_(loss.detach())
        self.optimizer.step()
        self.number.add_(1)

    def resume(self, optimizer: dict[str, object], number: int) -> None:
        """Go on from a training that was saved after `number` steps.

        `optimizer` is the state dict of its optimizer.
        """
        self.optimizer.load_state_dict(optimizer)
        self.number.fill_(number)
