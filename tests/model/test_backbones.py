"""Every network of the paper's CIFAR-100 tables has the counts that the paper publishes.

Parameters agree to the last digit, multiply-adds to the last published one.
"""

import pytest
import torch
from counted import ONE_PROCESS, costs, sites

from bam_search.model.attach import attach, fit_to_sites, resolve
from bam_search.model.backbones.resnet import resnet50
from bam_search.model.build import backbone
from bam_search.score.cost import Cost, count
from bam_search.space.search_space import load_space, space_names, space_table

DETECTORS = {name for name, row in space_table().items() if row.backbone.startswith("detectors.")}
SPACES = [name for name in space_names() if name not in DETECTORS]
PAPER, CODE = "bam", "bam(combine=product,end_bn=false)"

# Space, placement, parameters, and multiply-adds of convolutions and linear layers in G (None: not
# published).
TABLE = [
    ("resnet50", "none", 23_705_252, 1.2225),
    ("resnet50", f"bottleneck={PAPER}", 24_070_487, 1.2495),
    ("resnet50", f"bottleneck={CODE}", 24_063_319, None),
    ("resnet50", f"every-block={PAPER}", 28_980_132, 1.3678),
    ("resnet50", "every-block=se", 26_236_244, 1.2250),
    ("resnet101", "none", 42_697_380, 2.4347),
    ("resnet101", f"bottleneck={PAPER}", 43_062_615, 2.4616),
    ("resnet101", f"every-block={CODE}", 52_539_125, None),
    ("resnet101", "every-block=se", 47_475_092, 2.4394),
    ("resnet18", "none", 11_220_132, 0.5555),
    ("resnet18", f"bottleneck={CODE}", 11_243_123, None),
    ("resnet18", f"every-block={CODE}", 11_403_140, None),
    ("resnet18", "every-block=se", 11_309_212, None),
    ("resnet34", "none", 21_328_292, 1.1594),
    ("resnet34", f"bottleneck={CODE}", 21_351_283, None),
    ("resnet34", f"every-block={CODE}", 21_659_344, None),
    ("resnet34", "every-block=se", 21_489_488, None),
    ("preresnet110", "none", 1_726_388, 0.2445),
    ("preresnet110", f"bottleneck={PAPER}", 1_732_786, 0.2456),
    ("preresnet110", f"every-block={PAPER}", 2_172_482, 0.2749),
    ("preresnet110", "every-block=se", 1_928_492, 0.2447),
    ("wrn28_8", "none", 23_401_012, 3.3601),
    ("wrn28_8", f"bottleneck={PAPER}", 23_424_366, 3.3646),
    ("wrn28_8", f"every-block={PAPER}", 23_776_672, 3.3871),
    ("wrn28_8", "every-block=se", 23_576_852, 3.3603),
    ("wrn28_10", "none", 36_536_884, 5.2434),
    ("wrn28_10", f"bottleneck={PAPER}", 36_572_676, 5.2504),
    ("wrn28_10", f"every-block={CODE}", 37_099_416, None),
    ("wrn28_10", "every-block=se", 36_810_444, 5.2437),
    ("resnext29_8x64d", "none", 34_518_948, 4.9847),
    ("resnext29_8x64d", f"bottleneck={PAPER}", 34_607_894, 5.0026),
    ("resnext29_8x64d", f"every-block={PAPER}", 35_614_653, 5.0655),
    ("resnext29_8x64d", "every-block=se", 35_040_756, 4.9852),
    ("resnext29_16x64d", "none", 68_247_460, 9.8837),
    ("resnext29_16x64d", f"bottleneck={PAPER}", 68_336_406, 9.9015),
    ("resnext29_16x64d", f"every-block={CODE}", 69_321_661, None),
    ("resnext29_16x64d", "every-block=se", 68_769_268, 9.8842),
]


def cost(space: str, placement: str) -> Cost:
    return costs(space).cost(resolve(placement, sites(space)))


@ONE_PROCESS
@pytest.mark.parametrize(("space", "placement", "params", "giga"), TABLE)
def test_counts_equal_the_published_ones(
    space: str, placement: str, params: int, giga: float | None
) -> None:
    counted = cost(space, placement)
    assert counted.params == params
    assert counted.uncounted == {}
    if giga is not None:
        assert round(counted.macs_conv_fc / 1e9, 4) == giga


@ONE_PROCESS
@pytest.mark.parametrize(("r", "millions"), [(4, 26.301), (8, 24.620), (16, 24.070), (32, 23.868)])
def test_published_reductions(r: int, millions: float) -> None:
    assert round(cost("resnet50", f"bottleneck=bam(r={r})").params / 1e6, 3) == millions


def test_the_released_codes_stride_costs_what_is_published() -> None:
    with torch.device("meta"):
        net = resnet50(100, stride_on="3x3")
    counted = count(net, (3, 32, 32))
    assert (counted.params, round(counted.macs_conv_fc / 1e9, 3)) == (23_705_252, 1.298)


@pytest.mark.parametrize("space", SPACES)
def test_every_space_builds_and_trains_a_step_with_attention(space: str) -> None:
    torch.manual_seed(0)
    loaded = load_space(space)
    assert loaded.name == space
    assert len(sites(space).select("bottleneck")) in (2, 3, 4)
    with torch.device("meta"):
        net = backbone(loaded, seed=0)
        attach(net, fit_to_sites("bottleneck=bam", sites(space))[0], sites=sites(space))
        side = 64 if loaded.input_shape[1] == 224 else 16  # any size must do
        logits = net(torch.randn(2, 3, side, side))
    assert logits.shape == (2, loaded.classes)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
