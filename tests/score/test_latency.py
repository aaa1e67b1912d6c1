"""Measured time and memory: the ratios and bytes of models whose answer is known."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from bam_search.score.cuda_graphs import EAGER
from bam_search.score.device import Device, choose
from bam_search.score.latency import LatencySetting, latency, training_memory
from bam_search.tasks.recipe import Recipe


def setting(
    batch: int, shape: tuple[int, int, int] = (3, 32, 32), bf16: bool = False
) -> LatencySetting:
    return LatencySetting(choose("cpu"), shape, batch, bf16)


def test_a_model_beside_itself_has_a_ratio_of_one_within_its_interval() -> None:
    net = nn.Conv2d(3, 32, 3)
    found = latency(net, net, setting(4), pairs=40)
    assert found.low <= found.ratio <= found.high
    assert 0.5 < found.ratio < 2


def test_twice_the_work_takes_longer() -> None:
    base = nn.Conv2d(3, 64, 7)
    torch.set_num_threads(1)
    found = latency(nn.Sequential(base, nn.Conv2d(64, 64, 7)), base, setting(4), pairs=10)
    assert found.low > 1


def test_training_memory_counts_what_backward_needs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4 * 4 * 3, 10, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.flatten(1))

    weights, inputs, log_softmax, labels = 4 * 480, 4 * 8 * 48, 4 * 8 * 10, 8 * 8
    small = training_memory(Net(), setting(8, (3, 4, 4)), Recipe())
    assert (
        3 * weights + inputs + log_softmax
        <= small
        <= 3 * weights + inputs + log_softmax + labels + 16
    )


@pytest.mark.parametrize(("bf16", "kind"), [(True, torch.bfloat16), (False, torch.float32)])
def test_models_are_timed_as_they_are_trained(bf16: bool, kind: torch.dtype) -> None:
    seen: list[torch.Tensor] = []

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(self.convolution(x))
            return seen[-1]

    found = latency(Probe(), Probe(), setting(4, bf16=bf16), pairs=2)
    assert found.batch == 4
    assert {output.dtype for output in seen} == {kind}
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in seen)
    assert not any(output.requires_grad for output in seen)


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_on_a_gpu_its_own_events_tell_the_time_and_a_graph_is_replayed(
    cuda_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for torch.cuda shows that without a GPU: its clock is the work that was begun."""
    began = [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at, self.known = began[0], False

        def synchronize(self) -> None:
            self.known = True

        def elapsed_time(self, end: "Event") -> float:
            assert end.known  # else torch raises
            return end.at - self.at

    class Net(nn.Module):
        def __init__(self, cost: float) -> None:
            super().__init__()
            self.cost = cost

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            began[0] += self.cost
            return x

    def captured(function: Callable[[], None]) -> Callable[[], None]:
        before = began[0]
        function()
        cost = began[0] - before

        def replay() -> None:
            began[0] += cost / 8  # as quick as a graph

        return replay

    monkeypatch.setattr("bam_search.score.latency.cuda_graph", captured)
    monkeypatch.setattr("bam_search.score.latency.stream", lambda _device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(LatencySetting, "placed", lambda _self, net: net)
    monkeypatch.setattr(LatencySetting, "images", lambda _self: torch.zeros(1))
    monkeypatch.setattr(LatencySetting, "forward", lambda _self, net, images: net(images))
    gpu = replace(setting(4), device=Device("cuda", "GPU", "a test", True), cuda_graph=cuda_graph)
    model, base, pairs = 24.0, 8.0, 5
    assert latency(Net(model), Net(base), gpu, pairs).ratio == 3
    warm_up = (EAGER + cuda_graph) * (model + base)
    assert began[0] == warm_up + pairs * (model + base) / (8 if cuda_graph else 1)
