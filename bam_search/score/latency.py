"""Measured, not counted: the time of a model as a ratio to its backbone's, and the memory of a
training step.

Models run as they are trained: channels-last, under bfloat16 autocast where the recipe has it, on a
GPU as one CUDA graph.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.score.cuda_graphs import EAGER, cuda_graph, stream
from bam_search.score.device import Device


@dataclass(frozen=True)
class Latency:
    """The median over `pairs` of (time of the model / time of the backbone), and its 95 % interval
    by bootstrap; for `batch` images.
    """

    ratio: float
    low: float
    high: float
    pairs: int
    batch: int


@dataclass(frozen=True)
class LatencySetting:
    """How models run that are measured: (C, H, W) of an image, images at once, and what the recipe
    says.
    """

    device: Device
    input_shape: tuple[int, int, int]
    batch: int
    bf16: bool
    cuda_graph: bool = True

    def forward(self, net: nn.Module, images: Tensor) -> Tensor:
        """What the model puts out for the images."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output: Tensor = net(images)
        return output

    def placed(self, net: nn.Module) -> nn.Module:
        """The model on the device, channels-last."""
        there: nn.Module = net.to(self.device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return there

    def images(self) -> Tensor:
        """Black ones."""
        images = torch.zeros(self.batch, *self.input_shape, device=self.device.type)
        return images.contiguous(memory_format=torch.channels_last)


def latency(model: nn.Module, base: nn.Module, setting: LatencySetting, pairs: int = 30) -> Latency:
    """Forward passes in eval mode, model and backbone in turn after a warm-up of both.

    On a GPU its events tell the time.

    Raises NotOneGraph for a model that cannot be one CUDA graph where the setting has that, and
    torch's own errors.
    """
    with torch.inference_mode(), stream(setting.device.type):
        timers = [_timer(setting.placed(net).eval(), setting) for net in (model, base)]
        times = np.array([[timer() for timer in timers] for _ in range(pairs)])
    ratios = times[:, 0] / times[:, 1]
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, pairs)), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Latency(float(np.median(ratios)), float(low), float(high), pairs, setting.batch)


def training_memory(model: nn.Module, setting: LatencySetting) -> int:
    """Bytes that a training step needs.

    On a GPU the peak that its allocator saw. On a CPU, whose allocator tells nothing, the
    parameters with gradients and momentum and every tensor that the forward pass keeps for the
    backward pass, each storage once.
    """
    setting.placed(model).train()
    images = setting.images()
    labels = torch.zeros(setting.batch, dtype=torch.int64, device=setting.device.type)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        functional.cross_entropy(setting.forward(model, images).float(), labels).backward()
        return torch.cuda.max_memory_allocated()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = functional.cross_entropy(setting.forward(model, images).float(), labels)
    own = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    del loss
    return 3 * sum(own.values()) + sum(size for pointer, size in kept.items() if pointer not in own)


def _timer(net: nn.Module, setting: LatencySetting) -> Callable[[], float]:
    """A function that runs the model once and gives the seconds that it took; it is warm."""
    images = setting.images()

    def run() -> None:
        setting.forward(net, images)

    for _ in range(EAGER):
        run()
    if setting.device.type != "cuda":
        return lambda: _wall_seconds(run)
    replay = cuda_graph(run) if setting.cuda_graph else run
    return lambda: _device_seconds(replay)


def _wall_seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _device_seconds(run: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
