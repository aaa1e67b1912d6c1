"""Train a model on images that live on its device, and measure its error. Takes an nn.Module: knows no placement.

The images stay uint8 on the device; a batch is cropped and flipped by one gather, normalised there, and the host waits for the
device once an epoch.
"""

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.score.data import Images
from bam_search.score.device import Device
from bam_search.score.recipe import Recipe

PAD = 4
EVAL_BATCH = 1000


class Diverged(Exception):
    """The training loss became NaN or infinite."""


class TooSlow(Exception):
    """The training took longer than its recipe allows."""


@dataclass(frozen=True)
class Epoch:
    """The mean training loss of one epoch, and the error in percent after it where it was measured."""

    loss: float
    error: float | None


@dataclass(frozen=True, eq=False)
class Saved:
    """A training after some of its epochs, and the wall seconds these took: all that the rest depends on."""

    epochs: tuple[Epoch, ...]
    seconds: float
    model: dict[str, Any]
    optimizer: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Bench:
    """What training and measuring share: the device, the precision, and the pixel statistics of the training images."""

    device: Device
    bf16: bool
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, device: Device, recipe: Recipe, images: Images) -> "Bench":
        """The bench for these training images: mean and standard deviation per channel, over all pixels."""
        # From histograms: exact, and without a float copy of all images.
        histograms = torch.stack([torch.bincount(torch.from_numpy(images.x[..., c]).flatten(), minlength=256) for c in range(3)]).double()
        levels = torch.arange(256, dtype=torch.float64)
        share = histograms / histograms.sum(1, keepdim=True)
        mean = share @ levels
        std = (share @ levels**2 - mean**2).sqrt()
        return cls(device, uses_bf16(recipe, device), mean.float().to(device.type), std.float().to(device.type))

    def forward(self, model: nn.Module, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, classes) float32 logits, under autocast where the bench is bf16."""
        x = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2)  # channels-last in memory, without a copy
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = model(x)
        return logits.float()


def uses_bf16(recipe: Recipe, device: Device) -> bool:
    """Whether the recipe means bfloat16 on this device."""
    return recipe.precision == "bf16" or (recipe.precision == "auto" and device.bf16)


def train(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    seed: int,
    bench: Bench,
    measure: Callable[[], float] | None = None,
    micro_batches: int = 1,
    saved: Saved | None = None,
    keep: Callable[[Saved], None] | None = None,
) -> tuple[Epoch, ...]:
    """Train `model` in place on `images`; `measure`, if given, is called after each epoch for the error.

    The order of the images, their crops and flips, and torch's own random numbers (dropout) depend on (seed, epoch) only. So a training
    goes on from one that was `saved`; `keep` hears of each epoch but the last. With more than one of `micro_batches` a batch goes
    through in that many parts whose gradients add up; normalisations then see the parts. Raises Diverged, TooSlow, and ValueError
    if a batch cannot be filled with two images.
    """
    began = time.monotonic() - (saved.seconds if saved else 0)
    deadline = began + (recipe.seconds or math.inf)
    device = bench.device.type
    pixels, labels = _padded(images, device), torch.from_numpy(images.y).to(device)
    batch = min(recipe.batch, len(images))
    steps_per_epoch = len(images) // batch
    steps = recipe.epochs * steps_per_epoch
    optimizer = _optimizer(model, recipe)
    if saved:
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
    epochs = list(saved.epochs) if saved else []
    for number in range(len(epochs), recipe.epochs):
        model.train()
        torch.manual_seed(zlib.crc32(f"{seed}:{number}:model".encode()))
        total = torch.zeros((), device=device)
        for step, taken in enumerate(_epoch(len(images), batch, seed, number, recipe, device)):
            if time.monotonic() > deadline:
                raise TooSlow(f"the training took more than {recipe.seconds:g} s, and was in epoch {number + 1} of {recipe.epochs}")
            optimizer.param_groups[0]["lr"] = recipe.lr_at(number * steps_per_epoch + step, steps)
            optimizer.zero_grad(set_to_none=True)
            for index, rows, columns in _parts(taken, micro_batches):
                logits = bench.forward(model, pixels[index[:, None, None], rows[:, :, None], columns[:, None, :]])
                loss = functional.cross_entropy(logits, labels[index], label_smoothing=recipe.label_smoothing)
                loss = loss * (len(index) / batch)
                loss.backward()
                total += loss.detach()
            optimizer.step()
        mean_loss = float(total) / steps_per_epoch
        if not math.isfinite(mean_loss):
            raise Diverged(f"the training loss became {mean_loss} in epoch {number + 1} of {recipe.epochs}")
        epochs.append(Epoch(mean_loss, measure() if measure else None))
        if keep and len(epochs) < recipe.epochs:
            keep(Saved(tuple(epochs), time.monotonic() - began, model.state_dict(), optimizer.state_dict()))
    return tuple(epochs)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(
        model.parameters(), recipe.lr, momentum=recipe.momentum, nesterov=nesterov, weight_decay=recipe.weight_decay, fused=True
    )


def error(model: nn.Module, images: Images, bench: Bench) -> float:
    """Top-1 error of `model` on `images`, in percent, in eval mode."""
    model.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=bench.device.type)
    with torch.inference_mode():
        for start in range(0, len(images), EVAL_BATCH):
            part = slice(start, start + EVAL_BATCH)
            pixels = torch.from_numpy(images.x[part]).to(bench.device.type)
            labels = torch.from_numpy(images.y[part]).to(bench.device.type)
            wrong += (bench.forward(model, pixels).argmax(1) != labels).sum()
    return 100 * int(wrong) / len(images)


def _padded(images: Images, device: str) -> Tensor:
    return functional.pad(torch.from_numpy(images.x), (0, 0, PAD, PAD, PAD, PAD)).to(device)


Taken = tuple[Tensor, Tensor, Tensor]
"""What a batch takes: image indices (B,), and the rows (B, 32) and columns (B, 32) of the padded images."""


def _parts(taken: Taken, n: int) -> list[Taken]:
    index, rows, columns = (part.tensor_split(n) for part in taken)
    return list(zip(index, rows, columns, strict=True))


def _epoch(n: int, batch: int, seed: int, epoch: int, recipe: Recipe, device: str) -> list[Taken]:
    """What each full batch of the epoch takes."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{epoch}".encode()))
    index = torch.randperm(n, generator=generator)
    side = torch.arange(32)
    top, left = (torch.randint(0, 2 * PAD + 1, (n, 1), generator=generator) for _ in range(2))
    flipped = torch.rand((n, 1), generator=generator) < 0.5
    if recipe.alternate:
        first = torch.Generator().manual_seed(zlib.crc32(f"{seed}:flips".encode()))
        flipped = ((torch.rand((n, 1), generator=first) < 0.5) ^ bool(epoch % 2))[index]
    if recipe.augment != "crop-flip":
        top, left = torch.full_like(top, PAD), torch.full_like(left, PAD)
    if recipe.augment == "none":
        flipped = torch.zeros_like(flipped)
    rows, columns = top + side, left + side
    columns = torch.where(flipped, columns.flip(1), columns)
    parts = (part.to(device).split(batch) for part in (index, rows, columns))
    return [three for three in zip(*parts, strict=True) if len(three[0]) == batch]
