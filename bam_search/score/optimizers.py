"""The optimizers of `recipe.optimizer`: one table, one way to make, step, save and resume them."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bam_search.score.muon import Muon, NothingForMuon, matrices_of
from bam_search.tasks.recipe import Recipe

SQUARES = 0.999
"""How much of the mean of squared gradients AdamW keeps in a step."""
SLOW = "slow "
"""How the names of parts with a learning rate of their own begin."""


@dataclass(frozen=True, eq=False)
class Optimizer:
    """Optimizers that step together, by name, each with parameters of its own.

    `rate`, a tensor on the device, is the learning rate; who trains writes to it. That of parts
    whose names begin with SLOW is `slow_rate`, which each step makes `factor` times `rate`.
    """

    rate: Tensor
    parts: Mapping[str, torch.optim.Optimizer]
    slow_rate: Tensor
    factor: float

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take one step with the gradients that are there."""
        if self.factor != 1:
            self.slow_rate.copy_(self.rate * self.factor)
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
                # Loading replaces it by a copy.
                group["lr"] = self.slow_rate if name.startswith(SLOW) else self.rate


def optimizer(
    model: nn.Module,
    recipe: Recipe,
    rate: Tensor,
    bf16: bool,
    slow: Set[nn.Parameter] = frozenset(),
    factor: float = 1.0,
) -> Optimizer:
    """The recipe's optimizer on all parameters of the model that need a gradient.

    The learning rate of those in `slow` is `factor` times `rate`. `bf16` says whether the model
    trains in bfloat16. Raises NothingForMuon.
    """
    make, slow_rate = OPTIMIZERS[recipe.optimizer], rate.clone()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    at_rate = [parameter for parameter in trained if parameter not in slow]
    at_slow_rate = [parameter for parameter in trained if parameter in slow]
    parts = dict(make(model, at_rate, recipe, rate, bf16))
    slow_parts = make(model, at_slow_rate, recipe, slow_rate, bf16)
    parts |= {SLOW + name: part for name, part in slow_parts.items()}
    return Optimizer(rate, parts, slow_rate, factor)


Optimizers = Mapping[str, torch.optim.Optimizer]
Parameters = Sequence[nn.Parameter]


def _sgd(
    _model: nn.Module, parameters: Parameters, recipe: Recipe, rate: Tensor, _bf16: bool
) -> Optimizers:
    """SGD on all; its arithmetic is that of the weights."""
    return _sgd_of(parameters, recipe, rate)


def _muon(
    model: nn.Module, parameters: Parameters, recipe: Recipe, rate: Tensor, bf16: bool
) -> Optimizers:
    """Muon on matrices, SGD on all else, such as the last layer."""
    matrices = matrices_of(model)
    if not matrices:
        raise NothingForMuon(
            "Muon trains the matrices before the last layer, and this model has none "
            '(recipe.optimizer = "sgd" trains it)'
        )
    others = [parameter for parameter in parameters if parameter not in matrices]
    chosen = {parameter: matrices[parameter] for parameter in parameters if parameter in matrices}
    parts = _sgd_of(others, recipe, rate)
    if chosen:
        muon = Muon(chosen.items(), rate, recipe.momentum, recipe.weight_decay, bf16)
        return {**parts, "muon": muon}
    return parts


def _adamw(
    _model: nn.Module, parameters: Parameters, recipe: Recipe, rate: Tensor, _bf16: bool
) -> Optimizers:
    """AdamW on all; decay only of what has more than one dimension."""
    if not parameters:
        return {}
    decayed = [parameter for parameter in parameters if parameter.dim() > 1]
    others = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [(decayed, recipe.weight_decay), (others, 0.0)]
    adamw = torch.optim.AdamW(
        [{"params": some, "weight_decay": decay} for some, decay in groups if some],
        rate,
        betas=(recipe.momentum, SQUARES),
        fused=True,
        capturable=rate.is_cuda,
    )
    return {"adamw": adamw}


def _sgd_of(parameters: Parameters, recipe: Recipe, rate: Tensor) -> Optimizers:
    """SGD on the parameters; nothing if there are none."""
    if not parameters:
        return {}
    sgd = torch.optim.SGD(
        parameters,
        rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    return {"sgd": sgd}


Maker = Callable[[nn.Module, Parameters, Recipe, Tensor, bool], Optimizers]
OPTIMIZERS: Mapping[str, Maker] = {
    "sgd": _sgd,
    "muon": _muon,
    "adamw": _adamw,
}
"""`recipe.optimizer` -> a function that makes its optimizers for some parameters of a model."""

MOMENTA: Mapping[str, int] = {"sgd": 1, "muon": 1, "adamw": 2}
"""How many numbers each optimizer keeps for each weight."""
