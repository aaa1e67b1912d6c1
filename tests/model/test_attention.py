"""Invariants of every attention module in the table."""

import pytest
import torch
from torch import nn
from torchvision.models import convnext_tiny
from torchvision.models.resnet import BasicBlock

from bam_search.errors import UserError
from bam_search.model.attention import ATTENTION, canonical, defaults
from bam_search.model.attention import create as create_like
from bam_search.space.placement import Choice, Placement

MODULES = sorted(ATTENTION)


def stage(channels: int) -> nn.Module:
    """What `block` finds at its site: a stage of one basic block."""
    return nn.Sequential(BasicBlock(channels, channels))


VARIANTS = [
    *MODULES,
    "bam(branches=channel)",
    "bam(branches=spatial)",
    "bam(combine=product)",
    "bam(combine=max)",
    "bam(combine=product,end_bn=false)",
    "bam(branches=spatial,end_bn=false)",
    "cbam(k=3)",
]


def choice_of(text: str) -> Choice:
    ((_, choice),) = Placement.parse(f"x={text}").choices
    return choice


def create(choice: Choice, channels: int) -> nn.Module:
    return create_like(choice, channels, like=stage(channels))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (1, 9)])
def test_shape_is_kept(name: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 32, *size)
    assert create(choice_of(name), 32)(x).shape == x.shape


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    module = create(choice_of(name), 64)
    # Channels with different means, so that pooling leaves something.
    x = torch.randn(6, 64, 9, 9) + torch.randn(6, 64, 1, 1)
    (module(x) * torch.randn(6, 64, 9, 9)).sum().backward()
    # A bias before a batch normalisation has no effect on training: its gradient is there, and zero
    # but for rounding.
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert all(
        p.grad.abs().sum() > 0
        for n, p in module.named_parameters()
        if n.endswith(("weight", "scale"))
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_eval_mode_takes_a_batch_of_one_and_keeps_channels_last(name: str) -> None:
    module = create(choice_of(name), 32).eval()
    x = torch.randn(1, 32, 6, 6).contiguous(memory_format=torch.channels_last)
    y = module(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y, module(x.contiguous()), atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_state_dict_round_trip(name: str) -> None:
    module, twin = create(choice_of(name), 32), create(choice_of(name), 32)
    twin.load_state_dict(module.state_dict(), strict=True)
    x = torch.randn(4, 32, 5, 5)
    assert torch.equal(module(x), twin(x))


@pytest.mark.parametrize("name", VARIANTS)
def test_bf16_autocast_stays_close(name: str) -> None:
    torch.manual_seed(0)
    module, x = create(choice_of(name), 32).eval(), torch.randn(4, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert torch.allclose(y.float(), module(x), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("channels", [64, 128, 256, 512, 1024, 2048])
@pytest.mark.parametrize("r", [4, 8, 16, 32])
@pytest.mark.parametrize("d", [1, 4])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_bam_has_the_papers_number_of_parameters(channels: int, r: int, d: int, n: int) -> None:
    m = channels // r
    code_form = 3 * channels * m + 9 * n * m**2 + (7 + 3 * n) * m + channels + 1
    with torch.device("meta"):
        released, paper = (
            create(choice_of(f"bam(r={r},d={d},n={n},end_bn={form})"), channels)
            for form in ("false", "true")
        )
    assert parameters(released) == code_form
    assert parameters(paper) == code_form + 4 * channels


@pytest.mark.parametrize(
    ("channels", "params"),
    [(64, 1173), (128, 4457), (256, 17361), (512, 68513), (1024, 272193), (2048, 1085057)],
)
def test_published_sizes_of_the_released_form(channels: int, params: int) -> None:
    assert parameters(create(choice_of("bam(combine=product,end_bn=false)"), channels)) == params


@pytest.mark.parametrize("end_bn", ["true", "false"])
def test_the_branches_share_out_the_parameters(end_bn: str) -> None:
    both, channel, spatial = (
        parameters(create(choice_of(f"bam({part}end_bn={end_bn})"), 64))
        for part in ("", "branches=channel,", "branches=spatial,")
    )
    assert both == channel + spatial


@pytest.mark.parametrize("combine", ["sum", "product", "max"])
def test_bam_combines_its_branches_as_named(combine: str) -> None:
    torch.manual_seed(0)
    bam, x = create(choice_of(f"bam(combine={combine})"), 32), torch.randn(4, 32, 6, 6)
    channel, spatial = bam.channel(x).permute(0, 3, 1, 2), bam.spatial(x).permute(0, 3, 1, 2)
    combined = {
        "sum": channel + spatial,
        "product": channel * spatial,
        "max": torch.maximum(channel, spatial.expand(4, 32, 6, 6)),
    }
    assert torch.allclose(bam(x), x * (1 + combined[combine].sigmoid()), atol=1e-5)


def test_cbam_is_its_equations() -> None:
    torch.manual_seed(0)
    cbam, x = create(Choice("cbam"), 32), torch.randn(4, 32, 6, 6)
    up, down = cbam.mlp[2].weight[:, :, 0, 0], cbam.mlp[0].weight[:, :, 0, 0]
    channel = torch.sigmoid(
        sum((pooled @ down.T).relu() @ up.T for pooled in (x.mean((2, 3)), x.amax((2, 3))))
    )
    y = x * channel[:, :, None, None]
    pooled = torch.stack([y.mean(1), y.amax(1)], 1)
    assert torch.allclose(
        cbam(x),
        y * torch.sigmoid(nn.functional.conv2d(pooled, cbam.spatial.weight, padding=3)),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("channels", "k"), [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_eca_adapts_its_kernel_as_published(channels: int, k: int) -> None:
    assert parameters(create(Choice("eca"), channels)) == k


def test_gc_pools_one_context_and_adds_it_everywhere() -> None:
    torch.manual_seed(0)
    gc, x = create(Choice("gc"), 32), torch.randn(4, 32, 5, 7)
    added = gc(x) - x
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-5)
    weights = torch.softmax(gc.key(x).flatten(1), 1)
    context = torch.einsum("bcp,bp->bc", x.flatten(2), weights)
    assert torch.allclose(added[:, :, 0, 0], gc.transform(context), atol=1e-5)


@pytest.mark.parametrize("name", ["bam", "se", "cbam", "gc"])
def test_r_lowers_the_size_and_d_leaves_it(name: str) -> None:
    sizes = [parameters(create(Choice(name, (("r", r),)), 256)) for r in (2, 4, 8, 16, 32)]
    assert sizes == sorted(set(sizes), reverse=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_seed_makes_the_same_module(name: str) -> None:
    pairs = []
    for _ in range(2):
        torch.manual_seed(7)
        pairs.append(create(choice_of(name), 64).state_dict())
    assert all(torch.equal(pairs[0][key], pairs[1][key]) for key in pairs[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_training_on_a_batch_of_one_works_or_says_why(name: str) -> None:
    module, x = create(choice_of(name), 32), torch.randn(1, 32, 6, 6)
    if name.startswith("bam") and "spatial" not in name:
        with pytest.raises(UserError, match="cannot train on a batch of 1") as caught:
            module(x)
        assert "norm=group" in caught.value.hint
    else:
        assert module(x).shape == x.shape


def test_se_has_the_papers_number_of_parameters() -> None:
    assert parameters(create(Choice("se"), 256)) == 2 * 256 * 16 + 16 + 256


def test_bam_is_equation_2() -> None:
    """sigmoid(Mc + Ms), written out here as in the paper.

    Each branch ends in a batch normalisation over C channels.
    """
    torch.manual_seed(0)
    bam = create(Choice("bam", (("r", 4), ("d", 2))), 16)
    nn.init.normal_(bam.spatial.scale)
    nn.init.normal_(bam.spatial.shift)
    x = torch.randn(4, 16, 8, 8)
    spatial_map = bam.spatial.layers[:-1](x).expand_as(x)
    spatial = nn.functional.batch_norm(
        spatial_map, None, None, bam.spatial.scale, bam.spatial.shift, training=True
    )
    gate = torch.sigmoid(bam.channel.layers(x)[:, :, None, None] + spatial)
    assert torch.allclose(bam(x), x + x * gate, atol=1e-5)


RANGES = [
    *((variant, 1, 2) for variant in VARIANTS if variant.startswith("bam")),
    ("se", 0, 1),
    ("cbam", 0, 1),
    ("eca", 0, 1),
]


@pytest.mark.parametrize(("name", "low", "high"), RANGES)
def test_the_gate_lies_in_its_range(name: str, low: int, high: int) -> None:
    torch.manual_seed(0)
    x = torch.full((8, 32, 4, 4), 2.0) + 0.1 * torch.randn(8, 32, 4, 4)
    gate = create(choice_of(name), 32)(x) / x
    assert low < gate.min()
    assert gate.max() < high


def test_canonical_drops_defaults_and_orders_options() -> None:
    assert canonical(Choice("bam", (("d", 2), ("r", 16))), 64, 65536).text == "bam(d=2)"
    assert canonical(Choice("bam", (("d", 2), ("r", 8))), 64, 65536).text == "bam(r=8,d=2)"
    assert list(defaults("bam"))[:2] == ["r", "d"]


@pytest.mark.parametrize("value", [True, 8.0])
def test_values_of_another_type_are_not_taken_for_equal_ones(value: float) -> None:
    assert canonical(Choice.of("se", {"r": int(value)}), 64, 8).text == f"se(r={int(value)})"
    with pytest.raises(UserError, match="r is a whole number"):
        canonical(Choice.of("se", {"r": value}), 64, 8)


def test_a_block_draws_its_weights_anew_and_trains_them() -> None:
    torch.manual_seed(0)
    last = convnext_tiny().get_submodule("features.1").requires_grad_(False)
    for weight in last.parameters():
        weight.fill_(3.0)
    block = ATTENTION["block"](96, like=last)
    scale = {"block.layer_scale"}
    for name, weight in block.named_parameters():
        assert weight.requires_grad
        assert bool((weight == 3).all()) == (name in scale)
    assert all(not weight.requires_grad for weight in last.parameters())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bam(r=0)", "r can be 1 to 64"),
        ("bam(d=-1)", "d = -1"),
        ("bam(r=7.5)", "r is a whole number"),
        ("bam(r=true)", "r is a whole number"),
        ("bam(r=65)", "r can be 1 to 64"),
        ("gc(r=64)", "r can be 1 to 32"),
        ("bam(combine=mul)", "combine is one of: sum, product, max"),
        ("bam(end_bn=1)", "end_bn is true or false"),
        ("cbam(k=4)", "k is one of: 3, 5, 7"),
        ("bam(branches=channel,combine=max)", "needs both branches"),
        ("bam(branches=channel,d=2)", "belong to the spatial branch"),
        ("eca(gamma=0)", "gamma = 0"),
        ("bam(q=1)", "no option 'q'"),
        ("bamm", "no attention module 'bamm'"),
        ("se(d=1)", "no option 'd'"),
    ],
)
def test_illegal_choices_are_one_sentence(text: str, message: str) -> None:
    choice = choice_of(text)
    with pytest.raises(UserError) as caught:
        canonical(choice, 64, 65536)
    assert message in str(caught.value)
