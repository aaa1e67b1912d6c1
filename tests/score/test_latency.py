"""Measured time and memory: the ratios and bytes of models whose answer is known."""

import torch
from torch import nn

from bam_search.score.device import choose
from bam_search.score.latency import latency, training_memory

CPU = choose("cpu")


def test_a_model_beside_itself_has_a_ratio_of_one_within_its_interval() -> None:
    net = nn.Conv2d(3, 32, 3)
    found = latency(net, net, (3, 32, 32), CPU, batch=4, pairs=40)
    assert found.low <= found.ratio <= found.high
    assert 0.5 < found.ratio < 2


def test_twice_the_work_takes_longer() -> None:
    base = nn.Conv2d(3, 64, 7)
    torch.set_num_threads(1)
    found = latency(nn.Sequential(base, nn.Conv2d(64, 64, 7)), base, (3, 32, 32), CPU, batch=4, pairs=10)
    assert found.low > 1


def test_training_memory_counts_what_backward_needs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4 * 4 * 3, 10, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.flatten(1))

    weights, inputs, log_softmax, labels = 4 * 480, 4 * 8 * 48, 4 * 8 * 10, 8 * 8
    small = training_memory(Net(), (3, 4, 4), CPU, batch=8)
    assert 3 * weights + inputs + log_softmax <= small <= 3 * weights + inputs + log_softmax + labels + 16
