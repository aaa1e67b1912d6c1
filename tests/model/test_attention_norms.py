"""BAM's normalisations: their counts, what they share, and training on small batches."""

import pytest
import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attention import canonical
from bam_search.model.attention.bam import BAM
from bam_search.model.attention.norms import FrozenBatchNorm, GroupNorm, Norm, groups
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.score.cost import count
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import SearchSpace, load_space

SMALL_BATCHES: tuple[Norm, ...] = ("frozen", "group", "none")


def bam(text: str, channels: int = 64) -> BAM:
    ((_, choice),) = Placement.parse(f"x=bam(r=4,{text})").choices
    return BAM(channels, **dict(choice.options))


def moved(module: BAM) -> BAM:
    """The module with other weights and statistics than a new one."""
    generator = torch.Generator().manual_seed(1)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data += torch.rand(tensor.shape, generator=generator)
    return module


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("norm", SMALL_BATCHES)
@pytest.mark.parametrize(
    "options", ["", "combine=product,", "combine=max,", "branches=channel,", "branches=spatial,"]
)
def test_small_batches_train(options: str, norm: str, batch: int) -> None:
    torch.manual_seed(0)
    module = bam(f"{options}norm={norm}")
    x = (torch.randn(batch, 64, 6, 5) + torch.randn(batch, 64, 1, 1)).requires_grad_()
    (module(x) * torch.randn(x.shape)).sum().backward()
    weights = [p for name, p in module.named_parameters() if name.endswith(("weight", "scale"))]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights)
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("channels", [32, 64, 256])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("end_bn", ["true", "false"])
def test_each_has_its_count(channels: int, n: int, end_bn: str) -> None:
    m, pixels = channels // 4, 7 * 9
    paper = parameters(bam(f"n={n},end_bn={end_bn}", channels))
    macs = pixels * (channels * m + 9 * n * m**2 + m) + 2 * channels * m
    for norm in ("batch", "frozen", "group"):
        cost = count(bam(f"n={n},end_bn={end_bn},norm={norm}", channels), (channels, 7, 9))
        assert (cost.params, cost.macs_conv_fc) == (paper, macs)
        assert not cost.uncounted
    cost = count(bam(f"n={n},norm=none", channels), (channels, 7, 9))
    normalised = 2 * m * (2 + n) + (4 * channels if end_bn == "true" else 0)
    assert (cost.params, cost.macs_conv_fc) == (paper - normalised, macs)
    assert not cost.uncounted


def test_the_full_count_of_each_normalisation_is_fvcores() -> None:
    """Two operations a value with statistics that are known, five where they are taken."""
    m, channels, pixels = 16, 64, 7 * 9
    values = m + channels + 3 * m * pixels
    found = {norm: count(bam(f"norm={norm}"), (64, 7, 9)) for norm in ("batch", *SMALL_BATCHES)}
    assert found["batch"].by_operator == found["frozen"].by_operator
    assert found["batch"].by_operator["batch_norm"] == 2 * values + pixels
    assert found["group"].by_operator["group_norm"] == 5 * values + 4 * pixels
    assert {"batch_norm", "group_norm"}.isdisjoint(found["none"].by_operator)


def test_a_frozen_one_goes_on_where_a_trained_one_stopped() -> None:
    trained, frozen = moved(bam("norm=batch")), bam("norm=frozen")
    frozen.load_state_dict(trained.state_dict(), strict=True)
    x = torch.randn(3, 64, 5, 5)
    statistics = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    torch.testing.assert_close(frozen.train()(x), trained.eval()(x))
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in frozen.named_buffers())


@pytest.mark.parametrize("norm", SMALL_BATCHES)
def test_images_do_not_see_one_another(norm: str) -> None:
    module, x = moved(bam(f"norm={norm}")).train(), torch.randn(3, 64, 5, 5)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(2, 1), (16, 1), (31, 1), (32, 2), (48, 3), (96, 6), (256, 16), (512, 32), (2048, 32)],
)
def test_groups_have_16_channels_or_more_and_are_32_at_most(channels: int, expected: int) -> None:
    assert groups(channels) == expected


@pytest.mark.parametrize("shape", [(2, 64), (3, 32, 7), (2, 48, 4, 5), (1, 64, 2, 3, 4)])
def test_normalisations_are_torchs(shape: tuple[int, ...]) -> None:
    x, channels = torch.randn(shape), shape[1]
    torchs = nn.GroupNorm(groups(channels), channels)
    torch.testing.assert_close(GroupNorm(channels)(x), torchs(x))
    torch.testing.assert_close(FrozenBatchNorm(channels)(x), x / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_group_normalisation_keeps_the_type_under_autocast(dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype):
        assert GroupNorm(32)(torch.randn(2, 32, 3, 3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("options", "size"),
    [("", (4, 4)), ("branches=channel,", (8, 8)), ("branches=spatial,", (1, 1))],
)
def test_a_batch_of_one_that_cannot_be_normalised_is_a_sentence(
    options: str, size: tuple[int, int]
) -> None:
    module = bam(f"{options}norm=batch").train()
    with pytest.raises(UserError, match="norm = batch cannot train on a batch of 1") as caught:
        module(torch.rand(1, 64, *size))
    assert "norm=group" in caught.value.hint
    assert module.eval()(torch.rand(1, 64, *size)).isfinite().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bam(norm=layer)", "norm is one of: batch, frozen, group, none"),
        ("bam(norm=none,end_bn=false)", "leave end_bn out"),
        ("bam(r=64,norm=group)", "r can be 1 to 32"),
    ],
)
def test_illegal_choices_are_one_sentence(text: str, message: str) -> None:
    ((_, choice),) = Placement.parse(f"x={text}").choices
    with pytest.raises(UserError) as caught:
        canonical(choice, 64, 64)
    assert message in str(caught.value)


def test_the_default_is_the_papers_and_is_not_written() -> None:
    assert canonical(Choice.of("bam", {"norm": "batch"}), 64, 64).text == "bam"
    assert "norm" not in load_space("small").offered(64)["bam"]


def test_it_is_searched_as_other_options_are() -> None:
    backbone = load_space("small").backbone
    modules = {"bam": {"norm": ("batch", "group"), "d": (1,)}}
    space = SearchSpace("s", backbone, sites=("layer1",), modules=modules)
    found = choice_space_of(space, sites_of(space))
    texts = [choice.text for choice in found.choices("layer1")]
    assert texts == ["bam(norm=batch,d=1)", "bam(norm=group,d=1)"]
