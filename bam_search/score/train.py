"""Train a model on samples that are on its device.

Takes an nn.Module: knows no placement. The host waits for the device once an epoch.
"""

import contextlib
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bam_search.model.start import SCRATCH, Start
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import stream
from bam_search.score.step import TrainingStep
from bam_search.tasks.recipe import Recipe


class Diverged(Exception):
    """The training loss became NaN or infinite."""


class TooSlow(Exception):
    """The training took longer than its recipe allows."""


@dataclass(frozen=True)
class EpochResult:
    """The mean training loss of one epoch, and the value of the metric after it, if measured."""

    loss: float
    value: float | None


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A training after some of its epochs: all that the rest of it depends on.

    `seconds` is the wall time of these epochs; `model` and `optimizer` are state dicts.
    """

    epochs: tuple[EpochResult, ...]
    seconds: float
    model: dict[str, Any]
    optimizer: dict[str, Any]


def train(
    model: nn.Module,
    context: TrainingContext,
    recipe: Recipe,
    seed: int,
    measure: Callable[[], float] | None = None,
    micro_batches: int = 1,
    saved: TrainingState | None = None,
    keep: Callable[[TrainingState], None] | None = None,
    start: Start = SCRATCH,
) -> tuple[EpochResult, ...]:
    """Train `model` in place on the samples of the training context, and return its epochs.

    `measure`, if given, is called after each epoch for the value of the metric. The batches, and
    torch's own random numbers (dropout), depend on (seed, epoch) only. So a training can go on from
    one that was `saved`; `keep` is called with the state after each epoch but the last. Trained
    again on the same device with the same versions, it is the same bit for bit on a CPU; on a GPU,
    which adds in no fixed order, each epoch's loss is held to 1 % (tests/score/test_gpu.py). With
    more than one of `micro_batches` a batch goes through in that many parts whose gradients add up;
    normalisations then see the parts. `start` says which parameters are frozen, or train at another
    learning rate. Raises Diverged, TooSlow, NotOneGraph and NothingForMuon.
    """
    with stream(context.device.type), _cudnn(recipe):
        return _train(model, context, recipe, seed, measure, micro_batches, saved, keep, start)


def _train(
    model: nn.Module,
    context: TrainingContext,
    recipe: Recipe,
    seed: int,
    measure: Callable[[], float] | None,
    micro_batches: int,
    saved: TrainingState | None,
    keep: Callable[[TrainingState], None] | None,
    start: Start,
) -> tuple[EpochResult, ...]:
    began = time.monotonic() - (saved.seconds if saved else 0)
    step = TrainingStep.first(model, context, recipe, micro_batches, start)
    batches = step.batches
    epochs = list(saved.epochs) if saved else []
    if saved:
        model.load_state_dict(saved.model)
        step.resume(saved.optimizer, len(epochs) * len(batches))
    take = step.make_step()
    for number in range(len(epochs), recipe.epochs):
        start.train_mode(model)
        torch.manual_seed(zlib.crc32(f"{seed}:{number}:model".encode()))
        batches.load(seed, number)
        loss = _train_epoch(step, take, began, number, recipe)
        epochs.append(EpochResult(loss, measure() if measure else None))
        if keep and len(epochs) < recipe.epochs:
            seconds = time.monotonic() - began
            optimizer = step.optimizer.state_dict()
            keep(TrainingState(tuple(epochs), seconds, model.state_dict(), optimizer))
    return tuple(epochs)


def _train_epoch(
    step: TrainingStep, take: Callable[[], None], began: float, epoch: int, recipe: Recipe
) -> float:
    """Train for one epoch, and return its mean loss. Raises Diverged and TooSlow."""
    step.loss.zero_()
    for number in range(len(step.batches)):
        _check_time_limit(began, epoch, recipe)
        step.batches.ready(number)
        take()
    loss = float(step.loss) / len(step.batches)
    _check_time_limit(began, epoch, recipe)  # again: on a GPU the steps above were only queued
    if not math.isfinite(loss):
        raise Diverged(f"the training loss became {loss} in epoch {epoch + 1} of {recipe.epochs}")
    return loss


@contextlib.contextmanager
def _cudnn(recipe: Recipe) -> Iterator[None]:
    """Within the context cuDNN chooses algorithms as the recipe says.

    The setting is the process's, so it is restored afterwards.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = recipe.cudnn_benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _check_time_limit(began: float, epoch: int, recipe: Recipe) -> None:
    """Raise TooSlow if the training has taken longer than `recipe.seconds`."""
    if recipe.seconds and time.monotonic() - began > recipe.seconds:
        raise TooSlow(
            f"the training took more than {recipe.seconds:g} s, "
            f"and was in epoch {epoch + 1} of {recipe.epochs}"
        )
