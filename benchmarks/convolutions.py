"""What of a step on a CPU its convolutions take, and how near they are to the machine's rate.

    python -m benchmarks.convolutions [--space small] [--placement none] [--batch 64]
        [--rounds 12] [--out FILE.json]

One thread, bfloat16, channels-last, as the engine trains. Each convolution of the net is called by
itself on maps of its shape: forward, and its gradients for the map and for the weights. Their rates
are beside that of a product of matrices in the same type, which no convolution is expected to pass.
`least_step_ms` is the step if all its convolutions ran at that rate and all else were as it is, and
`convolutions_alone_ms` if all else took no time. Each time is the least of the rounds, as others
use the machine too.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.step import TrainingStep
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.recipe import Recipe
from benchmarks.results import deliver

SIDE = 1024
"""Of the matrices whose product shows the machine's rate."""
Call = Callable[[], object]


@dataclass(frozen=True)
class Convolution:
    """A convolution: milliseconds of its passes, and the operations of one of them in 10^9.

    `inputs_ms` is 0 for the first one, whose map needs no gradient.
    """

    name: str
    shape: tuple[int, ...]
    giga: float
    forward_ms: float
    inputs_ms: float
    weights_ms: float

    @property
    def ms(self) -> float:
        """All of its passes."""
        return self.forward_ms + self.inputs_ms + self.weights_ms

    @property
    def all_giga(self) -> float:
        """The operations of all of its passes."""
        return self.giga * (3 if self.inputs_ms else 2)


def least_ms(call: Call, rounds: int) -> float:
    """The least milliseconds of CPU time of some calls, after three that warm up."""
    times = []
    for _ in range(rounds + 3):
        began = time.process_time()
        call()
        times.append(1000 * (time.process_time() - began))
    return min(times[3:])


def convolutions(net: nn.Module, batch: int, rounds: int) -> list[Convolution]:
    """Every convolution of a net for 32x32 images, measured."""
    seen: list[tuple[str, nn.Conv2d, Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, _output, name=name: seen.append((name, module, inputs[0]))
        )
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    net(torch.randn(batch, *CIFAR_INPUTS.shape).to(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    return [_measured(*one, rounds) for one in seen]


def _measured(name: str, module: nn.Conv2d, inputs: Tensor, rounds: int) -> Convolution:
    x = torch.randn(inputs.shape).bfloat16().to(memory_format=torch.channels_last)
    weight = module.weight.detach().bfloat16()
    how = (module.stride, module.padding, module.dilation)

    def forward() -> Tensor:
        return functional.conv2d(x, weight, None, *how, module.groups)  # type: ignore[arg-type]

    gradient = torch.randn_like(forward())

    def backward(mask: list[bool]) -> object:
        more = (False, (0, 0), module.groups, mask)
        return torch.ops.aten.convolution_backward(gradient, x, weight, None, *how, *more)

    return Convolution(
        name,
        tuple(x.shape),
        2 * gradient.numel() * weight[0].numel() / 1e9,
        least_ms(forward, rounds),
        least_ms(lambda: backward([True, False, False]), rounds) if inputs.requires_grad else 0.0,
        least_ms(lambda: backward([False, True, False]), rounds),
    )


def step_ms(net: nn.Module, batch: int, rounds: int) -> float:
    """The milliseconds of a training step as the engine takes it."""
    recipe, task = Recipe(batch=batch, epochs=10_000), sources.task()
    context = TrainingContext.of(task, choose("cpu"), recipe, task.noise(batch))
    step = TrainingStep.first(net, context, recipe)
    step.batches.load(0, 0)
    return least_ms(step.step, rounds)


def figures(found: list[Convolution], whole_ms: float, rate: float) -> Iterator[tuple[str, float]]:
    """What is told of a net, by name; `rate` is in 10^9 operations a second."""
    taken, least = sum(one.ms for one in found), 1000 * sum(one.all_giga for one in found) / rate
    yield "step_ms", whole_ms
    yield "product_gflops", rate
    yield "convolutions_ms", taken
    yield "of_weights_gradients_ms", sum(one.weights_ms for one in found)
    yield "convolutions_gflops", 1000 * sum(one.all_giga for one in found) / taken
    yield "convolutions_alone_ms", least
    yield "least_step_ms", whole_ms - taken + min(taken, least)


def main() -> None:
    """Measure the convolutions of a net, and its step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="small")
    parser.add_argument("--placement", default="none")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    space = load(asked.space, CIFAR_INPUTS)
    net = build(space, sites_of(space), asked.placement, 0).train()
    net.to(memory_format=torch.channels_last)
    matrix = torch.randn(SIDE, SIDE).bfloat16()
    product_ms = least_ms(lambda: matrix @ matrix, asked.rounds)
    found = convolutions(net, asked.batch, asked.rounds)
    whole_ms = step_ms(net, asked.batch, asked.rounds)
    rate = 2 * SIDE**3 / 1e6 / product_ms
    about: dict[str, Any] = {
        "device": choose("cpu").name,
        "torch": torch.__version__,
        "space": asked.space,
        "placement": asked.placement,
        "batch": asked.batch,
    }
    rounded = {name: round(value, 2) for name, value in figures(found, whole_ms, rate)}
    deliver({**about, **rounded, "convolutions": list(map(asdict, found))}, asked.out)


if __name__ == "__main__":
    main()
