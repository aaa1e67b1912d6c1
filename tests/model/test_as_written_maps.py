"""Models that put out maps or boxes, and dense ones: where their stages and blocks are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet, detection, segmentation
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from bam_search import attach, attached
from bam_search.model.find_sites import find_sites
from bam_search.model.insert import CHILD
from bam_search.space.sites import Sites

SHAPE = (3, 64, 64)


def selected(sites: Sites, target: str) -> list[str]:
    return [site.name for site in sites.select(target)]


# Encoders and decoders.


class Double(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(given, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Down(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.MaxPool2d(2), Double(given, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Up(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(given, width, 2, 2), Double(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], 1))


class Wrapped(nn.Module):
    """Classes around a block that go down and up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Double(3, 4)
        self.downs = nn.ModuleList([Down(4, 8), Down(8, 16)])
        self.ups = nn.ModuleList([Up(16, 8), Up(8, 4)])
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.first(x)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for up in self.ups:
            x = up(x, maps.pop())
        return self.out(x).sigmoid()


class Containers(nn.Module):
    """Functions make containers; upsampling has no weights; a dictionary is put out."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 4), (4, 8), (8, 16), (24, 8), (12, 4)]
        self.a, self.b, self.c, self.d, self.e = (self._block(*pair) for pair in widths)
        self.out = nn.Conv2d(4, 2, 3, padding=1)

    @staticmethod
    def _block(given: int, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(given, width, 3, padding=1), nn.GroupNorm(2, width), nn.ReLU()
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.a(x)
        b = self.b(functional.max_pool2d(a, 2))
        c = self.c(functional.max_pool2d(b, 2))
        d = self.d(torch.cat([functional.interpolate(c, scale_factor=2), b], 1))
        e = self.e(torch.cat([functional.interpolate(d, scale_factor=2), a], 1))
        return {"masks": self.out(e)}


class Residual(nn.Module):
    def __init__(self, given: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.short = nn.Conv2d(given, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x).relu()) + self.short(x)).relu()


class Added(nn.Module):
    """Residual blocks go down with a stride; skips are added, and gated by attention on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = Residual(3, 4), Residual(4, 8, 2), Residual(8, 16, 2)
        self.up1, self.up2 = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)
        self.gate, self.skip = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 1)
        self.d, self.e = Residual(8, 8), Residual(4, 4)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a)
        up = self.up1(self.c(b))
        gate = self.gate((self.skip(b) + up).relu()).sigmoid()
        d = self.d(up + gate * b)
        return self.out(self.e(self.up2(d) + a))


class Convolutions(nn.Module):
    """Bare convolutions, with functions between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(24, 8, 3, padding=1)
        self.e, self.out = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        b = self.b(functional.avg_pool2d(a, 2)).relu()
        c = self.c(functional.avg_pool2d(b, 2)).relu()
        d = self.d(torch.cat([functional.interpolate(c, scale_factor=2), b], 1)).relu()
        e = self.e(torch.cat([functional.interpolate(d, scale_factor=2), a], 1)).relu()
        return functional.interpolate(self.out(e), scale_factor=2, mode="bilinear")


class Transposed(nn.Module):
    """Transposed convolutions alone lead up."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, padding=1)
        self.c, self.out = nn.Conv2d(8, 16, 3, 2, padding=1), nn.Conv2d(8, 2, 1)
        self.d, self.e = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(16, 4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        b = self.b(a).relu()
        d = self.d(self.c(b).relu()).relu()
        e = self.e(torch.cat([d, b], 1)).relu()
        return self.out(torch.cat([e, a], 1)).tanh()


UNETS: dict[type[nn.Module], tuple[list[str], list[str]]] = {
    Wrapped: (
        ["first", "downs.0", "downs.1", "ups.0", "ups.1"],
        ["first", "downs.0.body.1", "downs.1.body.1", "ups.0.conv", "ups.1.conv"],
    ),
    Containers: (list("abcde"), list("abcde")),
    Added: (list("abcde"), list("abcde")),
    Convolutions: (list("abcde"), list("abcde")),
    Transposed: (list("abcde"), list("abcde")),
}


@pytest.mark.parametrize("make", UNETS)
def test_an_encoder_and_its_decoder_have_stages_down_and_up(make: type[nn.Module]) -> None:
    ends, blocks = UNETS[make]
    sites = find_sites(make(), SHAPE)
    assert selected(sites, "stage-ends") == ends
    assert selected(sites, "bottleneck") == ends[:-1]
    assert [(s.stage, s.height) for s in sites.select("stage-ends")] == [
        *((0, 64), (1, 32), (2, 16), (3, 32), (4, 64))
    ]
    assert list(sites.blocks) == blocks
    assert sites.by_name["out"].roles == ()


@pytest.mark.parametrize("make", UNETS)
def test_attention_in_an_encoder_and_its_decoder_learns(make: type[nn.Module]) -> None:
    model = make()
    placed = attach(model, "every-block=eca", SHAPE)
    assert placed == attached(model)
    output = model(torch.rand(2, *SHAPE))
    maps = output["masks"] if isinstance(output, dict) else output
    maps.square().mean().backward()
    for name, _ in placed.choices:
        child = model.get_submodule(name).get_submodule(CHILD)
        assert all(p.grad is not None for p in child.parameters())


def test_several_resolutions_at_a_time_are_no_stages() -> None:
    class Parallel(nn.Module):
        """As HRNet: branches of two sizes that exchange their maps."""

        def __init__(self) -> None:
            super().__init__()
            self.high = nn.ModuleList([Residual(3, 4), Residual(4, 4)])
            self.low = nn.ModuleList([Residual(3, 4, 2), Residual(4, 4)])
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            high, low = self.high[0](x), self.low[0](x)
            high, low = self.high[1](high), self.low[1](low)
            return self.fc((functional.max_pool2d(high, 2) + low).mean((2, 3)))

    sites = find_sites(Parallel(), SHAPE)
    assert len(sites.blocks) == 4
    assert all(site.stage is None for site in sites)


# Dense blocks.


class Growing(nn.Module):
    """A dense layer that takes one map, to which the block adds what it returns."""

    def __init__(self, given: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(given), nn.Conv2d(given, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x).relu())


class Listing(Growing):
    """A dense layer that takes all maps before it in a list."""

    def forward(self, x: list[Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat(x, 1))


class Concatenating(nn.Module):
    def __init__(self, given: int, layer: type[Growing], n: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer(given + 4 * i) for i in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Collecting(Concatenating):
    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Dense(nn.Module):
    def __init__(self, block: type[Concatenating], layer: type[Growing]) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 3, padding=1), block(8, layer, 3)
        self.between = nn.Sequential(nn.Conv2d(20, 8, 1), nn.AvgPool2d(2))
        self.second, self.fc = block(8, layer, 2), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.between(self.first(self.stem(x)))).mean((2, 3)))


DENSE: dict[str, tuple[Callable[[], nn.Module], list[str], int]] = {
    "in the block": (lambda: Dense(Concatenating, Growing), ["first", "second"], 5),
    "in the layer": (lambda: Dense(Collecting, Listing), ["first", "second"], 5),
    "torchvision": (
        lambda: DenseNet(4, (2, 3, 2), 8, num_classes=5),
        [f"features.denseblock{i}" for i in (1, 2, 3)],
        7,
    ),
}


@pytest.mark.parametrize("name", DENSE)
def test_the_layers_of_dense_blocks_are_blocks_and_these_the_stages(name: str) -> None:
    make, ends, layers = DENSE[name]
    sites = find_sites(make(), SHAPE)
    assert selected(sites, "stage-ends") == ends
    assert selected(sites, "bottleneck") == ends[:-1]
    assert selected(sites, "every-block") == list(sites.blocks)
    assert len(sites.blocks) == layers
    assert all(any(block.startswith(f"{end}.") for end in ends) for block in sites.blocks)


# Detectors and segmentation models.


def small_fpn(make: Callable[..., nn.Module]) -> nn.Module:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return make(backbone, num_classes=3, min_size=64, max_size=96)


RESNET = [f"backbone.body.layer{i}" for i in (1, 2, 3, 4)]
NONE = {"weights": None, "weights_backbone": None}
DETECTORS: dict[str, tuple[Callable[[], nn.Module], list[str], int]] = {
    "retinanet": (lambda: small_fpn(detection.RetinaNet), RESNET, 8),
    "faster r-cnn": (
        lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(**NONE, min_size=64, max_size=96),
        [f"backbone.body.{i}" for i in (1, 3, 6, 12, 15)],
        15,
    ),
    "ssdlite": (
        lambda: detection.ssdlite320_mobilenet_v3_large(**NONE),
        ["features.0.1", "features.0.3", "features.0.6", "features.0.12", "features.1.2"],
        14,
    ),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_the_backbone_of_a_detector_is_found(name: str) -> None:
    make, ends, blocks = DETECTORS[name]
    sites = find_sites(make(), SHAPE)
    found = selected(sites, "stage-ends")
    assert [name.removeprefix("backbone.") for name in found] == [
        name.removeprefix("backbone.") for name in ends
    ]
    assert selected(sites, "bottleneck") == found[:-1]
    assert len(selected(sites, "every-block")) == blocks


@pytest.mark.slow
def test_the_backbone_of_an_ssd_is_its_vgg_and_what_goes_on_from_it() -> None:
    sites = find_sites(detection.ssd300_vgg16(**NONE), (3, 300, 300))
    ends = [f"backbone.features.{i}" for i in (3, 8, 15, 22)]
    assert selected(sites, "bottleneck")[:4] == ends
    assert not any(block.startswith("head.") for block in sites.blocks)


def test_attention_in_a_detector_runs_once() -> None:
    model, ran = small_fpn(detection.RetinaNet), []
    images = [torch.rand(3, 64, 80), torch.rand(3, 70, 64)]
    attach(model, "bottleneck=se(r=8)", example_inputs=(images,))
    model.backbone.body.layer2.get_submodule(CHILD).register_forward_hook(lambda *_: ran.append(1))
    model.eval()(images)
    assert len(ran) == 1


SEGMENTATION = {
    "fcn": (lambda: segmentation.fcn_resnet50(**NONE, aux_loss=True), 16),
    "deeplab": (lambda: segmentation.deeplabv3_mobilenet_v3_large(**NONE), 15),
    "lraspp": (lambda: segmentation.lraspp_mobilenet_v3_large(**NONE), 15),
}


@pytest.mark.parametrize("name", SEGMENTATION)
def test_the_backbone_of_a_segmentation_model_is_found(name: str) -> None:
    make, blocks = SEGMENTATION[name]
    with torch.device("meta"):
        sites = find_sites(make(), SHAPE)
    assert len(selected(sites, "every-block")) == blocks
    assert all(block.startswith("backbone.") for block in sites.blocks)
    assert selected(sites, "bottleneck")
