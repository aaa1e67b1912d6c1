"""One training step, in which Python decides nothing.

All that changes from step to step lies on the device, so a step can be one CUDA graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.score.batches import Batches
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import cuda_graph, replayed
from bam_search.score.recipe import Recipe


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """Forward, backward and optimizer on the next batch.

    The batch goes through in `micro_batches` parts whose gradients add up. `number`, (1,) int64, is
    the steps taken so far, `rates`, (steps,), the learning rate of each and `rate` that of this
    one; `loss` adds up the mean loss of each batch. `replays` says whether steps are to be one CUDA
    graph.
    """

    model: nn.Module
    context: TrainingContext
    batches: Batches
    optimizer: torch.optim.SGD
    label_smoothing: float
    micro_batches: int
    number: Tensor
    rates: Tensor
    rate: Tensor
    loss: Tensor
    replays: bool

    @classmethod
    def first(
        cls, model: nn.Module, context: TrainingContext, recipe: Recipe, micro_batches: int = 1
    ) -> "TrainingStep":
        """The first of a training of the recipe's epochs on the images of the training context."""
        batches = Batches.of(context.device_images, min(recipe.batch, len(context.device_images)))
        steps = recipe.epochs * len(batches)
        schedule = [recipe.lr_at(number, steps) for number in range(steps)]
        rates = torch.tensor(schedule, device=context.device.type)
        rate, loss = rates.new_zeros(()), rates.new_zeros(())
        number = torch.zeros(1, dtype=torch.int64, device=rates.device)
        optimizer = _optimizer(model, recipe, rate)
        replays = recipe.cuda_graph and context.device.type == "cuda"
        return cls(
            model,
            context,
            batches,
            optimizer,
            recipe.label_smoothing,
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
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.batches.labels.shape[1]
        smoothing = self.label_smoothing
        for pixels, labels in self.batches.parts(
            self.number % len(self.batches), self.micro_batches
        ):
            logits = self.context.forward(self.model, pixels)
            mean_loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
            # Weighted, so that the parts' losses and gradients add up to those of the batch.
            loss = mean_loss * (len(labels) / batch)
            loss.backward()
            self.loss.add_(loss.detach())
        self.optimizer.step()
        self.number.add_(1)

    def resume(self, optimizer: dict[str, object], number: int) -> None:
        """Go on from a training that was saved after `number` steps.

        `optimizer` is the state dict of its optimizer.
        """
        self.optimizer.load_state_dict(optimizer)
        # Loading replaces the tensor that the steps write the learning rate to.
        self.optimizer.param_groups[0]["lr"] = self.rate
        self.number.fill_(number)


def _optimizer(model: nn.Module, recipe: Recipe, rate: Tensor) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(),
        rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
