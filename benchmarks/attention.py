"""Attention modules against their former expressions, and small convolutions in two layouts.

The convolutions have few channels; the layouts are those of maps in memory.

    python -m benchmarks.attention [--device cpu] [--batch 128] [--rounds 30] [--out FILE.json]

Everything runs in training mode and under bf16 autocast, as the engine trains. Peers take turns in
each round; what is told is the median over the rounds in milliseconds, and ratios of medians. A
step is a forward and a backward pass, with the gradients of the map and of all parameters. On a CPU
one thread makes a call, and its CPU time counts; on a GPU a CUDA graph of the call is replayed
between two events.

`passes`: the modules on maps of a few shapes, channels-last, now and before. `small_convolutions`:
convolutions of fewer channels than cuDNN's channels-last kernels take at a time. They decide
whether the hidden maps of BAM and CBAM should stay channels-last, become channels-first, or be
padded to 8 channels.
"""

import argparse
import copy
import datetime
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bam_search.model.attention import create
from bam_search.model.attention.bam import BAM
from bam_search.score.cuda_graphs import EAGER, cuda_graph, stream
from bam_search.score.device import choose
from bam_search.space.placement import Choice
from benchmarks.results import deliver, say

MAPS: Mapping[str, Sequence[tuple[int, int]]] = {
    "cpu": ((64, 16), (32, 32)),
    "cuda": ((64, 32), (256, 32), (512, 8), (2048, 4)),
}
"""Channels and side of the maps; on a GPU those of early and late stages of ResNet18 and ResNet50,
for images of 32x32.
"""

CONVOLUTIONS = (
    *((64, m, 1, 1) for m in (2, 4, 8)),
    *((m, m, 3, d) for m in (1, 2, 4, 8) for d in (1, 4)),
    *((m, 1, 1, 1) for m in (2, 4, 8)),
    (2, 1, 3, 1),
    (2, 1, 7, 1),
)
"""Channels in and out, kernel and dilation: BAM's with 1 to 8 hidden channels, and CBAM's of two
channels.
"""

BRANCHES = ((64, 32, 4), (64, 16, 4), (128, 16, 4), (128, 16, 1))
"""Channels, r and d of spatial branches of BAM: 2, 4 and 8 hidden channels."""

REPLAYS = 20
"""Replays of a CUDA graph that are timed at once: one is too short for two events."""


@dataclass(frozen=True, eq=False)
class Peer:
    """One way to compute something, and what its step takes gradients of."""

    forward: Callable[[], Tensor]
    inputs: Sequence[Tensor]

    @classmethod
    def of(cls, run: Callable[[Any, Tensor], Tensor], module: nn.Module, x: Tensor) -> "Peer":
        """`run` computes what `module` is for on the map `x`."""
        return cls(partial(run, module, x), [x, *module.parameters()])


def passes(
    device: str, batch: int, rounds: int = 30, maps: Sequence[tuple[int, int]] | None = None
) -> dict[str, Any]:
    """By module and map: milliseconds now and before, and their ratio.

    The ratio is below 1 where now is faster.
    """
    found: dict[str, Any] = {}
    for choice, before in BEFORE.items():
        for channels, side in maps or MAPS[device]:
            x = _map(batch, channels, side, device)
            module = _channels_last(create(choice, channels, nn.Identity()), device)
            peers = {
                "now": Peer.of(nn.Module.__call__, module, x),
                "before": Peer.of(before, module, x),
            }
            name = f"{choice.text} {batch}x{channels}x{side}x{side}"
            found[name] = _in_turn(name, peers, device, rounds)
    return found


def small_convolutions(device: str, batch: int, rounds: int = 30, side: int = 16) -> dict[str, Any]:
    """By convolution, and by spatial branch of BAM: milliseconds in each layout.

    The ratio is that of the first layout to the last.
    """
    found: dict[str, Any] = {}
    for before, after, kernel, d in CONVOLUTIONS:
        conv = nn.Conv2d(before, after, kernel, padding=d * (kernel // 2), dilation=d, bias=False)
        peers = layouts(_channels_last(conv, device), _map(batch, before, side, device))
        name = f"{before} to {after} channels, {kernel}x{kernel}, d={d}"
        found[name] = _in_turn(name, peers, device, rounds)
    for channels, r, d in BRANCHES:
        branch = _channels_last(BAM(channels, r, d), device).spatial.layers
        within, x = ChannelsFirstWithin(branch), _map(batch, channels, side, device)
        peers = {
            "channels-last": Peer.of(nn.Module.__call__, branch, x),
            "channels-first within": Peer.of(nn.Module.__call__, within, x),
        }
        name = f"spatial branch of BAM, {channels} channels, r={r}, d={d}"
        found[name] = _in_turn(name, peers, device, rounds)
    return found


def _map(batch: int, channels: int, side: int, device: str) -> Tensor:
    """A map as a backbone puts it out: behind a ReLU, in bf16, channels-last."""
    x = torch.randn(batch, channels, side, side, device=device).relu().to(torch.bfloat16)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def _channels_last(module: nn.Module, device: str) -> Any:
    return module.to(device).train().to(memory_format=torch.channels_last)


# The expressions that the modules had at commit 93bee33, on the modules of today.


def _pixels(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _pool(x: Tensor) -> Tensor:
    return _pixels(x).sum(1) / _pixels(x).shape[1]


def _channel(m: Any, x: Tensor) -> Tensor:
    channel: Tensor = m.channel.layers[1:](_pool(x))
    return channel[:, None, None, :]


def _spatial(m: Any, x: Tensor, plus: Tensor | float = 0.0) -> Tensor:
    y = m.spatial.layers(x).permute(0, 2, 3, 1)
    return torch.addcmul(m.spatial.shift.to(y.dtype) + plus, y, m.spatial.scale.to(y.dtype))


def _gated(x: Tensor, logits: Tensor) -> Tensor:
    return x * (1 + logits.sigmoid()).permute(0, 3, 1, 2)


def _bam(m: Any, x: Tensor) -> Tensor:
    return _gated(x, _spatial(m, x, _channel(m, x)))


def _bam_product(m: Any, x: Tensor) -> Tensor:
    return _gated(x, _channel(m, x) * _spatial(m, x))


def _bam_released(m: Any, x: Tensor) -> Tensor:
    return _gated(x, _channel(m, x) * m.spatial.layers(x).permute(0, 2, 3, 1))


def _bam_max(m: Any, x: Tensor) -> Tensor:
    return _gated(x, torch.maximum(_channel(m, x), _spatial(m, x)))


def _se(m: Any, x: Tensor) -> Tensor:
    gate: Tensor = m.gate[1:](_pool(x))
    return x * gate[:, :, None, None]


def _eca(m: Any, x: Tensor) -> Tensor:
    gate: Tensor = m.conv(_pool(x)[:, None]).sigmoid()
    return x * gate[:, 0, :, None, None]


def _cbam(m: Any, x: Tensor) -> Tensor:
    x = x * (m.mlp(_pool(x)[:, :, None, None]) + m.mlp(m.largest(x))).sigmoid()
    gate: Tensor = m.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1))
    return x * gate.sigmoid()


def _gc(m: Any, x: Tensor) -> Tensor:
    weights = m.key(x).flatten(2).softmax(2)
    context: Tensor = m.transform((x.flatten(2) * weights).sum(2))
    return x + context[:, :, None, None]


BEFORE: Mapping[Choice, Callable[[Any, Tensor], Tensor]] = {
    Choice("bam"): _bam,
    Choice("bam", (("combine", "product"),)): _bam_product,
    Choice("bam", (("combine", "product"), ("end_bn", False))): _bam_released,
    Choice("bam", (("combine", "max"),)): _bam_max,
    Choice("se"): _se,
    Choice("eca"): _eca,
    Choice("cbam"): _cbam,
    Choice("gc"): _gc,
}


# Layouts


def layouts(conv: nn.Conv2d, x: Tensor) -> dict[str, Peer]:
    """A convolution in each layout.

    The layouts are: as it is, among channels-first maps, channels-first by itself, and padded to 8
    channels.
    """
    first = copy.deepcopy(conv)
    first.weight.data = conv.weight.detach().contiguous()
    return {
        "channels-last": Peer.of(nn.Module.__call__, conv, x),
        "channels-first between copies": Peer.of(_between_copies, first, x),
        "padded to 8 channels": Peer.of(_padded, conv, x),
        "channels-first": Peer.of(
            nn.Module.__call__, first, x.detach().contiguous().requires_grad_()
        ),
    }


def _between_copies(conv: Any, x: Tensor) -> Tensor:
    y: Tensor = conv(x.contiguous())
    return y.contiguous(memory_format=torch.channels_last)


def _padded(conv: Any, x: Tensor) -> Tensor:
    after, before = max(0, 8 - conv.weight.shape[0]), max(0, 8 - conv.weight.shape[1])
    weight = functional.pad(conv.weight, (0, 0, 0, 0, 0, before, 0, after)).contiguous(
        memory_format=torch.channels_last
    )
    y = functional.conv2d(
        functional.pad(x, (0, 0, 0, 0, 0, before)), weight, None, 1, conv.padding, conv.dilation
    )
    return y[:, : conv.weight.shape[0]].contiguous(memory_format=torch.channels_last)


class ChannelsFirstWithin(nn.Module):
    """A copy of a spatial branch of BAM with channels-first hidden maps.

    They are channels-first from the first convolution on.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.reduce, self.rest = copy.deepcopy(layers[:1]), copy.deepcopy(layers[1:])
        for parameter in self.rest.parameters():
            parameter.data = parameter.detach().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rest(self.reduce(x).contiguous())
        return y


# Timing


def _in_turn(name: str, peers: Mapping[str, Peer], device: str, rounds: int) -> dict[str, Any]:
    """Medians of all peers in milliseconds, and the ratio of the first to the last."""
    with stream(device):
        forwards = {
            name: _timed(_under_autocast(peer, device), device) for name, peer in peers.items()
        }
        steps = {name: _timed(_step(peer, device), device) for name, peer in peers.items()}
        found = {**_medians("forward", forwards, rounds), **_medians("step", steps, rounds)}
    say(f"{name}: {found['forward_ratio']:.3f} forward, {found['step_ratio']:.3f} a step")
    return found


def _medians(part: str, calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(call())
    medians = {name: statistics.median(values) for name, values in times.items()}
    first, *_, last = medians.values()
    return {f"{part}_ms": medians, f"{part}_ratio": first / last}


def _under_autocast(peer: Peer, device: str) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return peer.forward()

    return forward


def _step(peer: Peer, device: str) -> Callable[[], object]:
    forward = _under_autocast(peer, device)
    gradient = torch.randn_like(forward())
    return lambda: torch.autograd.grad(forward(), peer.inputs, gradient)


def _timed(call: Callable[[], object], device: str) -> Callable[[], float]:
    """A function that makes the call and returns its milliseconds.

    On a GPU it makes the call REPLAYS times.
    """
    for _ in range(EAGER):
        call()
    if device == "cpu":
        return partial(_by_clock, call)
    return partial(_by_events, cuda_graph(call))


def _by_clock(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return 1000 * (time.process_time() - started)


def _by_events(replay: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(REPLAYS):
        replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / REPLAYS


def main() -> None:
    """Measure, and write down what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = choose(asked.device)
    torch.set_num_threads(1)  # a worker of a study has one core
    found: dict[str, Any] = {
        "device": device.name,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    found |= {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "batch": asked.batch,
        "rounds": asked.rounds,
    }
    found |= {"passes": passes(asked.device, asked.batch, asked.rounds)}
    found |= {"small_convolutions": small_convolutions(asked.device, asked.batch, asked.rounds)}
    deliver(found, asked.out)


if __name__ == "__main__":
    main()
