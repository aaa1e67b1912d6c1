"""The measured time of a model, as a ratio to its backbone's, and the memory of a training step.

Models run as they are trained: channels-last, under bfloat16 autocast where the recipe has it, on a
GPU as one CUDA graph.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bam_search.model.arguments import main_tensor
from bam_search.model.detector import example_targets, is_detector
from bam_search.score.cuda_graphs import EAGER, cuda_graph, stream
from bam_search.score.device import Device
from bam_search.score.optimizers import MOMENTA, optimizer
from bam_search.tasks.recipe import Recipe


@dataclass(frozen=True)
class Latency:
    """The time of a model as a ratio to its backbone's, for `batch` images.

    `ratio` is the median over `pairs` of measurements of both; `low` and `high` are its 95 %
    interval by bootstrap.
    """

    ratio: float
    low: float
    high: float
    pairs: int
    batch: int


@dataclass(frozen=True)
class LatencySetting:
    """How models run that are measured.

    `input_shape` is (C, H, W) of an image, `batch` the number of images at once; `bf16` and
    `cuda_graph` are as the recipe has them.
    """

    device: Device
    input_shape: tuple[int, ...]
    batch: int
    bf16: bool
    cuda_graph: bool = True

    def forward(self, net: nn.Module, images: Tensor) -> Tensor:
        """What the model puts out for the images, without what it adds in training.

        Raises ValueError if that is no tensor.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output = main_tensor(net(images))
        if output is None:
            raise ValueError("the model returns no tensor")
        return output

    def loss(self, net: nn.Module, images: Tensor) -> Tensor:
        """A loss that keeps one number for each output, as the losses of tasks do.

        A detector has losses of its own; here each image has one object.
        """
        if not is_detector(net):
            return self.forward(net, images).float().square().mean()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses: dict[str, Tensor] = net(images, example_targets(images))
        return torch.stack(list(losses.values())).sum()

    def placed(self, net: nn.Module) -> nn.Module:
        """The model on the device, channels-last."""
        moved: nn.Module = net.to(self.device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved

    def images(self) -> Tensor:
        """Black images on the device, channels-last."""
        images = torch.zeros(self.batch, *self.input_shape, device=self.device.type)
        return images.contiguous(memory_format=torch.channels_last)


def latency(model: nn.Module, base: nn.Module, setting: LatencySetting, pairs: int = 30) -> Latency:
    """The latency of `model` against the backbone `base`, in eval mode.

    Model and backbone run in turn after a warm-up of both; on a GPU its events measure the time.
    Raises NotOneGraph for a model that cannot be one CUDA graph where the setting has that, and
    torch's own errors.
    """
    # A detector keeps its anchors, and could not be trained with tensors of the inference mode.
    without = torch.no_grad if is_detector(base) else torch.inference_mode
    with without(), stream(setting.device.type):
        timers = [_timer(setting.placed(net).eval(), setting) for net in (model, base)]
        times = np.array([[timer() for timer in timers] for _ in range(pairs)])
    ratios = times[:, 0] / times[:, 1]
    resampled = np.random.default_rng(0).choice(ratios, (2000, pairs))
    low, high = np.quantile(np.median(resampled, axis=1), (0.025, 0.975))
    return Latency(float(np.median(ratios)), float(low), float(high), pairs, setting.batch)


def training_memory(model: nn.Module, setting: LatencySetting, recipe: Recipe) -> int:
    """Bytes that a training step needs with the recipe's optimizer.

    On a GPU the peak that its allocator saw in a second step, for which the first has left the
    optimizer's state. On a CPU, whose allocator tells nothing, the parameters with gradients and
    what the optimizer keeps of each, and every tensor that the forward pass keeps for the backward
    pass, each storage once: what the optimizer needs for a moment is less than the kept tensors,
    which are gone by then.
    """
    setting.placed(model).train()
    images = setting.images()
    if setting.device.type == "cuda":
        return _peak_on_gpu(model, images, setting, recipe)
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        # The loss holds the saved tensors: while it lives, no two of them share an address.
        loss = setting.loss(model, images)
    storages = [parameter.untyped_storage() for parameter in model.parameters()]
    weights = {storage.data_ptr(): storage.nbytes() for storage in storages}
    del loss
    activations = [size for pointer, size in saved.items() if pointer not in weights]
    kept = 2 + MOMENTA[recipe.optimizer]
    return kept * sum(weights.values()) + sum(activations)


def _peak_on_gpu(model: nn.Module, images: Tensor, setting: LatencySetting, recipe: Recipe) -> int:
    trains = optimizer(model, recipe, images.new_zeros(()), setting.bf16)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        setting.loss(model, images).backward()
        trains.step()
        trains.zero_grad()
    return torch.cuda.max_memory_allocated()


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
