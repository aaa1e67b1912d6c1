"""What a training starts from: pretrained weights, how attention is inserted, what trains."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from bam_search.config import strict
from bam_search.errors import UserError
from bam_search.model.attach import Init


@strict
@dataclass(frozen=True)
class StartPlan:
    """What trainings start from: the table `[start]` of a study.

    `weights` is a file of pretrained weights for the backbone, in any form in which people save
    them (`bam_search.model.weights`); without one, the seed draws all weights. A head that the file
    lacks, or has for another number of classes, starts anew; it and the attention depend on the
    seed as ever.

    `insertion`: "plain" attention changes the outputs from the first step on, "identity" adds a
    gate that starts at 0, so that training starts from the very outputs of the backbone. A gate is
    one more weight a site, and counted.

    `backbone`: "train" trains it as all else. "frozen" trains the head and the attention alone, and
    keeps the statistics of the backbone's batch normalisations, which then normalise as in eval
    mode. A number between 0 and 1 is the backbone's learning rate as a factor of `recipe.lr`, for
    every optimizer. The head is all whose shape depends on the number of classes, the last layer
    where nothing does, and what the file lacks; it trains at the full rate.

    `norms`: "frozen" keeps the statistics of the backbone's batch normalisations, also where it
    trains. So do detectors that start from pretrained weights, as their batches are small.
    """

    weights: str = ""
    insertion: Literal["plain", "identity"] = "plain"
    backbone: Literal["train", "frozen"] | Annotated[float, Gt(0), Lt(1)] = "train"
    norms: Literal["train", "frozen"] = "train"

    def __post_init__(self) -> None:
        if self.norms == "frozen" and not self.weights:
            raise UserError(
                'start.norms = "frozen" keeps statistics, and there are none without start.weights',
                "name a file of pretrained weights, or leave it out",
            )

    @property
    def init(self) -> Init:
        """The insertion as `attach` calls it."""
        return "identity" if self.insertion == "identity" else "random"

    @property
    def factor(self) -> float:
        """The factor of the backbone's learning rate; 0 where it is frozen."""
        factors = {"train": 1.0, "frozen": 0.0}
        return factors[self.backbone] if isinstance(self.backbone, str) else self.backbone

    @property
    def keeps_statistics(self) -> bool:
        """Whether the backbone's normalisations keep theirs."""
        return self.factor == 0 or self.norms == "frozen"


@dataclass(frozen=True)
class Start:
    """What all trainings of a study start from, beside their seeds.

    It is sent to each worker, so it holds the weights themselves: a file may change.

    `weights` is a state dict for the backbone, as torch.save writes it; empty where the seed draws
    all weights. `slow` are the names of parameters that train at `factor` times the learning rate:
    those of the backbone, but its head. Where the factor is 0 they are frozen. The normalisations
    `norms` keep their statistics. `init` is as for `attach`. `digest` identifies the
    weights, and `note` says what of the backbone they are not.
    """

    weights: bytes = field(default=b"", repr=False)
    slow: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    factor: float = 1.0
    init: Init = "random"
    digest: str = ""
    note: str = ""

    def load(self, backbone: nn.Module) -> None:
        """Load the weights into the backbone; the head, if they have none, stays as it is."""
        if self.weights:
            weights = torch.load(io.BytesIO(self.weights), weights_only=True)
            backbone.load_state_dict(weights, strict=False)

    def freeze(self, model: nn.Module) -> None:
        """Take the gradients of what is frozen."""
        if self.factor == 0:
            for name in self.slow:
                model.get_parameter(name).requires_grad_(False)

    def train_mode(self, model: nn.Module) -> None:
        """Put the model in training mode, but for normalisations that are frozen.

        These normalise with the statistics that they have, and keep them.
        """
        model.train()
        for name in self.norms:
            model.get_submodule(name).training = False  # not that of attention in it

    def slow_parameters(self, model: nn.Module) -> set[nn.Parameter]:
        """The parameters that train at `factor` times the learning rate."""
        return {model.get_parameter(name) for name in self.slow}


SCRATCH = Start()
"""The seed draws all weights, and all train alike."""


def as_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """The weights as `Start.weights` has them."""
    file = io.BytesIO()
    # Cloned: of a part of a larger tensor, all would be written.
    torch.save({key: value.cpu().clone() for key, value in weights.items()}, file)
    return file.getvalue()
