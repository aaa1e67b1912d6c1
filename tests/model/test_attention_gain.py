"""Gains: what attention does to a map, seen from outside."""

import torch
from torch import Tensor, nn

from bam_search.model.attach import attach
from bam_search.model.attention.se import SE
from bam_search.model.attention_gain import attention_gains
from bam_search.model.backbones.resnet import small
from bam_search.model.insert import Mark, insert
from bam_search.model.layouts import ChannelsLast
from bam_search.space.placement import Choice

MARK = Mark(Choice("se"), 0)


class Halves(nn.Module):
    """Halves the left part of a map, and leaves the right one."""

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.ones(x.shape[-1])
        scale[: x.shape[-1] // 2] = 0.5
        return x * scale


class Last(nn.Module):
    """A model with (B, H, W, C) maps at `site`."""

    def __init__(self) -> None:
        super().__init__()
        self.site = nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.site(x.permute(0, 2, 3, 1)).mean((1, 2))


def test_gains_are_of_each_site_in_its_order_and_size() -> None:
    net = small(10).eval()
    attach(net, "layer3=se layer1=bam layer1.0.bn2=bam", (3, 32, 32))
    found = attention_gains(net, lambda: net(torch.rand(2, 3, 32, 32)))
    assert list(found) == ["layer1.0.bn2", "layer1", "layer3"]
    assert [tuple(gain.shape) for gain in found.values()] == [(2, 16, 16), (2, 16, 16), (2, 4, 4)]
    assert found["layer1"].min() >= 1  # BAM gives x + x * gate
    assert found["layer1"].max() <= 2
    assert found["layer3"].max() <= 1  # SE gives x * gate
    assert not net.layer1.attention._forward_hooks  # nothing is left behind


def test_a_gain_is_the_ratio_of_norms_and_one_where_there_is_nothing() -> None:
    net = nn.Sequential(nn.Identity())
    insert(net, {"0": (SE(4, r=2), MARK)})
    net[0].attention.forward = Halves().forward
    image = torch.rand(1, 4, 2, 6)
    image[:, :, 0, 0] = 0
    found = attention_gains(net, lambda: net(image))["0"]
    expected = torch.tensor([[0.5] * 3 + [1.0] * 3] * 2)
    expected[0, 0] = 1
    torch.testing.assert_close(found[0], expected)


def test_attention_that_starts_as_identity_has_gain_one() -> None:
    net = small(10).eval()
    attach(net, "stage-ends=bam", (3, 32, 32), init="identity")
    for gain in attention_gains(net, lambda: net(torch.rand(2, 3, 32, 32))).values():
        torch.testing.assert_close(gain, torch.ones_like(gain))


def test_channels_last_maps_have_gains_over_positions_too() -> None:
    net = Last().eval()
    insert(net, {"site": (ChannelsLast(SE(8, r=2)), MARK)})
    assert attention_gains(net, lambda: net(torch.rand(2, 3, 5, 7)))["site"].shape == (2, 5, 7)
