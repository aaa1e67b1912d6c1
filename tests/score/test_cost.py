"""Counts equal the paper's to the last digit, and the full count is what its docstring says."""

from functools import cache

import pytest
import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attach import resolve
from bam_search.model.build import build, sites_of
from bam_search.score.cost import Cost, count, overhead, overheads
from bam_search.score.cost_table import cost_table
from bam_search.space.search_space import SearchSpace, load_space


@cache
def cost(space_name: str, placement: str) -> Cost:
    space = load_space(space_name)
    sites = sites_of(space)
    return count(build(space, sites, resolve(placement, sites), seed=0), space.input_shape)


@pytest.mark.parametrize("site", ["layer1", "layer2.0.bn2", "layer3"])
@pytest.mark.parametrize("options", ["r=16,d=4", "r=4,d=1", "r=8,d=2"])
def test_bam_costs_its_formula(site: str, options: str) -> None:
    space = load_space("small")
    (found,) = (s for s in sites_of(space) if s.name == site)
    r = int(options[2 : options.index(",")])
    m = found.channels // r
    added = (
        found.height * found.width * (found.channels * m + 18 * m**2 + m) + 2 * found.channels * m
    )
    with_bam, base = cost("small", f"{site}=bam({options})"), cost("small", "none")
    assert with_bam.macs_conv_fc - base.macs_conv_fc == added
    assert with_bam.uncounted == base.uncounted == {}


@pytest.mark.parametrize(
    "module",
    ["bam", "se", "cbam", "eca", "gc", "bam(combine=max,end_bn=false)", "bam(combine=product)"],
)
def test_every_operator_of_every_attention_module_is_counted(module: str) -> None:
    counted = cost("small", f"every-block={module}")
    assert counted.uncounted == {}
    assert counted.macs > counted.macs_conv_fc > cost("small", "none").macs_conv_fc


@pytest.mark.parametrize("channels", [32, 64, 128])
def test_se_costs_its_formula(channels: int) -> None:
    site = {32: "layer1", 64: "layer2", 128: "layer3"}[channels]
    assert cost("small", f"{site}=se").macs_conv_fc - cost(
        "small", "none"
    ).macs_conv_fc == 2 * channels * (channels // 16)


def test_the_full_count_is_one_operation_an_element() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return (y + y.relu() * y.sigmoid()).mean((2, 3))

    counted = count(Net(), (3, 5, 6))
    map_size = 4 * 5 * 6
    expected = {
        "conv": 3 * map_size,
        "relu": map_size,
        "sigmoid": map_size,
        "mul": map_size,
        "add": map_size,
        "mean": map_size,
    }
    assert counted.by_operator == expected
    assert counted.macs == sum(expected.values())
    assert counted.macs_conv_fc == 3 * map_size


def test_what_is_not_counted_is_listed() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.cumsum(1).tan()

    assert count(Net(), (3, 4, 4)).uncounted == {"aten::cumsum": 1, "aten::tan": 1}


def test_counting_leaves_the_model_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    count(net, (3, 4, 4))
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_overhead_is_in_percent() -> None:
    assert overhead(110, 100) == pytest.approx(10)
    assert overhead(90, 100) == pytest.approx(-10)


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (Cost(0, 5, {"conv": 7}, {}), "0 parameters"),
        (Cost(3, 5, {"relu": 7}, {}), "0 MACs in convolutions and linear layers"),
        (Cost(3, 0, {"conv": 7}, {}), "0 activations"),
    ],
)
def test_an_overhead_over_nothing_is_a_sentence(base: Cost, told: str) -> None:
    with pytest.raises(UserError, match="an overhead over nothing") as caught:
        overheads(Cost(3, 5, {"conv": 8}, {}), base)
    assert told in caught.value.message
    with pytest.raises(UserError, match="an overhead over nothing"):
        overhead(0, 0)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Hardswish, "hardswish"),
        (nn.SiLU, "silu"),
        (nn.Hardtanh, "hardtanh"),
        (nn.ReLU6, "hardtanh"),
        (nn.ELU, "elu"),
        (nn.LeakyReLU, "leaky_relu"),
        (nn.Mish, "mish"),
        (nn.Hardsigmoid, "hardsigmoid"),
    ],
)
def test_an_activation_counts_alike_in_place_and_not(module: type[nn.Module], name: str) -> None:
    counted = [count(nn.Sequential(module(inplace=where)), (3, 4, 5)) for where in (False, True)]
    assert counted[0] == counted[1]
    assert counted[0].by_operator == {name: 60}
    assert counted[0].uncounted == {}


def test_what_a_traced_module_leaves_uncounted_is_told_with_the_placement() -> None:
    class Odd(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 1)
            self.norm = nn.BatchNorm2d(channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.norm(self.conv(x)).tan()

    def net(_classes: int) -> nn.Module:
        stages = [nn.Sequential(nn.Conv2d(3, 8, 3), Odd(8), Odd(8))]
        return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 100))

    space = SearchSpace("odd", net, sites=("0",))
    sites = sites_of(space)
    placement = resolve("0=block", sites)
    found = cost_table(space, sites).cost(placement)
    assert found.uncounted == {"aten::tan": 3}
    assert found == count(build(space, sites, placement, seed=0), space.input_shape)
