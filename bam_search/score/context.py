"""What trainings on the same samples share: the device, the precision, the samples on it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bam_search.score.device import Device, room_for_samples
from bam_search.tasks.outputs import Model
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Task, TrainingData


@dataclass(frozen=True, eq=False)
class TrainingContext:
    """The training samples on the device that they train on.

    Models run under bfloat16 autocast if `bf16` is true.
    """

    device: Device
    bf16: bool
    data: TrainingData

    @classmethod
    def of(
        cls, task: Task, device: Device, recipe: Recipe, samples: Any, room: int | None = None
    ) -> "TrainingContext":
        """The training context for these training samples of the task.

        They take at most `room` bytes of the device, None for what one training may have of it.
        """
        room = room_for_samples(device) if room is None else room
        data = task.on_device(samples, recipe, device.type, room)
        return cls(device, uses_bf16(recipe, device), data)

    def model(self, net: nn.Module) -> Model:
        """The model in the precision of the training, as tasks call it."""

        def forward(*inputs: Any) -> Any:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                return net(*inputs)

        return forward


@contextlib.contextmanager
def autocast_restored(device: str) -> Iterator[None]:
    """Leave autocast as it was, also where an interrupt came while torch was leaving it.

    Torch's own context is written in Python: a signal within its last lines leaves autocast on,
    and in a notebook the next model would run under it.
    """
    enabled, depth = torch.is_autocast_enabled(device), _depth()
    try:
        yield
    finally:
        while _depth() > depth:
            torch.autocast_decrement_nesting()
        torch.set_autocast_enabled(device, enabled)
        if not depth:
            torch.clear_autocast_cache()


def _depth() -> int:
    """How many autocast contexts are open."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def uses_bf16(recipe: Recipe, device: Device) -> bool:
    """Whether the recipe means bfloat16 on this device."""
    return recipe.precision == "bf16" or (recipe.precision == "auto" and device.bf16)
