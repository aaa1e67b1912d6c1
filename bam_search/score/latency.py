"""The measured time of a model, as a ratio to its backbone's, and the memory of a training step.

As trained, a batch runs channels-last, under bfloat16 autocast where the recipe has it. As
deployed, one image runs at a time, in float32, on one CPU thread, with batch normalisations folded
into the convolutions before them. Both run in eval mode, on a GPU as one CUDA graph.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from bam_search.model.arguments import main_tensor
from bam_search.model.detector import example_targets, is_detector
from bam_search.score.cuda_graphs import EAGER, cuda_graph, stream
from bam_search.score.device import Device, on_device, using_threads
from bam_search.score.optimizers import MOMENTA, optimizer
from bam_search.tasks.outputs import OneTensor, Outputs
from bam_search.tasks.recipe import Recipe

ONE_TENSOR = OneTensor(())
PAIRS, DEPLOYED_PAIRS = 30, 300
"""How often a model and its backbone are timed in turn; one image takes less, and varies more."""
SECONDS, LEAST = 5.0, 7
"""A measurement of models ends after so many seconds, once each has run so many times."""


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
    `cuda_graph` are as the recipe has them. On a CPU an operator has so many `threads`; 0 leaves
    torch's number. `outputs` calls the model as its task does.
    `is_deployed`: batch normalisations are folded, and memory has torch's own layout.
    """

    device: Device
    input_shape: tuple[int, ...]
    batch: int
    bf16: bool
    cuda_graph: bool = True
    threads: int = 0
    outputs: Outputs = ONE_TENSOR
    is_deployed: bool = False

    @property
    def deployed(self) -> "LatencySetting":
        """The same device and images as a model is deployed: see this module's first lines.

        float32 and the layout are those of what `export` writes. One thread is what every CPU has,
        and its own clock does not count what others do on the machine.
        """
        return replace(self, batch=1, bf16=False, threads=1, is_deployed=True)

    @property
    def pairs(self) -> int:
        """How often a model and its backbone should be timed in turn."""
        return DEPLOYED_PAIRS if self.is_deployed else PAIRS

    def forward(self, net: nn.Module, images: Tensor) -> Any:
        """What the model puts out for the images."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.outputs.returned(net, images, training=False)

    def loss(self, net: nn.Module, images: Tensor) -> Tensor:
        """A loss that keeps one number for each output, as the losses of tasks do.

        What a model adds in training is left out. A detector has losses of its own; here each image
        has one object. Raises ValueError if another model puts out no tensor.
        """
        if not is_detector(net):
            output = main_tensor(self.forward(net, images))
            if output is None:
                raise ValueError("the model returns no tensor")
            return output.float().square().mean()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses: dict[str, Tensor] = net(images, example_targets(images))
        return torch.stack(list(losses.values())).sum()

    def placed(self, net: nn.Module) -> nn.Module:
        """The model on the device, in the setting's layout."""
        return on_device(net, self.device.type, self._layout)

    def ready(self, nets: Sequence[nn.Module]) -> list[nn.Module]:
        """The models on the device in eval mode, folded if the setting says so: all or none."""
        placed = [self.placed(net).eval() for net in nets]
        return folded(placed) if self.is_deployed else placed

    def images(self) -> Tensor:
        """Black images on the device, in the setting's layout."""
        return self.map_of(self.input_shape)

    def map_of(self, shape: Sequence[int]) -> Tensor:
        """Zeros (batch, *shape) on the device, in the setting's layout if they are (B, C, H, W)."""
        zeros = torch.zeros(self.batch, *shape, device=self.device.type)
        return zeros.contiguous(memory_format=self._layout) if zeros.dim() == 4 else zeros

    @property
    def _layout(self) -> torch.memory_format:
        return torch.contiguous_format if self.is_deployed else torch.channels_last

    @contextlib.contextmanager
    def running(self, base: nn.Module) -> Iterator[None]:
        """The context in which `base`, the backbone, is timed, and what it is compared with."""
        threads = using_threads(self.threads) if self.threads else contextlib.nullcontext()
        # A detector keeps its anchors, and could not be trained with tensors of the inference mode.
        without = torch.no_grad if is_detector(base) else torch.inference_mode
        with threads, without(), stream(self.device.type):
            yield


def folded(nets: Sequence[nn.Module]) -> list[nn.Module]:
    """Copies with batch normalisations folded into the convolutions before them.

    All in eval mode; if torch.fx cannot trace one of them, these models themselves. A normalisation
    with attention on it stays, as its class is its own (see `bam_search.model.site_class`).
    """
    try:
        return [fuse(net) for net in nets]
    except Exception:  # a user's model can raise anything where its values are not known yet
        return list(nets)


def latency(model: nn.Module, base: nn.Module, setting: LatencySetting, pairs: int = 0) -> Latency:
    """The latency of `model` against the backbone `base`, in eval mode.

    Model and backbone run in turn after a warm-up of both: `pairs` times (0: the setting's), and
    fewer, but LEAST at least, of models that take SECONDS for that. On a GPU its events measure the
    time, on one CPU thread the thread's own clock.

    Raises NotOneGraph for a model that cannot be one CUDA graph where the setting has that, and
    torch's own errors.
    """
    nets = setting.ready([model, base])
    with setting.running(base):
        times = times_in_turn(
            [timer(net, setting.images(), setting) for net in nets], pairs or setting.pairs
        )
    ratios = times[:, 0] / times[:, 1]
    resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(resampled, axis=1), (0.025, 0.975))
    return Latency(float(np.median(ratios)), float(low), float(high), len(ratios), setting.batch)


def times_in_turn(timers: Sequence[Callable[[], float]], rounds: int) -> np.ndarray:
    """(rounds, timers): the seconds of each; see `latency` for `rounds`.

    They run one after the other, and back in the next round, so that none is always the first.
    """
    times = np.empty((rounds, len(timers)))
    began = time.perf_counter()
    for i in range(rounds):
        for j in list(range(len(timers)))[:: 1 if i % 2 else -1]:
            times[i, j] = timers[j]()
        if i + 1 >= LEAST and time.perf_counter() - began > SECONDS:
            return times[: i + 1]
    return times


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


def timer(net: nn.Module, inputs: Tensor, setting: LatencySetting) -> Callable[[], float]:
    """A function that runs the model once and gives the seconds that it took; it is warm."""

    def run() -> None:
        setting.forward(net, inputs)

    for _ in range(EAGER):
        run()
    if setting.device.type != "cuda":
        # One thread's own clock stands still where the machine does something else.
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        return lambda: _seconds(run, clock)
    replay = cuda_graph(run) if setting.cuda_graph else run
    return lambda: _device_seconds(replay)


def _seconds(run: Callable[[], None], clock: Callable[[], float]) -> float:
    started = clock()
    run()
    return clock() - started


def _device_seconds(run: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
