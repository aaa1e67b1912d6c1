"""From the usual loop to the engine, one change at a time.

It measures images a second of training the bare net, and the machine's own bound.
"""

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from queue import Empty
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.processes import MEMORY, cores
from bam_search.score.context import TrainingContext
from bam_search.score.cost import count
from bam_search.score.cuda_graphs import stream
from bam_search.score.device import Device, choose, threads_each
from bam_search.score.evaluate import faster
from bam_search.score.step import TrainingStep
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.images import Images
from bam_search.tasks.recipe import Recipe
from benchmarks import usual_loop
from benchmarks.arms import Setting
from benchmarks.results import say, spread
from benchmarks.traffic import traffic

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
    fuse: bool = False
    autotune: bool = False
    muon: bool = False


STEPS = {
    "usual loop": Rung(),
    "images on the device, cropped and flipped in batches": Rung(on_device=True),
    "no .item() each step": Rung(on_device=True, no_item=True),
    "channels-last": Rung(on_device=True, no_item=True, channels_last=True),
    "bf16": Rung(on_device=True, no_item=True, channels_last=True, bf16=True),
    "fused optimizer": Rung(
        on_device=True, no_item=True, channels_last=True, bf16=True, fused=True
    ),
}
ENGINE = "the engine"
LADDER = {
    "cpu": {**STEPS, ENGINE: Rung(engine=True)},
    "cuda": {
        **STEPS,
        "the engine without a CUDA graph": Rung(engine=True),
        ENGINE: Rung(engine=True, cuda_graph=True),
        "the engine, blocks compiled": Rung(engine=True, cuda_graph=True, compile=True),
        "the engine, fused": Rung(engine=True, cuda_graph=True, fuse=True),
        "the engine, cuDNN choosing by trial": Rung(engine=True, cuda_graph=True, autotune=True),
        "the engine, Muon": Rung(engine=True, cuda_graph=True, muon=True),
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
EPOCHS, AT_LEAST = 1000, {"cpu": 0.0, "cuda": 3.0}
"""More epochs than are ever trained, and the least seconds over which a speed is measured."""


def ladder(setting: Setting, rounds: int) -> dict[str, dict[str, float]]:
    """Images a second, each rung in turn. What cannot run here is left out, and stderr says why."""
    rungs = _rungs(setting)
    speeds: dict[str, list[float]] = {name: [] for name in rungs}
    for _ in range(rounds):
        for name, run in rungs.items():
            try:
                speeds[name].append(run())
            except Exception as error:
                # A rung may not run here, for example without a compiler; the others still do.
                say(f"{name}: {type(error).__name__}: {error}")
        last = [f"{values[-1]:,.0f}" if values else "-" for values in speeds.values()]
        say("  ".join(last))
    return {name: spread(values) for name, values in speeds.items() if values}


def _rungs(setting: Setting) -> dict[str, Callable[[], float]]:
    """The rungs that the device has: name -> a function that measures images a second."""
    rungs: dict[str, Callable[[], float]] = {}
    images = setting.some(IMAGES[setting.device])
    for name, rung in LADDER[setting.device].items():
        rungs[name] = partial(alone, speed, setting, rung, images, cores())
    for name, processes in TOGETHER[setting.device].items():
        rungs[name] = partial(together, setting, images, processes)
    if setting.device == "cuda" and shutil.which(MPS):
        for name, processes in SERVED.items():
            rungs[name] = partial(_served, setting, images, processes)
    return rungs


@dataclass(frozen=True)
class Best:
    """The most images a second of the engine as it is.

    With it come the number of processes that reach it, and whether they need MPS.
    """

    images_per_s: float
    processes: int
    mps: bool


def best(found: Mapping[str, Mapping[str, float]], device: str) -> Best:
    """The fastest way to run the engine as it is, among those that were measured."""
    plain = {ENGINE: 1, **TOGETHER[device]}
    ways = [(name, n, False) for name, n in plain.items()] + [
        (name, n, True) for name, n in SERVED.items()
    ]
    return max(
        (Best(found[name]["median"], n, mps) for name, n, mps in ways if name in found),
        key=lambda way: way.images_per_s,
    )


def _served(setting: Setting, images: Images, processes: int) -> float:
    with service():
        return together(setting, images, processes)


@contextlib.contextmanager
def service() -> Iterator[None]:
    """NVIDIA's Multi-Process Service, for processes that are started within the context."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        environment({"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}),
    ):
        try:
            subprocess.run([MPS, "-d"], check=True)
            yield
        finally:
            subprocess.run([MPS], input="quit\n", text=True, check=False)


@contextlib.contextmanager
def environment(more: Mapping[str, str]) -> Iterator[None]:
    """Variables that processes have which are started within the context."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def alone(function: Callable[..., T], *args: object) -> T:
    """In a fresh process, which has the machine to itself."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def together(setting: Setting, images: Images, processes: int) -> float:
    """Images a second of the engine in several processes, which start as its workers do.

    It is their sum over a time in which all of them train.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(processes), spawn.Queue()
    args = (barrier, queue, setting, images, threads_each(processes))
    with environment(MEMORY):
        started = [spawn.Process(target=_beside, args=args) for _ in range(processes)]
        for process in started:
            process.start()
    speeds: list[float] = []
    while len(speeds) < processes:
        try:
            speeds.append(queue.get(timeout=5))
        except Empty:
            if any(process.exitcode for process in started):
                barrier.abort()
                raise RuntimeError("a process of several ended") from None
    return sum(speeds)


def _beside(
    barrier: Barrier, queue: "Queue[float]", setting: Setting, images: Images, threads: int
) -> None:
    queue.put(speed(setting, LADDER[setting.device][ENGINE], images, threads, barrier.wait))


def speed(
    setting: Setting,
    rung: Rung,
    images: Images,
    threads: int,
    ready: Callable[[], object] = lambda: None,
) -> float:
    """Images a second over whole epochs.

    One epoch before warms up, compiles and captures; then `ready` is called.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = rung.autotune
    study, device = setting.study(), choose(setting.device)
    space = load(study.space, CIFAR_INPUTS)
    sites = sites_of(space)
    net = build(space, sites, "none", 0)
    recipe = replace(study.recipe, epochs=EPOCHS, augment="crop-flip", cuda_graph=rung.cuda_graph)
    recipe = replace(recipe, compile=rung.compile, fuse=rung.fuse)
    if rung.muon:
        recipe = replace(recipe, optimizer="muon")
    with faster(net, sites.blocks, recipe):
        epochs = trained(net, rung, images, recipe, device, setting.workers)
        next(epochs)
        ready()
        started, n = time.perf_counter(), 0
        while n == 0 or time.perf_counter() - started < AT_LEAST[device.type]:
            next(epochs)
            n += 1
        return n * len(images) / (time.perf_counter() - started)


def trained(
    net: nn.Module, rung: Rung, images: Images, recipe: Recipe, device: Device, workers: int = 0
) -> Iterator[object]:
    """Train the net as the rung does, an epoch at a time.

    Each epoch ends when the device is done with it.
    """
    if rung.engine:
        return _engine(net, images, recipe, device)
    if rung.on_device:
        return _batched(net, rung, images, recipe, device)
    return usual_loop.epochs(net, images, recipe, device.type, workers)


def _engine(net: nn.Module, images: Images, recipe: Recipe, device: Device) -> Iterator[object]:
    context = TrainingContext.of(sources.task(), device, recipe, images)
    model = net.to(device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with stream(device.type):
        step = TrainingStep.first(model.train(), context, recipe)
        take = step.make_step()
        for epoch in range(recipe.epochs):
            step.batches.load(0, epoch)
            for number in range(len(step.batches)):
                step.batches.ready(number)
                take()
            yield float(step.loss)


def _batched(
    net: nn.Module, rung: Rung, images: Images, recipe: Recipe, device: Device
) -> Iterator[object]:
    """The usual loop with images on the device, and the changes of a rung."""
    layout = torch.channels_last if rung.channels_last else torch.contiguous_format
    net.to(device.type, memory_format=layout).train()  # type: ignore[call-overload]
    pixels = functional.pad(torch.from_numpy(images.x), (0, 0, 4, 4, 4, 4)).to(device.type)
    labels = torch.from_numpy(images.y).to(device.type)
    optimizer = torch.optim.SGD(
        net.parameters(),
        recipe.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        fused=rung.fused,
    )
    side = torch.arange(32, device=device.type)
    for _ in range(recipe.epochs):
        running = torch.zeros((), device=device.type)
        for index in torch.randperm(len(images), device=device.type).split(recipe.batch):
            rows, columns = (
                torch.randint(0, 9, (len(index), 1), device=device.type) + side for _ in range(2)
            )
            columns = torch.where(
                torch.rand((len(index), 1), device=device.type) < 0.5, columns.flip(1), columns
            )
            x = (
                pixels[index[:, None, None], rows[:, :, None], columns[:, None, :]]
                .permute(0, 3, 1, 2)
                .float()
                .div(255)
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=rung.bf16):
                logits = net(x.contiguous(memory_format=layout))
            loss = functional.cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.detach() if rung.no_item else loss.item()
        yield float(running)


def bound(setting: Setting, images_per_s: float) -> dict[str, float]:
    """The most images a second that the machine's own rates allow.

    With it comes the share that was reached.

    A training image takes three times the forward pass's multiply-adds, and moves at least what its
    convolutions and linear layers read and write in three passes, at two bytes a number. "unfused"
    and "fused" tell of all operators, one by one and with `recipe.fuse` (`benchmarks/traffic.py`).
    """
    product, copied = alone(_product_rate, setting.device), alone(_copy_rate, setting.device)
    net = load(setting.net, CIFAR_INPUTS).backbone(100)
    passes = traffic(net, copied)
    macs = 3 * count(net, (3, 32, 32)).macs_conv_fc
    moved = 3 * 2 * sum(numbers(net))
    most = 1 / max(macs / product, moved / copied)
    return {
        "macs_per_image": macs,
        "bytes_per_image": moved,
        **passes,
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
            module.register_forward_hook(
                lambda _module, args, output: seen.append(args[0].numel() + output.numel())
            )
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
    a = torch.zeros(2**32 if device == "cuda" else 2**28, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / _least(lambda: b.copy_(a), device)


def _least(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return min(times)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
