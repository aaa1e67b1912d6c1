"""The trial engine against the usual loop (`benchmarks/usual_loop.py`): candidates an hour, images a second, and what each step adds.

    python -m benchmarks.engine --data cifar100.npz [--device cpu] [--images 10000] [--rounds 3] [--out FILE.json]

Candidates: both arms train the references of the placement study with its recipe on the same images and the same seeds, as many trainings
as that study has candidates, each arm a fresh process whose whole time counts, the arms in turn, other seeds each round; the usual loop has
as many DataLoader workers as make it fastest here. Ladder: from the usual loop to the engine, one change at a time, images a second of
training alone, in turn. Bound: the multiply-adds and the least
bytes of a training image over the rates that a matrix product and a copy reach in the same run. Around: what a candidate costs beside
its training, when 1,000 records are told.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.cost import count
from bam_search.score.data import CIFAR_INPUTS, Images, Split, locate, split
from bam_search.score.device import Device, choose, cores, threads_each
from bam_search.score.evaluate import Job, Task
from bam_search.score.recipe import Recipe
from bam_search.score.train import Bench
from bam_search.score.train import train as engine_train
from bam_search.search.executors import local
from bam_search.search.loop import search
from bam_search.search.store import open_store
from bam_search.search.study import Study, load_study
from benchmarks import usual_loop
from benchmarks.invented import at_once, invented
from benchmarks.results import deliver

SEEDS = 4
"""Of each reference in a process: as many trainings as the study has candidates, so that starting a process weighs what it weighs there."""
NETS = {"cpu": ("small",), "cuda": ("small", "resnet18", "resnet50")}


@dataclass(frozen=True)
class Setting:
    """What both arms share; `seed` is the round."""

    data: str
    device: str
    net: str
    images: int
    seed: int
    workers: int = 0  # of the usual loop's DataLoader

    def study(self) -> Study:
        """The placement study on this net, with the usual loop's batches: then both arms take the same steps."""
        flags = {"space": self.net, "data": {"images": self.images}, "seed": self.seed, "recipe": {"batch": usual_loop.BATCH}}
        return load_study("placement", choose(self.device), flags, [])

    def split(self) -> Split:
        """The images, split by the first seed, whatever this one is."""
        study = self.study()
        return split(locate(self.data).load(), study.data.limit, study.data.validation, seed=0)


def ours(setting: Setting) -> list[float]:
    """The validation errors of the references, trained by the engine as a study trains them."""
    study = setting.study()
    sites = sites_of(load(study.space, CIFAR_INPUTS))
    device = choose(setting.device)
    task = Task(study.space, sites, setting.split(), study.recipe, device, threads_each(study.workers))
    with local(task, study.workers, "") as submit:
        futures = [submit(Job(text, seed, study.recipe.epochs)) for seed, text in _trainings(study, setting)]
        results = [future.result() for future in futures]
    return [result.score.error for result in results if result.score]


def usual(setting: Setting) -> list[float]:
    """The same by the usual loop, one after the other, with all cores."""
    study, parts = setting.study(), setting.split()
    space = load(study.space, CIFAR_INPUTS)
    sites = sites_of(space)
    models = (build(space, sites, text, seed) for seed, text in _trainings(study, setting))
    return [
        usual_loop.train(net, parts.fit, parts.validation, study.recipe, choose(setting.device).type, setting.workers) for net in models
    ]


def _trainings(study: Study, setting: Setting) -> list[tuple[int, str]]:
    """Seeds and placements."""
    return [(SEEDS * setting.seed + seed, text) for seed in range(SEEDS) for text in study.references.values()]


ARMS: dict[str, Callable[[Setting], list[float]]] = {"ours": ours, "usual": usual}


def with_best_workers(setting: Setting) -> Setting:
    """The number of DataLoader workers with which the usual loop is fastest here: on two cores none, as they take the trainer's time."""
    images = setting.split().fit.take(slice(0, 4096))  # type: ignore[arg-type]
    tried = [replace(setting, workers=n) for n in sorted({0, 1, cores() // 2, cores()})]
    speeds = {s.workers: _alone(_speed, s, Rung(), images, cores()) for s in tried}
    _say(f"the usual loop, images/s by DataLoader workers: { {n: round(speed) for n, speed in speeds.items()} }")
    return replace(setting, workers=max(speeds, key=lambda n: speeds[n]))


def candidates(setting: Setting, rounds: int) -> dict[str, Any]:
    """Both arms in turn, each a process of its own."""
    taken: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(rounds):
        for arm in ARMS:
            started = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "benchmarks.engine",
                "--arm",
                arm,
                "--setting",
                json.dumps(asdict(replace(setting, seed=seed))),
            ]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds = time.perf_counter() - started
            taken[arm].append({**done, "seconds": seconds, "candidates_per_hour": 3600 * len(done["errors"]) / seconds})
            _say(f"{arm:6} seed {seed}: {taken[arm][-1]['candidates_per_hour']:8.1f} candidates/hour, errors {done['errors']}")
    ratios = [a["candidates_per_hour"] / b["candidates_per_hour"] for a, b in zip(taken["ours"], taken["usual"], strict=True)]
    return {
        "candidates_per_hour_ratio": _spread(ratios),
        "candidates_per_hour": {arm: _spread([run["candidates_per_hour"] for run in runs]) for arm, runs in taken.items()},
        "error_ours": _spread([error for run in taken["ours"] for error in run["errors"]]),
        "error_usual": _spread([error for run in taken["usual"] for error in run["errors"]]),
        "error_difference_paired": _spread(_differences(taken["ours"], taken["usual"])),
        "largest_process_mib": {arm: max(run["largest_process_mib"] for run in runs) for arm, runs in taken.items()},
        "runs": taken,
    }


def _differences(ours: list[dict[str, Any]], usual: list[dict[str, Any]]) -> list[float]:
    return [a - b for one, other in zip(ours, usual, strict=True) for a, b in zip(one["errors"], other["errors"], strict=True)]


@dataclass(frozen=True)
class Rung:
    """A loop on the way from the usual one to the engine."""

    on_device: bool = False
    no_item: bool = False
    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    engine: bool = False


LADDER = {
    "usual loop": Rung(),
    "images on the device, cropped and flipped in batches": Rung(on_device=True),
    "no .item() each step": Rung(on_device=True, no_item=True),
    "channels-last": Rung(on_device=True, no_item=True, channels_last=True),
    "bf16": Rung(on_device=True, no_item=True, channels_last=True, bf16=True),
    "fused optimizer": Rung(on_device=True, no_item=True, channels_last=True, bf16=True, fused=True),
    "the engine": Rung(engine=True),
}
TOGETHER = {
    "cpu": {"the engine, one single-thread process a core": cores()},
    "cuda": {f"the engine, {n} processes on one GPU": n for n in (2, 4, 8)},
}
"""The engine in several processes at once, as `--workers` has them."""


def ladder(setting: Setting, rounds: int) -> dict[str, Any]:
    """Images a second of training the bare net, each rung in turn."""
    together = TOGETHER[setting.device]
    speeds: dict[str, list[float]] = {name: [] for name in (*LADDER, *together)}
    images = setting.split().fit.take(slice(0, 4096))  # type: ignore[arg-type]
    for _ in range(rounds):
        for name, rung in LADDER.items():
            speeds[name].append(_alone(_speed, setting, rung, images, cores()))
        for name, processes in together.items():
            speeds[name].append(_together(setting, images, processes))
        _say("  ".join(f"{values[-1]:,.0f}" for values in speeds.values()))
    return {name: _spread(values) for name, values in speeds.items()}


def _alone(function: Callable[..., float], *args: object) -> float:
    """In a fresh process, which has the machine to itself."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _together(setting: Setting, images: Images, processes: int) -> float:
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_speed, setting, Rung(engine=True), images, threads_each(processes)) for _ in range(processes)]
        return sum(future.result() for future in futures)


def _speed(setting: Setting, rung: Rung, images: Images, threads: int) -> float:
    """Images a second, over an epoch after one that warms up."""
    torch.set_num_threads(threads)
    study, device = setting.study(), choose(setting.device)
    space = load(study.space, CIFAR_INPUTS)
    net = build(space, sites_of(space), "none", 0)
    recipe = replace(study.recipe, epochs=1, augment="crop-flip")
    run = _runner(net, rung, images, recipe, device, setting.workers)
    run()
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return len(images) / (time.perf_counter() - started)


def _runner(net: nn.Module, rung: Rung, images: Images, recipe: Recipe, device: Device, workers: int = 0) -> Callable[[], object]:
    if rung.engine:
        bench = Bench.of(device, recipe, images)
        model = net.to(device.type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return lambda: engine_train(model, images, recipe, 0, bench)
    if not rung.on_device:
        few = images.take(slice(0, 256))  # type: ignore[arg-type]
        return lambda: usual_loop.train(net, images, few, recipe, device.type, workers)
    return lambda: _batched(net, rung, images, recipe, device)


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
    moved = 3 * 2 * sum(_numbers(net))
    product, copied = _alone(_product_rate, setting.device), _alone(_copy_rate, setting.device)
    most = 1 / max(macs / product, moved / copied)
    return {
        "macs_per_image": macs,
        "bytes_per_image": moved,
        "macs_per_s": product,
        "bytes_per_s": copied,
        "images_per_s": most,
        "share_reached": images_per_s / most,
    }


def _numbers(net: nn.Module) -> list[int]:
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
    return n**3 / _best(lambda: a @ b, device)


def _copy_rate(device: str) -> float:
    """Bytes a second, read and written, of a copy: the best of several."""
    a = torch.zeros(2**28, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / _best(lambda: b.copy_(a), device)


def _best(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(8):
        _wait(choose(device))
        started = time.perf_counter()
        work()
        _wait(choose(device))
        times.append(time.perf_counter() - started)
    return min(times)


def around(records: int = 1000) -> dict[str, Any]:
    """Milliseconds a candidate takes beside its training, with `records` told: the loop of a study whose trainings take no time."""
    study, plan = invented(records + 20, startup=records)
    space = load(study.space, CIFAR_INPUTS)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "study", {}, study.objectives)
        search(study, plan, store, at_once, lambda _record: ends.append(time.perf_counter()))
    gaps = [1000 * (b - a) for a, b in zip(ends[-20:], ends[-19:], strict=False)]
    started = time.perf_counter()
    for _ in range(5):
        build(space, plan.sites, "bottleneck=bam", 0)
    return {"records": records, "ask_count_tell_write_ms": _spread(gaps), "build_ms": 1000 * (time.perf_counter() - started) / 5}


def _wait(device: Device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "mean": statistics.mean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "least": min(values),
        "most": max(values),
        "n": len(values),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arm(name: str, setting: Setting) -> None:
    errors = ARMS[name](setting)
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"errors": errors, "largest_process_mib": most / 1024}))
    sys.stdout.flush()
    os._exit(0)  # worker processes of either arm do not hold the clock


def main() -> None:
    """Measure everything, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        _arm(asked.arm, Setting(**json.loads(asked.setting)))
    device = choose(asked.device)
    found: dict[str, Any] = {"device": device.name, "bf16": device.bf16, "cores": cores(), "torch": torch.__version__}
    found |= {"python": platform.python_version(), "images": asked.images, "nets": {}}
    for net in NETS[asked.device]:
        setting = with_best_workers(Setting(asked.data, asked.device, net, asked.images, 0))
        rungs = ladder(setting, asked.rounds)
        best = max(rungs[name]["median"] for name in (*TOGETHER[asked.device], "the engine"))
        compared = candidates(setting, asked.rounds)
        found["nets"][net] = {
            **compared,
            "usual_loop_workers": setting.workers,
            "ladder_images_per_s": rungs,
            "bound": bound(setting, best),
        }
    found["around_training"] = around()  # on the CPU, whatever the device
    deliver(found, asked.out)


if __name__ == "__main__":
    main()
