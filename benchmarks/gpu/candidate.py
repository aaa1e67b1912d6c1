"""Where a candidate's time goes.

It measures the seconds of each phase, the memory, and the kernels of a step, one by one and in
groups.
"""

import functools
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import EAGER, cuda_graph, settle, stream
from bam_search.score.device import Device, choose
from bam_search.score.measure import Meter
from bam_search.score.step import TrainingStep
from bam_search.search.study import load_study
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import HeldOut, Split
from benchmarks.gpu.parity import images
from benchmarks.gpu.parts import Part, Work

STEPS = 10_000
"""More than are ever taken."""
PROFILED = 3
"""Steps that a profile is the mean of."""
TOP = 40
"""Kernels that a profile names."""
GROUPS = (
    ("compiled", r"triton_"),
    ("batch norm", r"batch_?norm|\bbn_(fw|bw)|::bn_"),
    ("optimizer", r"multi_tensor_apply|fused_?sgd"),
    ("copy", r"memcpy|memset|copy|\bcat_?array|aten::(_to_copy|clone|contiguous)"),
    ("convolution", r"conv|fprop|dgrad|wgrad|winograd|nchw|nhwc"),
    ("matrix product", r"gemm|gemv|nvjet|cublas|cutlass|split_?k|aten::(mm|addmm|bmm|linear)"),
    ("gather", r"index|gather|scatter"),
    ("reduction", r"reduce|softmax|nll_loss|pool|argmax|aten::(sum|mean|max|amax)"),
    (
        "elementwise",
        r"elementwise|foreach|aten::\w*(add|sub|mul|div|relu|sigmoid|threshold|fill|zero|where)",
    ),
)
"""By the first that its name matches, a kernel's group."""
REST = "other"


@dataclass(frozen=True, eq=False)
class Ground:
    """What all candidates of a space share.

    These are the device, the images, and the recipe of the placement study.
    """

    device: Device
    parts: Split
    recipe: Recipe
    context: TrainingContext
    held_out: HeldOut
    test: HeldOut
    tiny: bool


def ground(work: Work, images_of: Split, net: str) -> Ground:
    """The ground on which candidates of a net are measured."""
    device = choose(work.device)
    if device.type == "cuda":
        settle()  # as a worker does
    recipe = load_study("placement", device, {"space": net}, []).recipe
    recipe = recipe.for_size(CIFAR_INPUTS.shape[1:])  # its own epochs say how it augments
    recipe = replace(recipe, epochs=STEPS // max(1, len(images_of.fit) // recipe.batch) or 1)
    context = TrainingContext.of(sources.task(), device, recipe, images_of.fit)
    held_out, test = (
        context.data.held_out(part) for part in (images_of.validation, images_of.test)
    )
    return Ground(device, images_of, recipe, context, held_out, test, work.tiny)


def references(device: str) -> Mapping[str, str]:
    """The pinned placements of the placement study, by name."""
    return load_study("placement", choose(device), {}, []).references


def parts(work: Work) -> list[Part]:
    """The parts of the stage.

    They are the references of ResNet18 phase by phase and kernel by kernel, further placements, and
    other nets.
    """
    prepared = functools.cache(lambda: images(work))
    grounds = functools.cache(lambda net: ground(work, prepared(), net))
    main = work.space("resnet18")
    texts = list(references(work.device).values())
    step_by_step = functools.cache(lambda net, text: kernels(grounds(net), net, text))
    timed, profiled = (
        functools.partial(phase_part, grounds),
        functools.partial(_profile_part, step_by_step),
    )
    first = [timed(main, text) for text in (texts[:2] if work.tiny else texts)]
    first += [profiled(main, text) for text in ("none", "every-block=bam")]
    again = [timed(main, f"layer2=bam(r={r},d=2)") for r in ((4,) if work.tiny else (4, 8, 16, 32))]
    if work.tiny:
        return [*first, *again]
    small = [timed("small", "none"), timed("small", "bottleneck=bam")]
    others = ((main, "every-block=se"), ("resnet50", "none"), ("small", "none"))
    return [*first, *again, *small, *(profiled(net, text) for net, text in others)]


def phase_part(grounds: Callable[[str], Ground], net: str, text: str) -> Part:
    """A placement's phases as a part of a stage."""
    return Part(f"{net} {text}", 60, lambda: phases(grounds(net), net, text))


def _profile_part(step_by_step: Callable[[str, str], "Kernels"], net: str, text: str) -> Part:
    def measure() -> dict[str, Any]:
        own = step_by_step(net, text)
        if text == "none":
            return own.told()
        return {**own.told(), "beside_the_bare_net": own.beyond(step_by_step(net, "none")).told()}

    return Part(f"kernels of {net} {text}", 60, measure)


def phases(on: Ground, net: str, text: str) -> Iterator[dict[str, Any]]:
    """The seconds of each phase, and the speed, as they become known.

    The phases are building, first steps, capture, steps and measuring; the memory comes last.
    """
    kind = on.device.type
    _forget_peak(kind)
    seconds: dict[str, float] = {}
    found: dict[str, Any] = {
        "net": net,
        "placement": text,
        "batch": on.recipe.batch,
        "seconds": seconds,
    }
    with stream(kind):
        step = _begin(on, net, text, seconds)
        yield found
        found["eager_step_ms"] = 1000 * _each(step.step, step, 0.1 if on.tiny else 0.5)
        take = step.step
        if kind == "cuda" and on.recipe.cuda_graph:
            seconds["capture"], take = _clock(kind, lambda: cuda_graph(step.step))
            seconds["first_replay"], _ = _clock(kind, take)
        found["step_ms"] = 1000 * _each(take, step, 0.1 if on.tiny else 1.0)
        found["images_per_s"] = 1000 * on.recipe.batch / found["step_ms"]
        found["to_full_speed_s"] = sum(seconds.values())
        yield found
    found["evaluation"] = _evaluation(on, step.model)
    found["mib"] = _memory(kind)
    yield found


def _begin(on: Ground, net: str, text: str, seconds: dict[str, float]) -> TrainingStep:
    """The step of a new candidate after its first eager calls.

    It writes into `seconds` how long each phase took.
    """
    kind = on.device.type
    space = load(net, CIFAR_INPUTS)
    sites = sites_of(space)
    seconds["build"], model = _clock(kind, lambda: build(space, sites, text, 0))
    seconds["to_device"], _ = _clock(
        kind, functools.partial(model.to, kind, memory_format=torch.channels_last)
    )
    seconds["prepare"], step = _clock(
        kind, lambda: TrainingStep.first(model.train(), on.context, on.recipe)
    )
    seconds["order"], _ = _clock(kind, lambda: step.batches.load(0, 0))
    for number in range(EAGER):
        seconds[f"eager_{number + 1}"], _ = _clock(kind, step.step)
    return step


def _clock(kind: str, work: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of a piece of work, until the device is done with it, and what it gives."""
    _wait(kind)
    began = time.perf_counter()
    value = work()
    _wait(kind)
    return time.perf_counter() - began, value


def _wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()


def _each(take: Callable[[], None], step: TrainingStep, at_least: float) -> float:
    """The seconds of one step, measured over at least so many seconds.

    It waits for the device every ten steps.
    """
    began, taken = time.perf_counter(), 0
    while time.perf_counter() - began < at_least:
        for _ in range(10 if step.context.device.type == "cuda" else 1):
            take()
            taken += 1
        float(step.loss)
    return (time.perf_counter() - began) / taken


def _evaluation(on: Ground, model: nn.Module) -> dict[str, float]:
    """The seconds of measuring the validation images, as after each epoch.

    They are of the first time and of later ones; it also measures 10,000 of the test images.
    """
    kind = on.device.type
    measure = Meter.of(model, on.context, on.held_out, on.recipe.cuda_graph).start()
    first, _ = _clock(kind, measure)
    later = statistics.median(_clock(kind, measure)[0] for _ in range(3))
    test = Meter.of(model, on.context, on.test, on.recipe.cuda_graph).start()
    first_test, _ = _clock(kind, test)
    later_test = statistics.median(_clock(kind, test)[0] for _ in range(3))
    return {
        "images": len(on.parts.validation),
        "first_s": first,
        "later_s": later,
        "images_per_s": len(on.parts.test) / later_test,
        "s_for_10000_first": first_test * 10_000 / len(on.parts.test),
        "s_for_10000": later_test * 10_000 / len(on.parts.test),
    }


def _forget_peak(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _memory(kind: str) -> dict[str, int]:
    if kind != "cuda":
        return {}
    numbers = {
        "allocated": torch.cuda.memory_allocated(),
        "most_allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
    }
    return {name: number >> 20 for name, number in numbers.items()}


@dataclass(frozen=True)
class Kernels:
    """The kernels of one step: calls and microseconds of each, by name."""

    rows: Mapping[str, tuple[float, float]]

    def told(self) -> dict[str, Any]:
        """Groups and the most expensive kernels, for JSON."""
        whole = sum(us for _, us in self.rows.values()) or 1.0
        groups: dict[str, list[float]] = {}
        for name, (calls, us) in self.rows.items():
            row = groups.setdefault(group(name), [0.0, 0.0])
            row[0] += calls
            row[1] += us
        most_expensive = sorted(self.rows.items(), key=lambda row: -row[1][1])
        return {
            "kernels_a_step": round(sum(calls for calls, _ in self.rows.values()), 1),
            "ms_a_step": whole / 1000,
            "groups": {
                name: {"calls": round(calls, 1), "ms": us / 1000, "share": us / whole}
                for name, (calls, us) in sorted(groups.items(), key=lambda row: -row[1][1])
            },
            "top": [
                {
                    "name": name[:160],
                    "group": group(name),
                    "calls": round(calls, 1),
                    "us": round(us, 1),
                    "share": us / whole,
                }
                for name, (calls, us) in most_expensive[:TOP]
            ],
        }

    def beyond(self, other: "Kernels") -> "Kernels":
        """What is more here than there."""
        rows = {}
        for name, (calls, us) in self.rows.items():
            less = other.rows.get(name, (0.0, 0.0))
            if (calls, us) != less:
                rows[name] = (calls - less[0], us - less[1])
        return Kernels(rows)


def group(name: str) -> str:
    """What kind of kernel it is, by its name."""
    return next((kind for kind, pattern in GROUPS if re.search(pattern, name, re.IGNORECASE)), REST)


def kernels(on: Ground, net: str, text: str) -> Kernels:
    """The kernels of an eager step, as torch's profiler sees them.

    Numbers are means of several steps. On a CPU it lists the operators, by their own time.
    """
    kind = on.device.type
    activity = ProfilerActivity.CUDA if kind == "cuda" else ProfilerActivity.CPU
    with stream(kind):
        step = _begin(on, net, text, {})
        with torch.profiler.profile(activities=[activity]) as profile:
            for _ in range(PROFILED):
                step.step()
            _wait(kind)
    spent: dict[str, list[float]] = {}
    for event in profile.events():
        if (us := _microseconds(event, kind)) is not None:
            row = spent.setdefault(event.name, [0.0, 0.0])
            row[0] += 1 / PROFILED
            row[1] += us / PROFILED
    if not spent:
        raise RuntimeError("the profiler saw no kernel")
    return Kernels({name: (calls, us) for name, (calls, us) in spent.items()})


def _microseconds(event: Any, kind: str) -> float | None:
    """The time of a kernel; None for what is none, such as the span of an optimizer's step."""
    if kind != "cuda":
        return event.self_cpu_time_total if event.name.startswith("aten::") else None
    if event.device_type.name != "CUDA" or event.is_user_annotation:
        return None
    return event.time_range.elapsed_us()
