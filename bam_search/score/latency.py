"""Measured, not counted: the time of a model as a ratio to its backbone's, and the memory of a training step."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.score.device import Device


@dataclass(frozen=True)
class Latency:
    """The median over `pairs` of (time of the model / time of the backbone), and its 95 % interval by bootstrap."""

    ratio: float
    low: float
    high: float
    pairs: int


def latency(model: nn.Module, base: nn.Module, input_shape: tuple[int, int, int], device: Device, batch: int, pairs: int = 30) -> Latency:
    """Forward passes in eval mode of `batch` images, model and backbone in turn after a warm-up of both."""
    image = torch.zeros(batch, *input_shape, device=device.type).contiguous(memory_format=torch.channels_last)
    twins = [net.to(device.type).eval() for net in (model, base)]
    with torch.inference_mode():
        for _ in range(3):
            for net in twins:
                net(image)
        times = np.array([[_seconds(net, image) for net in twins] for _ in range(pairs)])
    ratios = times[:, 0] / times[:, 1]
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, pairs)), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Latency(float(np.median(ratios)), float(low), float(high), pairs)


def training_memory(model: nn.Module, input_shape: tuple[int, int, int], device: Device, batch: int) -> int:
    """Bytes that a training step of `batch` images needs.

    On a GPU the peak that its allocator saw. On a CPU, whose allocator tells nothing, the parameters with gradients and momentum and
    every tensor that the forward pass keeps for the backward pass, each storage once.
    """
    model.to(device.type).train()
    image = torch.zeros(batch, *input_shape, device=device.type)
    labels = torch.zeros(batch, dtype=torch.int64, device=device.type)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        functional.cross_entropy(model(image), labels).backward()
        return torch.cuda.max_memory_allocated()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = functional.cross_entropy(model(image), labels)
    own = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    del loss
    return 3 * sum(own.values()) + sum(size for pointer, size in kept.items() if pointer not in own)


def _seconds(net: nn.Module, image: Tensor) -> float:
    started = time.perf_counter()
    net(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
