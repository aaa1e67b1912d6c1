"""Invariants of every attention module in the table."""

import pytest
import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attention import ATTENTION, canonical, create, defaults
from bam_search.space.placement import Choice, Placement

MODULES = sorted(ATTENTION)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (1, 9)])
def test_shape_is_kept(name: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 32, *size)
    assert create(Choice(name), 32)(x).shape == x.shape


@pytest.mark.parametrize("name", MODULES)
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    module = create(Choice(name, (("r", 2),)), 8)
    x = torch.randn(6, 8, 9, 9) + torch.randn(6, 8, 1, 1)  # channels with means of their own, so that pooling leaves something
    (module(x) * torch.randn(6, 8, 9, 9)).sum().backward()
    # A bias before a batch normalisation has no effect on training: its gradient is there, and zero but for rounding.
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in module.named_parameters() if n.endswith("weight") or n in ("scale", "shift"))


@pytest.mark.parametrize("name", MODULES)
def test_eval_mode_takes_a_batch_of_one_and_keeps_channels_last(name: str) -> None:
    module = create(Choice(name), 32).eval()
    x = torch.randn(1, 32, 6, 6).contiguous(memory_format=torch.channels_last)
    y = module(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y, module(x.contiguous()), atol=1e-6)


@pytest.mark.parametrize("name", MODULES)
def test_state_dict_round_trip(name: str) -> None:
    module, twin = create(Choice(name), 32), create(Choice(name), 32)
    twin.load_state_dict(module.state_dict(), strict=True)
    x = torch.randn(4, 32, 5, 5)
    assert torch.equal(module(x), twin(x))


@pytest.mark.parametrize("name", MODULES)
def test_bf16_autocast_stays_close(name: str) -> None:
    torch.manual_seed(0)
    module, x = create(Choice(name), 32).eval(), torch.randn(4, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert torch.allclose(y.float(), module(x), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("channels", [64, 128, 256, 512, 1024, 2048])
@pytest.mark.parametrize("r", [4, 8, 16, 32])
@pytest.mark.parametrize("d", [1, 4])
def test_bam_has_the_papers_number_of_parameters(channels: int, r: int, d: int) -> None:
    m, n = channels // r, 2
    code_form = 3 * channels * m + 9 * n * m**2 + (7 + 3 * n) * m + channels + 1
    assert parameters(create(Choice("bam", (("r", r), ("d", d))), channels)) == code_form + 4 * channels


def test_se_has_the_papers_number_of_parameters() -> None:
    assert parameters(create(Choice("se"), 256)) == 2 * 256 * 16 + 16 + 256


def test_bam_is_equation_2() -> None:
    """sigmoid(Mc + Ms), each branch ending in a batch normalisation over C channels, here written out as in the paper."""
    torch.manual_seed(0)
    bam = create(Choice("bam", (("r", 4), ("d", 2))), 16)
    nn.init.normal_(bam.scale)
    nn.init.normal_(bam.shift)
    x = torch.randn(4, 16, 8, 8)
    spatial_map = bam.spatial[:-1](x).expand_as(x)
    spatial = nn.functional.batch_norm(spatial_map, None, None, bam.scale, bam.shift, training=True)
    gate = torch.sigmoid(bam.channel(x)[:, :, None, None] + spatial)
    assert torch.allclose(bam(x), x + x * gate, atol=1e-5)


def test_gate_lies_in_its_range() -> None:
    x = torch.full((8, 16, 4, 4), 2.0) + 0.1 * torch.randn(8, 16, 4, 4)
    bam, se = create(Choice("bam"), 16)(x) / x, create(Choice("se"), 16)(x) / x
    assert bam.min() > 1
    assert bam.max() < 2
    assert se.min() > 0
    assert se.max() < 1


def test_canonical_drops_defaults_and_orders_options() -> None:
    assert canonical(Choice("bam", (("d", 2), ("r", 16))), 64).text == "bam(d=2)"
    assert canonical(Choice("bam", (("d", 2), ("r", 8))), 64).text == "bam(r=8,d=2)"
    assert list(defaults("bam"))[:2] == ["r", "d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bam(r=0)", "r must be at least 1"),
        ("bam(d=-1)", "d must be at least 1"),
        ("bam(r=7.5)", "of type int"),
        ("bam(r=true)", "of type int"),
        ("bam(r=65)", "larger than the site's 64 channels"),
        ("bam(q=1)", "no option 'q'"),
        ("bamm", "no attention module 'bamm'"),
        ("se(d=1)", "no option 'd'"),
    ],
)
def test_illegal_choices_are_one_sentence(text: str, message: str) -> None:
    ((_, choice),) = Placement.parse(f"x={text}").choices
    with pytest.raises(UserError, match=message):
        canonical(choice, 64)
