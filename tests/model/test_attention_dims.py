"""Attention on maps of one and three dimensions, and in half precision."""

from math import prod

import pytest
import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.attention import canonical, create, register_attention, registry
from bam_search.model.insert import FromIdentity
from bam_search.score.cost import count
from bam_search.score.increments import increment
from bam_search.space.placement import Choice, Placement

VARIANTS = [
    "bam(r=4,d=2)",
    "bam(r=4,combine=product,d=1)",
    "bam(r=4,combine=max,d=1,end_bn=false)",
    "bam(r=4,branches=spatial,d=2)",
    "bam(r=4,branches=channel)",
    "bam(r=4,norm=group,d=2)",
    "bam(r=4,norm=frozen,d=2)",
    "se(r=4)",
    "eca",
    "cbam(r=4,k=5)",
    "gc(r=4)",
]
SIDES = {1: (12,), 3: (4, 6, 5)}


def choice_of(text: str) -> Choice:
    ((_, choice),) = Placement.parse(f"x={text}").choices
    return choice


def made(text: str, channels: int, dims: int = 2) -> nn.Module:
    return create(choice_of(text), channels, nn.Identity(), dims)


def moved(module: nn.Module) -> nn.Module:
    """The module with weights that leave nothing as it is."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


def within(low: nn.Module, high: nn.Module) -> nn.Module:
    """`high` with the weights of `low` in the middle of its kernels, and 0 around them."""
    state = high.state_dict()
    for key, value in low.state_dict().items():
        if value.dim() + 1 == state[key].dim():
            state[key] = torch.zeros_like(state[key])
            state[key][:, :, state[key].shape[2] // 2] = value
        else:
            state[key] = value
    high.load_state_dict(state)
    return high


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("text", VARIANTS)
def test_a_map_with_one_side_of_1_is_a_map_without_it(text: str, dims: int, training: bool) -> None:
    torch.manual_seed(0)
    low = moved(made(text, 32, dims)).train(training)
    high = within(low, made(text, 32, dims + 1)).train(training)
    x = torch.randn(3, 32, *(7, 9)[:dims])
    torch.testing.assert_close(high(x[:, :, None])[:, :, 0], low(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", SIDES)
@pytest.mark.parametrize("text", VARIANTS)
def test_all_parameters_train(text: str, dims: int) -> None:
    torch.manual_seed(0)
    module, shape = made(text, 32, dims), (4, 32, *SIDES[dims])
    x = torch.randn(shape) + torch.randn(4, 32, *[1] * dims)
    y = module(x)
    (y * torch.randn(shape)).sum().backward()
    assert y.shape == x.shape
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("dims", SIDES)
@pytest.mark.parametrize(("r", "n"), [(4, 1), (8, 2), (16, 3)])
def test_bam_has_its_count(r: int, n: int, dims: int) -> None:
    channels, m, size = 64, 64 // r, prod(SIDES[dims])
    cost = increment(choice_of(f"bam(r={r},n={n},d=1)"), channels, *SIDES[dims])
    weights = 3 * channels * m + 3**dims * n * m**2
    assert cost.params == weights + (7 + 3 * n) * m + 5 * channels + 1
    per_position = channels * m + 3**dims * n * m**2 + m
    assert cost.macs_conv_fc == size * per_position + 2 * channels * m
    assert not cost.uncounted


@pytest.mark.parametrize("dims", SIDES)
def test_the_others_have_their_counts(dims: int) -> None:
    channels, m, size = 64, 16, prod(SIDES[dims])
    expected = {
        "se(r=4)": (2 * channels * m + m + channels, 2 * channels * m),
        "eca": (3, 3 * channels),
        "cbam(r=4,k=3)": (2 * channels * m + 2 * 3**dims, 4 * channels * m + 2 * 3**dims * size),
        "gc(r=4)": (
            (channels + 1) + 2 * channels * m + m + channels + 2 * m,
            channels * size + 2 * channels * m,
        ),
    }
    for text, (params, macs) in expected.items():
        cost = increment(choice_of(text), channels, *SIDES[dims])
        assert (cost.params, cost.macs_conv_fc) == (params, macs), text


def test_an_increment_of_a_sequence_is_not_that_of_an_image() -> None:
    se, bam = choice_of("se"), choice_of("bam(d=1)")
    assert increment(se, 32, 64).by_operator["mul"] == increment(se, 32, 8, 8).by_operator["mul"]
    assert increment(bam, 32, 64).params < increment(bam, 32, 8, 8).params


def test_a_dilation_beyond_a_short_sequence_is_refused() -> None:
    assert canonical(choice_of("bam"), 32, 4, dims=1).text == "bam"
    with pytest.raises(UserError, match="the dilation 4 is more than the map's side, 3"):
        canonical(choice_of("bam"), 32, 3, dims=1)


class Images(nn.Module):
    def __init__(self, channels: int, k: int = 1) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, k, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).sigmoid()


class AnyMap(nn.Module):
    def __init__(self, channels: int, dims: int = 2) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.gate = convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).sigmoid()


class SaysButFails(Images):
    def __init__(self, channels: int, dims: int = 2) -> None:
        super().__init__(channels)
        self.dims = dims


@pytest.fixture
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})


@pytest.mark.usefixtures("nothing_registered")
def test_modules_of_others_take_images_unless_they_say_more() -> None:
    register_attention("images", Images)
    register_attention("any_map", AnyMap)
    assert canonical(Choice("any_map"), 32, 8, dims=3).text == "any_map"
    assert count(create(Choice("any_map"), 8, nn.Identity(), 1), (8, 6)).macs_conv_fc == 8 * 8 * 6
    with pytest.raises(UserError, match="any_map has no option 'dims'"):
        canonical(Choice.of("any_map", {"dims": 1}), 32, 8)
    with pytest.raises(UserError, match=r"takes maps \(B, C, H, W\), and this one is \(B, C, L\)"):
        canonical(Choice("images"), 32, 8, dims=1)
    with pytest.raises(UserError, match=r"fails on a map of \(2, 256, 9\)"):
        register_attention("says", SaysButFails)


@pytest.mark.parametrize("name", ["timm.se", "timm.ese", "timm.coord"])
def test_timms_modules_take_images(name: str) -> None:
    pytest.importorskip("timm")
    assert canonical(Choice(name), 64, 8).text == name
    with pytest.raises(UserError, match=r"this one is \(B, C, D, H, W\)"):
        canonical(Choice(name), 64, 8, dims=3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sides", [(1024,), (32, 32), (8, 8, 16)])
@pytest.mark.parametrize("text", VARIANTS)
def test_large_values_of_large_maps_stay_finite_in_half_precision(
    text: str, sides: tuple[int, ...], dtype: torch.dtype, training: bool
) -> None:
    torch.manual_seed(0)
    module = made(text, 32, len(sides)).train(training)
    x = (30_000 * torch.rand(2, 32, *sides)).to(dtype)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1)  # channels-last in memory
    with torch.autocast("cpu", dtype):
        assert module(x).isfinite().all()
        assert torch.equal(FromIdentity(module).to(dtype)(x), x)
    module.to(dtype)
    assert module(x).isfinite().all()
    assert torch.equal(FromIdentity(module).to(dtype)(x), x)
