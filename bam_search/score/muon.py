"""Muon: momentum whose direction is made orthogonal, for the matrices that a model multiplies by.

Keller Jordan et al.: "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/. `torch.optim.Muon` is not used: it takes no filters
(https://github.com/pytorch/pytorch/issues/166209), asks the device for the learning rate in each
step, so that the step could be no CUDA graph, and goes through its matrices one by one.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bam_search.model.insert import attended

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, x³ and x⁵ in the iteration, from the post: steep at 0, and near 1 in the end."""
ITERATIONS = 5
EPS = 1e-7
"""The least norm that a matrix is divided by: a gradient of 0 stays 0."""
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers that multiply by a matrix, a grouped convolution by one a group."""


class NothingForMuon(Exception):
    """A model has no matrix that Muon would train."""


class Muon(torch.optim.Optimizer):
    """Muon on weights (out, in / groups, ...), each with the number of its groups.

    A weight is `groups` matrices of out / groups rows and in / groups · k · k columns, each made
    orthogonal by itself, as the groups of a convolution have nothing to do with each other. All
    weights of one shape go through the iteration at once, in bfloat16 if `bf16`. The direction is
    that of SGD with Nesterov momentum. The step is `rate`, a tensor on the device, times
    sqrt(max(1, rows / columns)). Weights decay by rate · weight_decay a step, apart from the
    direction, as in AdamW. Weights without a gradient stay as they are.
    """

    def __init__(
        self,
        weights: Iterable[tuple[nn.Parameter, int]],
        rate: Tensor,
        momentum: float,
        weight_decay: float,
        bf16: bool,
    ) -> None:
        by_shape: dict[object, dict[str, Any]] = {}
        for weight, groups in weights:
            alike = (weight.shape, weight.dtype, groups)
            of_shape = by_shape.setdefault(alike, {"params": [], "groups": groups})
            of_shape["params"].append(weight)
        defaults = {"lr": rate, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(list(by_shape.values()), defaults)
        self._bf16 = bf16

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step. What it does depends on shapes alone: it can be part of a CUDA graph."""
        del closure
        for of_shape in self.param_groups:
            gradients = {p: p.grad for p in of_shape["params"] if p.grad is not None}
            if gradients:
                self._step(gradients, of_shape)

    def _step(self, gradients: dict[Tensor, Tensor], of_shape: dict[str, Any]) -> None:
        weights, rate = list(gradients), of_shape["lr"]
        directions = self._directions(gradients, of_shape["momentum"])
        # Columns are put in the order that filters have in memory, channels last: the iteration
        # treats all alike, and nothing is copied from one order to the other.
        rows = torch.stack([direction.movedim(1, -1) for direction in directions])
        updates = rate * orthogonal_filters(rows, of_shape["groups"], self._bf16)
        torch._foreach_mul_(weights, 1 - rate * of_shape["weight_decay"])
        torch._foreach_sub_(weights, [update.movedim(-1, 1) for update in updates.unbind()])

    def _directions(self, gradients: dict[Tensor, Tensor], momentum: float) -> Sequence[Tensor]:
        """Nesterov momentum of each weight: SGD's, times 1 - momentum."""
        averages = [self._average(weight) for weight in gradients]
        torch._foreach_lerp_(averages, list(gradients.values()), 1 - momentum)
        return torch._foreach_lerp(list(gradients.values()), averages, momentum)

    def _average(self, weight: Tensor) -> Tensor:
        """The moving average of the gradients of a weight, laid out in memory as the weight is."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        average: Tensor = state["momentum_buffer"]
        return average


def orthogonal_filters(filters: Tensor, groups: int, bf16: bool) -> Tensor:
    """The filters (n, out, ...), each `groups` matrices, orthogonal and times Muon's scale."""
    n, out = filters.shape[:2]
    matrices = filters.reshape(n * groups, out // groups, -1)
    rows, columns = matrices.shape[1:]
    scale = math.sqrt(max(1, rows / columns))
    return (orthogonal(matrices, bf16) * scale).reshape(filters.shape)


def orthogonal(matrices: Tensor, bf16: bool) -> Tensor:
    """The matrices (n, rows, columns) with singular values near 1, from some 0.7 to 1.2.

    Newton-Schulz iteration in bfloat16 if `bf16`, else in the matrices' own type, which the result
    has. Singular values below some 1e-3 of the matrix's norm stay smaller.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=EPS)
    x = x.bfloat16() if bf16 else x
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


def matrices_of(model: nn.Module) -> dict[nn.Parameter, int]:
    """What Muon trains: weight -> its groups.

    The weights of all linear layers and convolutions, attention's too, but of the last one, which
    puts out the answer, and of those that are vectors: one row or one column a group, as in
    depthwise convolutions and those to one channel. (The post above: vectors and the output layer
    are for a standard method, and filters are flattened from their second dimension on.) The post
    leaves out input layers too; a first convolution is trained by Muon, which was the better
    (LOG.md, 2026-11-27): pixels are no one-hot words. The last is meant in the order in which the
    backbone registers its layers.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LAYERS)]
    groups = {layer.weight: getattr(layer, "groups", 1) for layer in layers}
    children = attended(model).values()
    attention = {part for child in children for part in model.get_submodule(child).modules()}
    last = {layer.weight for layer in [one for one in layers if one not in attention][-1:]}
    return {
        weight: n
        for weight, n in groups.items()
        # A weight that is computed from others is no parameter.
        if isinstance(weight, nn.Parameter) and _is_matrix(weight, n) and weight not in last
    }


def _is_matrix(weight: Tensor, groups: int) -> bool:
    """Whether it has more than a row and more than a column a group."""
    rows, columns = len(weight) // groups, weight[0].numel()
    return min(rows, columns) > 1
