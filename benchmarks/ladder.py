"""From the usual loop to the engine, one change at a time: images a second of training the bare net, and the machine's own bound."""

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.bench import Bench
from bam_search.score.compiled import compiled
from bam_search.score.cost import count
from bam_search.score.data import CIFAR_INPUTS, Images
from bam_search.score.device import MEMORY, Device, choose, cores, threads_each
from bam_search.score.recipe import Recipe
from bam_search.score.train import train as engine_train
from benchmarks import usual_loop
from benchmarks.arms import Setting
from benchmarks.results import say, spread

T = TypeVar("T")


@dataclass(frozen=True)
class Rung:
    """A loop on the way from the usual one to the engine, or the engine with one thing changed."""

    on_device: bool = False
    no_item: bool = False
    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    engine: bool = False
    cuda_graph: bool = False
    compile: bool = False
    autotune: bool = False


STEPS = {
    "usual loop": Rung(),
    "images on the device, cropped and flipped in batches": Rung(on_device=True),
    "no .item() each step": Rung(on_device=True, no_item=True),
    "channels-last": Rung(on_device=True, no_item=True, channels_last=True),
    "bf16": Rung(on_device=True, no_item=True, channels_last=True, bf16=True),
    "fused optimizer": Rung(on_device=True, no_item=True, channels_last=True, bf16=True, fused=True),
}
ENGINE = "the engine"
LADDER = {
    "cpu": {**STEPS, ENGINE: Rung(engine=True)},
    "cuda": {
        **STEPS,
        "the engine without a CUDA graph": Rung(engine=True),
        ENGINE: Rung(engine=True, cuda_graph=True),
        "the engine, blocks compiled": Rung(engine=True, cuda_graph=True, compile=True),
        "the engine, cuDNN choosing by trial": Rung(engine=True, cuda_graph=True, autotune=True),
    },
}
TOGETHER = {
    "cpu": {"the engine, one single-thread process a core": cores()},
    "cuda": {f"the engine, {n} processes on one GPU": n for n in (2, 4, 8)},
}
"""The engine in several processes at once, as `--workers` has them."""
SERVED = {f"{name}, under MPS": n for name, n in TOGETHER["cuda"].items()}
"""The same where NVIDIA's Multi-Process Service lets kernels of several processes run at once."""
MPS = "nvidia-cuda-mps-control"
IMAGES = {"cpu": 4096, "cuda": 20_000}


def ladder(setting: Setting, rounds: int) -> dict[str, dict[str, float]]:
    """Images a second, each rung in turn."""
    rungs, together = LADDER[setting.device], TOGETHER[setting.device]
    served = SERVED if setting.device == "cuda" and shutil.which(MPS) else {}
    speeds: dict[str, list[float]] = {name: [] for name in (*rungs, *together, *served)}
    images = setting.some(IMAGES[setting.device])
    for _ in range(rounds):
        for name, rung in rungs.items():
            speeds[name].append(alone(speed, setting, rung, images, cores()))
        for name, processes in together.items():
            speeds[name].append(_together(setting, images, processes))
        for name, processes in served.items():
            with _service():
                speeds[name].append(_together(setting, images, processes))
        say("  ".join(f"{values[-1]:,.0f}" for values in speeds.values()))
    return {name: spread(values) for name, values in speeds.items()}


def best(found: dict[str, dict[str, float]], device: str) -> tuple[float, int]:
    """The most images a second of the engine as it is, and the processes that reach it."""
    packed = {ENGINE: 1, **TOGETHER[device]}
    fastest = max(packed, key=lambda name: found[name]["median"])
    return found[fastest]["median"], packed[fastest]


@contextlib.contextmanager
def _service() -> Iterator[None]:
    """NVIDIA's Multi-Process Service, for processes that are started within the context."""
    with tempfile.TemporaryDirectory() as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ.update(places)
        try:
            subprocess.run([MPS, "-d"], check=True)
            yield
        finally:
            subprocess.run([MPS], input="quit\n", text=True, check=False)
            for name in places:
                del os.environ[name]


def alone(function: Callable[..., T], *args: object) -> T:
    """In a fresh process, which has the machine to itself."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _together(setting: Setting, images: Images, processes: int) -> float:
    """Processes that start as the engine's workers do."""
    before = dict(os.environ)
    os.environ.update(MEMORY)
    try:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            rung = LADDER[setting.device][ENGINE]
            futures = [pool.submit(speed, setting, rung, images, threads_each(processes)) for _ in range(processes)]
            return sum(future.result() for future in futures)
    finally:
        for name in MEMORY.keys() - before.keys():
            del os.environ[name]


def speed(setting: Setting, rung: Rung, images: Images, threads: int) -> float:
    """Images a second, over an epoch after one that warms up; of the engine on a GPU over four, as they are short."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = rung.autotune
    study, device = setting.study(), choose(setting.device)
    space = load(study.space, CIFAR_INPUTS)
    sites = sites_of(space)
    net = build(space, sites, "none", 0)
    recipe = replace(study.recipe, epochs=1, augment="crop-flip", cuda_graph=rung.cuda_graph)
    if rung.engine:
        epochs = 4 if device.type == "cuda" else 1
        with compiled(net, sites.blocks) if rung.compile else contextlib.nullcontext():
            return epochs * len(images) / _seconds(net, images, replace(recipe, epochs=1 + epochs), device)
    run = runner(net, rung, images, recipe, device, setting.workers)
    run()
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return len(images) / (time.perf_counter() - started)


def _seconds(net: nn.Module, images: Images, recipe: Recipe, device: Device) -> float:
    """What the engine takes for all epochs but the first, in which it compiles and captures."""
    bench, ends = Bench.of(device, recipe, images), []
    model = net.to(device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def tell() -> float:
        ends.append(time.perf_counter())
        return 0.0

    engine_train(model, bench, recipe, 0, tell)
    return ends[-1] - ends[0]


def runner(net: nn.Module, rung: Rung, images: Images, recipe: Recipe, device: Device, workers: int = 0) -> Callable[[], object]:
    """An epoch of a loop that is not the engine's."""
    if rung.on_device:
        return lambda: _batched(net, rung, images, recipe, device)
    few = images.take(slice(0, 256))  # type: ignore[arg-type]
    return lambda: usual_loop.train(net, images, few, recipe, device.type, workers)


def _batched(net: nn.Module, rung: Rung, images: Images, recipe: Recipe, device: Device) -> None:
    """The usual loop with images on the device, and the changes of a rung."""
    layout = torch.channels_last if rung.channels_last else torch.contiguous_format
    net.to(device.type, memory_format=layout).train()  # type: ignore[call-overload]
    pixels = functional.pad(torch.from_numpy(images.x), (0, 0, 4, 4, 4, 4)).to(device.type)
    labels = torch.from_numpy(images.y).to(device.type)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=rung.fused)
    running = 0.0
    side = torch.arange(32, device=device.type)
    for index in torch.randperm(len(images), device=device.type).split(recipe.batch):
        rows, columns = (torch.randint(0, 9, (len(index), 1), device=device.type) + side for _ in range(2))
        columns = torch.where(torch.rand((len(index), 1), device=device.type) < 0.5, columns.flip(1), columns)
        x = pixels[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).float().div(255)
        with torch.autocast(device.type, torch.bfloat16, enabled=rung.bf16):
            logits = net(x.contiguous(memory_format=layout))
        loss = functional.cross_entropy(logits.float(), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += 0.0 if rung.no_item else loss.item()


def bound(setting: Setting, images_per_s: float) -> dict[str, float]:
    """The most images a second that the machine's own rates allow, and the share of it that was reached.

    A training image takes three times the forward pass's multiply-adds, and moves at least what its convolutions and linear layers read
    and write in three passes, at two bytes a number.
    """
    net = load(setting.net, CIFAR_INPUTS).backbone(100)
    macs = 3 * count(net, (3, 32, 32)).macs_conv_fc
    moved = 3 * 2 * sum(numbers(net))
    product, copied = alone(_product_rate, setting.device), alone(_copy_rate, setting.device)
    most = 1 / max(macs / product, moved / copied)
    return {
        "macs_per_image": macs,
        "bytes_per_image": moved,
        "macs_per_s": product,
        "bytes_per_s": copied,
        "images_per_s": most,
        "share_reached": images_per_s / most,
    }


def numbers(net: nn.Module) -> list[int]:
    """What each convolution and linear layer reads and writes for one image."""
    seen: list[int] = []
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _module, args, output: seen.append(args[0].numel() + output.numel()))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 32, 32))
    return seen


def _product_rate(device: str) -> float:
    """Multiply-adds a second of a bf16 matrix product, the best of several."""
    kind = torch.bfloat16 if choose(device).bf16 else torch.float32
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    return n**3 / _least(lambda: a @ b, device)


def _copy_rate(device: str) -> float:
    """Bytes a second, read and written, of a copy: the best of several."""
    a = torch.zeros(2**28, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / _least(lambda: b.copy_(a), device)


def _least(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(8):
        _wait(choose(device))
        started = time.perf_counter()
        work()
        _wait(choose(device))
        times.append(time.perf_counter() - started)
    return min(times)


def _wait(device: Device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
