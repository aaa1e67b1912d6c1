"""Maps that lie otherwise in a tensor: sequences, volumes, and tokens that are patches."""

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.attach import attach, attached, detach
from bam_search.model.attention.se import SE
from bam_search.model.attention_gain import attention_gains
from bam_search.model.find_sites import find_sites
from bam_search.model.layouts import ChannelsLast, Tokens
from bam_search.model.maps import BATCH_NORMS, CONVOLUTIONS
from bam_search.score.cost import Cost, count
from bam_search.score.increments import increment
from bam_search.space.placement import Choice
from bam_search.space.sites import Sites

Shape = tuple[int, ...]


class Residual(nn.Module):
    """Two convolutions and a shortcut, on maps of one, two or three dimensions."""

    def __init__(self, dims: int, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        conv, norm = CONVOLUTIONS[dims], BATCH_NORMS[dims]
        self.conv1, self.bn1 = conv(before, after, 3, stride, 1), norm(after)
        self.conv2, self.bn2 = conv(after, after, 3, 1, 1), norm(after)
        self.shortcut = conv(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


def resnet(dims: int, inputs: int, outputs: int = 0) -> nn.Module:
    """Three stages of two blocks; `outputs` are the features that a map of one size leaves."""
    layers: dict[str, nn.Module] = {"stem": CONVOLUTIONS[dims](inputs, 16, 7, 2, 3)}
    for n, (before, after) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
        blocks = Residual(dims, before, after, 1 if n == 1 else 2), Residual(dims, after, after)
        layers[f"layer{n}"] = nn.Sequential(*blocks)
    head = [nn.Flatten(), nn.Linear(outputs, 4)] if outputs else [Mean(), nn.Linear(64, 4)]
    return nn.Sequential(OrderedDict({**layers, "head": nn.Sequential(*head)}))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


class Plain(nn.Module):
    """A VGG of one dimension: convolutions, and nothing that repeats around them."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(1, 8), (8, 8), (8, 16), (16, 16)]
        layers: list[nn.Module] = []
        for n, (before, after) in enumerate(widths):
            layers += [nn.Conv1d(before, after, 9, padding=4), nn.BatchNorm1d(after), nn.ReLU()]
            layers += [nn.MaxPool1d(4)] if n == 1 else []
        self.features, self.fc = nn.Sequential(*layers), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(2))


class Listener(nn.Module):
    """A convolution that thins a waveform out, then transformer layers on (B, L, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 16, 10, stride=5)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(self.stem(x).transpose(1, 2)).mean(1))


MAPS: dict[str, tuple[Callable[[], nn.Module], Shape, dict[str, tuple[Shape, str]]]] = {
    "ResNet of a waveform": (
        lambda: resnet(1, 1),
        (1, 256),
        {"layer1": ((128,), "NCL"), "layer2": ((64,), "NCL")},
    ),
    "with a head for one length": (
        lambda: resnet(1, 2, 64 * 8),
        (2, 64),
        {"layer1": ((32,), "NCL"), "layer2": ((16,), "NCL")},
    ),
    "as many channels as positions": (
        lambda: resnet(1, 1, 64 * 4),
        (1, 32),
        {"layer1": ((16,), "NCL"), "layer2": ((8,), "NCL")},
    ),
    "VGG of a waveform": (Plain, (1, 64), {"features.5": ((64,), "NCL")}),
    "ResNet of a volume": (
        lambda: resnet(3, 1),
        (1, 16, 24, 32),
        {"layer1": ((8, 12, 16), "NCDHW"), "layer2": ((4, 6, 8), "NCDHW")},
    ),
}


@pytest.mark.parametrize("kind", MAPS)
def test_stages_of_sequences_and_volumes_are_found_and_attended(kind: str) -> None:
    make, shape, expected = MAPS[kind]
    torch.manual_seed(0)
    model = make()
    sites = find_sites(model, shape)
    found = {site.name: (site.sides, site.layout) for site in sites.select("bottleneck")}
    assert found == expected
    check(model, shape, sites, "bottleneck=bam(r=4,d=2)", "bottleneck=cbam(r=4)")


def check(model: nn.Module, shape: Shape, sites: Sites, *texts: str) -> None:
    """Attention is counted exactly, trains, keeps outputs as identity, and goes out again."""
    before, x = count(model, shape), torch.rand(2, *shape)
    for text in texts:
        _check(model, shape, sites, text, before, x)


def _check(
    model: nn.Module, shape: Shape, sites: Sites, text: str, before: Cost, x: Tensor
) -> None:
    bare = model.eval()(x)
    placement = attach(model, text, sites=sites, init="identity")
    assert torch.equal(model(x), bare)
    detach(model)
    attach(model, text, sites=sites)
    assert not torch.equal(model(x), bare)
    after = count(model, shape)
    by_name = sites.by_name
    added = [
        increment(choice, by_name[name].channels, *by_name[name].sides)
        for name, choice in placement.choices
    ]
    assert after.params - before.params == sum(a.params for a in added)
    assert after.macs_conv_fc - before.macs_conv_fc == sum(a.macs_conv_fc for a in added)
    model.train()(x).square().mean().backward()
    new = [p for name, p in model.named_parameters() if ".attention." in name]
    assert new
    assert all(p.grad is not None for p in new)
    assert attached(model) == placement
    detach(model)
    assert attached(model).text == "none"


def test_sequences_with_channels_last_are_maps_too() -> None:
    sites = find_sites(Listener(), (1, 100))
    layer = sites.by_name["encoder.layers.0"]
    assert (layer.layout, layer.channels, layer.sides) == ("NLC", 16, (19,))
    assert len(sites.select("every-block")) == 3
    check(Listener(), (1, 100), sites, "every-block=bam(r=4)")


def test_maps_of_other_lengths_run_through_attention() -> None:
    model = resnet(1, 1).eval()
    attach(model, "bottleneck=bam(r=4)", (1, 64))
    assert model(torch.rand(2, 1, 321)).isfinite().all()


class Former(nn.Module):
    """A vision transformer. What each argument makes of it is said where it is used."""

    def __init__(
        self,
        extra: int = 1,
        positions: int | None = 16,
        end: bool = False,
        order: str = "rows",
        embed: str = "conv",
        pool: Callable[[Tensor], Tensor] = lambda x: x.mean(1),
    ) -> None:
        super().__init__()
        self.end, self.order, self.kind, self.pool = end, order, embed, pool
        self.embed = nn.Conv2d(3, 16, 8, 8) if embed == "conv" else nn.Linear(3 * 64, 16)
        self.extra = nn.Parameter(torch.randn(1, extra, 16))
        length = (positions or 0) + extra
        self.position = nn.Parameter(torch.randn(1, length, 16)) if positions else None
        self.blocks = nn.Sequential(*(FormerBlock() for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        extra = self.extra.expand(len(x), -1, -1)
        x = torch.cat([x, extra] if self.end else [extra, x], 1)
        x = x if self.position is None else x + self.position
        return self.head(self.pool(self.norm(self.blocks(x))))

    def tokens(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // 8, x.shape[3] // 8
        if self.kind == "linear":  # as one writes it with einops
            patches = x.unflatten(2, (rows, 8)).unflatten(4, (columns, 8))
            return self.embed(patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        y = self.embed(x)
        if self.order == "columns":
            y = y.transpose(2, 3)
        if self.order == "windows":
            y = y.unflatten(2, (rows // 2, 2)).unflatten(4, (columns // 2, 2))
            y = y.permute(0, 1, 2, 4, 3, 5)
        if self.order == "shuffled":
            y = y.flatten(2)[:, :, torch.randperm(rows * columns)]
        return y.flatten(2).transpose(1, 2)


class FormerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3)).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


GRIDS: dict[str, tuple[Callable[[], nn.Module], Shape, tuple[Shape, int]]] = {
    "a class token": (Former, (3, 32, 32), ((4, 4), 1)),
    "any size, no class token": (lambda: Former(0, None), (3, 40, 32), ((5, 4), 0)),
    "five registers": (lambda: Former(5), (3, 32, 32), ((4, 4), 5)),
    "patches without a convolution": (
        lambda: Former(1, 12, embed="linear"),
        (3, 24, 32),
        ((3, 4), 1),
    ),
    "more extra tokens than patches": (lambda: Former(9, 4), (3, 16, 16), ((2, 2), 9)),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_tokens_that_are_patches_are_a_map(kind: str) -> None:
    make, shape, expected = GRIDS[kind]
    torch.manual_seed(0)
    model = make()
    sites = find_sites(model, shape)
    every = sites.select("every-block")
    assert [site.name for site in every][:2] == ["blocks.0.mlp", "blocks.1.mlp"]
    assert {(site.sides, site.extra_tokens) for site in every} == {expected}
    assert {site.layout for site in every} == {"N(HW)C"}
    assert len(sites.select("stage-ends")) == 1
    check(model, shape, sites, "every-block=bam(r=4,d=1)", "stage-ends=cbam(r=4)")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Former(end=True), "not the patches of the image, row by row"),
        (lambda: Former(order="columns"), "not the patches of the image, row by row"),
        (lambda: Former(order="windows"), "not the patches of the image, row by row"),
        (lambda: Former(order="shuffled"), "which is where on the image is not known"),
    ],
)
def test_tokens_in_another_order_are_refused(make: Callable[[], nn.Module], reason: str) -> None:
    sites = find_sites(make(), (3, 32, 32))
    assert reason in sites.refused["blocks.0"]
    with pytest.raises(UserError, match="3 of its 3 blocks are no sites, as each returns tokens"):
        sites.select("every-block")


POOLS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "the class token": (lambda x: x[:, 0], False),
    "the extra tokens": (lambda x: x[:, :3].mean(1), False),
    "a split": (lambda x: x.split([3, 16], 1)[0].flatten(1)[:, :16], False),
    "the patches": (lambda x: x[:, 3:].mean(1), True),
    "the largest": (lambda x: x.amax(1), True),
    "both": (lambda x: x[:, 0] + x[:, 3:].mean(1), True),
}


@pytest.mark.parametrize("kind", POOLS)
def test_tokens_that_nothing_reads_are_no_site(kind: str) -> None:
    pool, is_read = POOLS[kind]
    torch.manual_seed(0)
    model = Former(3, pool=pool)
    sites = find_sites(model, (3, 32, 32))
    blocks = [f"blocks.{n}" for n in range(3 if is_read else 2)]
    assert [site.name for site in sites.select("every-block")] == [f"{b}.mlp" for b in blocks]
    (end,) = sites.select("stage-ends")
    assert end.name == ("blocks" if is_read else "blocks.1")
    assert "bottleneck" not in end.roles
    assert ("blocks.2" in sites.names) == is_read
    assert is_read or "only those beside the patches are read" in sites.refused["blocks.2.mlp"]
    for site in sites.select("/blocks.*/"):
        x, attended = torch.rand(2, 3, 32, 32), copy.deepcopy(model).eval()
        bare = attended(x)
        attach(attended, f"{site.name}=bam(r=4,d=1)", sites=sites)
        assert not torch.equal(attended(x), bare), site.name


class Doubled(nn.Module):
    """Adds to each position of a map how far down and right it lies."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = torch.arange(x.shape[2]), torch.arange(x.shape[3])
        return x + 100 * rows[:, None] + columns


@pytest.mark.parametrize("extra", [0, 1, 5])
@pytest.mark.parametrize("sides", [(4, 4), (2, 3), (6, 9), (1, 5)])
def test_the_grid_is_of_the_ratio_that_it_was_found_with(sides: Shape, extra: int) -> None:
    height, width = sides
    tokens = Tokens(Doubled(), (height, width), extra)
    for times in (1, 2, 3):
        n = times**2 * height * width
        y = tokens(torch.zeros(2, extra + n, 3))
        assert torch.equal(y[:, :extra], torch.zeros(2, extra, 3))
        rows, columns = torch.arange(times * height), torch.arange(times * width)
        expected = (100 * rows[:, None] + columns).flatten().float()
        assert torch.equal(y[0, extra:, 1], expected)


@pytest.mark.parametrize(("sides", "n"), [((4, 4), 15), ((4, 4), 32), ((2, 3), 9), ((3, 4), 1)])
def test_a_number_of_tokens_that_is_no_such_grid_is_a_sentence(sides: Shape, n: int) -> None:
    with pytest.raises(UserError, match=f"{n} tokens are no grid of {sides[0]} to {sides[1]}"):
        Tokens(nn.Identity(), (sides[0], sides[1]), 1)(torch.zeros(1, 1 + n, 3))


def test_a_transformer_for_any_size_takes_images_of_other_sizes() -> None:
    model = Former(2, None).eval()
    attach(model, "every-block=bam(r=4,d=1)", (3, 32, 32))
    assert model(torch.rand(2, 3, 64, 64)).isfinite().all()
    with pytest.raises(UserError, match="24 tokens are no grid of 4 to 4"):
        model(torch.rand(2, 3, 32, 48))


WAYS: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]] = {
    "deepcopy": lambda module, _x: copy.deepcopy(module),
    "compile": lambda module, _x: torch.compile(module, fullgraph=True, backend="aot_eager"),
    "export": lambda module, x: torch.export.export(module, (x,)).module(),
    "fx": lambda module, _x: torch.fx.symbolic_trace(module),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("adapter", "dims", "shape"),
    [
        (lambda inner: Tokens(inner, (3, 4), 2), 2, (2, 14, 8)),
        (lambda inner: ChannelsLast(inner), 2, (2, 3, 4, 8)),
        (lambda inner: ChannelsLast(inner, 1), 1, (2, 9, 8)),
        (lambda inner: ChannelsLast(inner, 3), 3, (2, 3, 2, 4, 8)),
    ],
)
def test_adapters_are_the_same_after(
    adapter: Callable[[nn.Module], nn.Module], dims: int, shape: Shape, way: str
) -> None:
    torch.manual_seed(0)
    module, x = adapter(SE(8, r=2, dims=dims)), torch.randn(shape)
    torch.testing.assert_close(WAYS[way](module, x)(x), module(x))


def test_gains_are_of_positions_in_any_layout() -> None:
    former, wave = Former(3, None).eval(), resnet(1, 1).eval()
    attach(former, "stage-ends=bam(r=4,d=1)", (3, 32, 32))
    attach(wave, "layer1=se", (1, 64))
    (grid,) = attention_gains(former, lambda: former(torch.rand(2, 3, 32, 32))).values()
    (line,) = attention_gains(wave, lambda: wave(torch.rand(2, 1, 64))).values()
    assert (tuple(grid.shape), tuple(line.shape)) == ((2, 4, 4), (2, 32))


def test_timms_transformers_have_sites_in_every_block() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_distilled_patch16_224", depth=3)
    every = find_sites(model).select("every-block")
    # Its head reads two tokens only.
    assert [site.name for site in every] == [f"blocks.{n}.mlp" for n in range(2)]
    assert {(site.sides, site.extra_tokens) for site in every} == {((14, 14), 2)}


def test_blocks_of_tokens_in_another_order_are_refused_in_hiera() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("hiera_tiny_224")
    assert "row by row" in find_sites(model).refused["blocks.3"]


def test_an_increment_does_not_depend_on_the_layout() -> None:
    model, choice = Former(), Choice.of("bam", {"r": 4, "d": 1})
    before = count(model, (3, 32, 32)).macs_conv_fc
    attach(model, f"blocks.1={choice.text}", (3, 32, 32))
    added = count(model, (3, 32, 32)).macs_conv_fc - before
    assert added == increment(choice, 16, 4, 4).macs_conv_fc
