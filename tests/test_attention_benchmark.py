"""The benchmark of the attention modules compares what computes the same, and times it."""

import json

import pytest
import torch
from torch import Tensor, nn

from bam_search.model.attention import create
from bam_search.model.attention.bam import BAM
from bam_search.space.placement import Choice
from benchmarks import attention


@pytest.mark.parametrize("choice", attention.BEFORE, ids=lambda choice: choice.text)
def test_before_is_what_the_module_computes_now(choice: Choice) -> None:
    torch.manual_seed(0)
    module = create(choice, 32, nn.Identity()).train()
    x = torch.randn(6, 32, 5, 5).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(attention.BEFORE[choice](module, x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("before", "after", "kernel", "d"), attention.CONVOLUTIONS)
def test_a_convolution_is_the_same_in_every_layout(
    before: int, after: int, kernel: int, d: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(before, after, kernel, padding=d * (kernel // 2), dilation=d, bias=False)
    x = torch.randn(2, before, 6, 6).contiguous(memory_format=torch.channels_last)
    expected, *others = (peer.forward() for peer in attention.layouts(conv, x).values())
    assert len(others) == 3
    for y in others:
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_a_branch_is_the_same_with_its_hidden_maps_channels_first() -> None:
    torch.manual_seed(0)
    layers = BAM(32, 8, 2).spatial.layers.to(memory_format=torch.channels_last)  # type: ignore[union-attr]
    layouts: list[bool] = []

    def look(_module: nn.Module, args: tuple[Tensor]) -> None:
        layouts.append(args[0].is_contiguous())

    within = attention.ChannelsFirstWithin(layers)
    within.rest[0].register_forward_pre_hook(look)
    x = torch.randn(4, 32, 6, 6).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(within(x), layers(x), rtol=1e-5, atol=1e-5)
    assert layouts == [True]


def test_each_part_says_how_long_every_peer_takes() -> None:
    found = attention.passes("cpu", 4, rounds=1, maps=[(32, 4)])
    assert len(found) == len(attention.BEFORE)
    small = attention.small_convolutions("cpu", 4, rounds=1, side=4)
    assert len(small) == len(attention.CONVOLUTIONS) + len(attention.BRANCHES)
    for told in (*found.values(), *small.values()):
        first, *_, last = told["step_ms"].values()
        assert all(value > 0 for part in ("forward_ms", "step_ms") for value in told[part].values())
        assert told["step_ratio"] == first / last
    assert json.dumps([found, small])
