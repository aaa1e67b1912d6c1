"""The bytes of a training image.

Tests use a net whose maps can be counted by hand, and the chains that the engine really fuses.
"""

import pytest
import torch
from torch import nn

from bam_search.model.backbones.resnet import resnet50
from bam_search.model.build import backbone
from bam_search.model.trace import trace
from bam_search.score.fused import fused
from bam_search.space.search_space import load_space
from benchmarks import ladder, traffic
from benchmarks.arms import Setting


def chain() -> list[nn.Module]:
    return [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]


def test_the_maps_of_one_chain_are_counted_as_by_hand() -> None:
    net = nn.Sequential(*chain(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    image, m = 3 * 32 * 32, 8 * 32 * 32
    forward = (image + m) + 3 * m + 2 * m + m  # convolution, normalisation, ReLU, pooling
    # Pooling, ReLU, normalisation, convolution: no gradient of the image.
    backward = 2 * m + 3 * m + 5 * m + (m + image)
    found = traffic.traffic(net, bytes_per_s=1e9)
    vectors = 200  # more than all that is no map
    assert 0 <= found["bytes_per_image_unfused"] - 2 * (forward + backward) < vectors
    assert found["bytes_per_image_unfused"] - found["bytes_per_image_fused"] == 2 * 5 * m
    assert found["images_per_s_fused"] == 1e9 / found["bytes_per_image_fused"]


@pytest.mark.parametrize(
    "space", ["small", "small_preact", "small_resnext", "imagenet_mobilenet_0_7"]
)
def test_the_chains_that_are_counted_are_those_that_the_engine_fuses(space: str) -> None:
    net = backbone(load_space(space), 0)
    counted = traffic.chains(trace(net, traffic.IMAGE))
    maps: list[int] = []

    def compile_nothing(module: torch.fx.GraphModule, example: list[torch.Tensor]) -> object:
        maps.append(max(t[0].numel() for t in example if t.dim() == 4))
        return module.forward

    with fused(net.train(), compile_nothing) as chains:
        net(torch.randn(2, 3, 32, 32))
    assert len(counted) == chains.fused_calls
    assert {numbers for _, numbers in counted} == set(maps)


def test_resnet50_moves_what_was_found_by_another_count() -> None:
    found = traffic.traffic(resnet50(100), 3e12)
    assert found["bytes_per_image_unfused"] == pytest.approx(140.8e6, rel=2e-3)
    assert found["bytes_per_image_fused"] < 0.85 * found["bytes_per_image_unfused"]


def test_the_bound_tells_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "alone", lambda _measured, _device: 1e10)  # any rate a second
    found = ladder.bound(Setting("", "cpu", "small", None, 0), 1000)
    assert (
        found["bytes_per_image"] < found["bytes_per_image_fused"] < found["bytes_per_image_unfused"]
    )
    assert found["images_per_s_fused"] == 1e10 / found["bytes_per_image_fused"]
