"""The optimizers of `recipe.optimizer`: one table, one way to make, step, save and resume them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bam_search.score.muon import Muon, NothingForMuon, matrices_of
from bam_search.tasks.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Optimizer:
    """Optimizers that step together, by name, each with parameters of its own.

    `rate`, a tensor on the device, is the learning rate of all; who trains writes to it.
    """

    rate: Tensor
    parts: Mapping[str, torch.optim.Optimizer]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take one step with the gradients that are there."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state dict of each part by its name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state dict of the same optimizer on the same model."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
            for group in part.param_groups:
                group["lr"] = self.rate  # loading replaces it by a copy


def optimizer(model: nn.Module, recipe: Recipe, rate: Tensor, bf16: bool) -> Optimizer:
    """The recipe's optimizer on the model; `bf16` says whether it trains in bfloat16.

    Raises NothingForMuon.
    """
    return Optimizer(rate, OPTIMIZERS[recipe.optimizer](model, recipe, rate, bf16))


Parts = Mapping[str, torch.optim.Optimizer]


def _sgd(model: nn.Module, recipe: Recipe, rate: Tensor, bf16: bool) -> Parts:
    del bf16  # its arithmetic is that of the weights
    return {"sgd": _sgd_of(list(model.parameters()), recipe, rate)}


def _muon(model: nn.Module, recipe: Recipe, rate: Tensor, bf16: bool) -> Parts:
    """Muon on matrices, SGD on all else, which is never nothing: the last layer is with it."""
    matrices = matrices_of(model)
    if not matrices:
        raise NothingForMuon(
            "Muon trains the matrices before the last layer, and this model has none "
            '(recipe.optimizer = "sgd" trains it)'
        )
    muon = Muon(matrices.items(), rate, recipe.momentum, recipe.weight_decay, bf16)
    others = [parameter for parameter in model.parameters() if parameter not in matrices]
    return {"sgd": _sgd_of(others, recipe, rate), "muon": muon}


def _sgd_of(parameters: list[nn.Parameter], recipe: Recipe, rate: Tensor) -> torch.optim.SGD:
    return torch.optim.SGD(
        parameters,
        rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


OPTIMIZERS: Mapping[str, Callable[[nn.Module, Recipe, Tensor, bool], Parts]] = {
    "sgd": _sgd,
    "muon": _muon,
}
"""`recipe.optimizer` -> a function that makes its parts."""
