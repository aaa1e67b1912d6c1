"""Sites, their roles, and the targets that name them."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attach import attach, resolve
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.model.find_sites import find_sites
from bam_search.model.load import load
from bam_search.score.cost_table import cost_table
from bam_search.space.placement import Placement
from bam_search.space.search_space import Options, SearchSpace, load_space
from bam_search.space.sites import Sites
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS


@pytest.mark.parametrize(
    ("name", "stages", "blocks"),
    [
        ("resnet18", 4, [f"layer{i}.{j}.bn2" for i in (1, 2, 3, 4) for j in (0, 1)]),
        (
            "resnet50",
            4,
            [
                f"layer{i}.{j}.bn3"
                for i, n in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True)
                for j in range(n)
            ],
        ),
        ("small", 3, [f"layer{i}.0.bn2" for i in (1, 2, 3)]),
    ],
)
def test_stages_and_blocks_are_found(name: str, stages: int, blocks: list[str]) -> None:
    sites = sites_of(load_space(name))
    ends = [f"layer{i + 1}" for i in range(stages)]
    assert [site.name for site in sites.select("stage-ends")] == ends
    assert [site.name for site in sites.select("bottleneck")] == ends[:-1]
    assert [site.name for site in sites.select("every-block")] == blocks


def test_shapes_are_those_of_a_forward_pass() -> None:
    shapes = {
        site.name: (site.channels, site.height, site.width)
        for site in sites_of(load_space("resnet50"))
    }
    assert shapes["layer1"] == shapes["layer1.0.bn3"] == (256, 32, 32)
    assert shapes["layer4"] == (2048, 4, 4)
    assert shapes["layer2.0.bn1"] == (128, 16, 16)  # the stride is on the first 1x1
    assert "fc" not in shapes


def test_targets() -> None:
    sites = sites_of(load_space("resnet18"))
    assert [s.name for s in sites.select("layer3")] == ["layer3"]
    assert [s.name for s in sites.select("layer2.*.bn2")] == ["layer2.0.bn2", "layer2.1.bn2"]
    assert [s.name for s in sites.select("layer4,layer1")] == ["layer4", "layer1"]


@pytest.mark.parametrize(
    ("target", "nearest"),
    [("layer5", "layer"), ("every_block", "every-block"), ("layer1.0.bn9", "layer1.0.bn")],
)
def test_an_unknown_target_gets_the_nearest_name(target: str, nearest: str) -> None:
    with pytest.raises(UserError, match="no site is named") as caught:
        sites_of(load_space("resnet18")).select(target)
    assert nearest in caught.value.hint


def test_reused_modules_and_flat_outputs_are_no_sites() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Conv2d(3, 3, 3, padding=1)
            self.once = nn.Conv2d(3, 8, 3)
            self.flat = nn.Flatten()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.flat(self.once(self.twice(self.twice(x))))

    net = Net()
    assert [site.name for site in find_sites(net, (3, 9, 11))] == ["once"]
    assert [(site.height, site.width) for site in find_sites(net, (3, 9, 11))] == [(7, 9)]
    assert find_sites(net, (3, 9, 11)).refused == {
        "twice": "is called 2 times in one pass",
        "flat": "returns vectors (B, C), not a feature map",
    }
    assert next(net.parameters()).device.type == "cpu"
    assert not net.once._forward_hooks


def test_the_menu_holds_what_is_legal_at_each_site() -> None:
    space = SearchSpace(
        "s",
        load_space("small").backbone,
        modules={"bam": {"r": (4, 64), "d": (1, 4, 6)}, "se": {"r": (16,)}},
    )
    choice_space = choice_space_of(space, sites_of(space))
    ends = ("layer1.0.bn2", "layer1", "layer2.0.bn2", "layer2", "layer3.0.bn2", "layer3")
    assert tuple(choice_space.sites) == ends
    # layer1 has 32 channels and maps of 16x16.
    assert choice_space.sites["layer1"]["bam"] == {"r": (4,), "d": (1, 4, 6)}
    # layer3 has 128 channels and maps of 4x4, on which d = 6 would be d = 4 again.
    assert choice_space.sites["layer3"]["bam"] == {"r": (4, 64), "d": (1, 4)}


def test_a_named_set_that_is_empty_does_not_matter_beside_another() -> None:
    space = load_space("small")
    sites = Sites(
        tuple(
            replace(site, roles=tuple({"every-block"} & set(site.roles)))
            for site in sites_of(space)
        ),
        {},
        ("layer1.0",),
    )
    assert list(choice_space_of(space, sites).sites) == [
        "layer1.0.bn2",
        "layer2.0.bn2",
        "layer3.0.bn2",
    ]
    with pytest.raises(UserError, match="no 'every-block'"):
        choice_space_of(space, Sites(tuple(replace(site, roles=()) for site in sites)))


def test_a_space_that_offers_nothing_is_refused() -> None:
    space = SearchSpace("s", load_space("small").backbone, modules={"bam": {"r": (4096,)}})
    with pytest.raises(UserError, match="offers nothing"):
        choice_space_of(space, sites_of(space))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda _classes: 3, "is a int"),
        (lambda _classes: 1 / 0, "ZeroDivisionError"),
        (lambda classes: nn.Conv2d(4, classes, 3), "cannot run on images"),
    ],
)
def test_a_backbone_that_fails_is_one_sentence(backbone: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sites_of(SearchSpace("mine", backbone))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "n"),
    [("torchvision:resnet18", 12), ("timm:convnext_atto", 16), ("torchvision:efficientnet_b0", 19)],
)
def test_a_small_map_is_searched_with_the_options_that_are_legal_together(
    name: str, n: int
) -> None:
    space = load(name, CIFAR_INPUTS)
    sites = sites_of(space)
    found = choice_space_of(space, sites)
    assert len(found.sites) == n
    assert found.left_out == ()
    last = list(found.sites)[-1]
    assert sites.by_name[last].side == 1
    # With r alone, d would be 4, which is too large for a map of one pixel.
    assert found.sites[last]["bam"]["d"] == (1,)


def test_a_space_without_modules_offers_bam_down_to_two_hidden_channels() -> None:
    space = load_space("small")
    found = choice_space_of(space, sites_of(space))
    offered = {site: modules["bam"]["r"] for site, modules in found.sites.items()}
    assert offered["layer1"] == offered["layer1.0.bn2"] == (4, 8, 16)  # 32 channels
    assert offered["layer2"] == (4, 8, 16, 32)
    assert offered["layer3"] == (4, 8, 16, 32, 64)
    assert space.offered(6)["bam"]["r"] == (4,)  # a narrow site is not lost


@pytest.mark.parametrize("name", ["small", "resnet18", "resnet50"])
def test_every_site_has_a_choice_that_costs_less_than_the_papers_placement(name: str) -> None:
    space = load_space(name)
    sites = sites_of(space)
    found, costs = choice_space_of(space, sites), cost_table(space, sites)
    paper = costs.cost(resolve("bottleneck=bam(r=16,d=4)", sites)).params - costs.base.params
    for site in found.sites:
        assert min(costs.added(site, choice).params for choice in found.choices(site)) < paper


def test_values_that_are_illegal_only_together_are_no_choice() -> None:
    # d belongs to the spatial branch; its default is 4.
    modules = {"bam": {"branches": ("both", "channel"), "d": (1, 4)}}
    space = SearchSpace("s", load_space("small").backbone, sites=("layer1",), modules=modules)
    found = choice_space_of(space, sites_of(space))
    assert found.sites == {"layer1": {"bam": {"branches": ("both", "channel"), "d": (1, 4)}}}
    assert [choice.text for choice in found.choices("layer1")] == [
        "bam(branches=both,d=1)",
        "bam(branches=both,d=4)",
        "bam(branches=channel,d=4)",
    ]
    assert found.size == 4


def test_a_site_at_which_nothing_is_legal_is_left_out_by_name() -> None:
    space = SearchSpace(
        "s", load_space("small").backbone, sites=("stage-ends",), modules={"bam": {"r": (64,)}}
    )
    found = choice_space_of(space, sites_of(space))
    assert (list(found.sites), found.left_out) == (["layer2", "layer3"], ("layer1",))


def test_values_that_are_legal_at_no_site_that_is_searched_are_named() -> None:
    modules: dict[str, Options] = {"bam": {"r": (4, 64), "d": (1,)}, "se": {"r": (4096, 8)}}
    space = SearchSpace("s", load_space("small").backbone, sites=("layer1",), modules=modules)
    found = choice_space_of(space, sites_of(space))
    assert found.sites["layer1"] == {"bam": {"r": (4,), "d": (1,)}, "se": {"r": (8,)}}
    assert found.unused(modules) == ["bam(r=64)", "se(r=4096)"]
    assert found.unused({}) == []


def test_a_space_that_offers_nonsense_is_refused() -> None:
    space = SearchSpace("s", load_space("small").backbone, modules={"bam": {"r": (4, 7.5)}})
    with pytest.raises(UserError, match=r"r=7\.5"):
        choice_space_of(space, sites_of(space))


def empty(name: str) -> nn.Module:
    """A classification model of torchvision without values."""
    with torch.device("meta"):
        return torchvision.models.get_model(name)


@pytest.mark.filterwarnings("ignore:The default weight init")
@pytest.mark.parametrize(
    ("name", "bottleneck", "blocks", "block"),
    [
        ("resnet50", ["layer1", "layer2", "layer3"], 16, "layer1.0.bn3"),
        (
            "mobilenet_v2",
            ["features.1", "features.3", "features.6", "features.13"],
            17,
            "features.3.conv",
        ),
        ("convnext_tiny", ["features.1", "features.3", "features.5"], 18, "features.1.0.block"),
        (
            "densenet121",
            ["features.denseblock1", "features.denseblock2", "features.denseblock3"],
            58,
            "features.denseblock1.denselayer1",
        ),
        ("googlenet", ["inception3b", "inception4e"], 9, "inception3a"),
        ("shufflenet_v2_x1_0", ["stage2", "stage3"], 16, "stage2.1"),
        ("squeezenet1_1", ["features.4", "features.7"], 8, "features.3"),
        ("vgg16", ["features.3", "features.8", "features.15", "features.22"], 13, "features.1"),
        ("swin_t", ["features.1", "features.3", "features.5"], 12, "features.1.0.mlp"),
        ("maxvit_t", ["blocks.0", "blocks.1", "blocks.2"], 33, "blocks.0.layers.0.layers.MBconv"),
        (
            "regnet_y_400mf",
            [f"trunk_output.block{i}" for i in (1, 2, 3)],
            16,
            "trunk_output.block1.block1-0.f",
        ),
    ],
)
def test_stages_and_blocks_of_foreign_models_are_inferred(
    name: str, bottleneck: list[str], blocks: int, block: str
) -> None:
    # regnet needs values when it is made.
    needs_values = name.startswith("regnet")
    model = torchvision.models.get_model(name) if needs_values else empty(name)
    sites = find_sites(model)
    assert [site.name for site in sites.select("bottleneck")] == bottleneck
    every = [site.name for site in sites.select("every-block")]
    assert len(every) == blocks
    assert block in every or any(
        block.startswith(f"{name}.") for name in every
    )  # `layers.MBconv.layers`, of several blocks


def test_channels_last_maps_are_told_from_channels_first() -> None:
    sites = {site.name: site for site in find_sites(empty("swin_t"))}
    assert (
        sites["features.1"].layout,
        sites["features.1"].channels,
        sites["features.1"].height,
    ) == ("NHWC", 96, 56)
    assert (sites["features.0.0"].layout, sites["features.0.0"].channels) == ("NCHW", 96)


class Odd(nn.Module):
    """One of each kind of module that is no site; it returns a dict of a map and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.pair = Pair()
        self.windows = nn.Unflatten(0, (2, 1))
        self.fixed = nn.AdaptiveAvgPool2d(4)
        self.never = nn.Conv2d(3, 8, 3)
        self.weights = nn.Softmax(-1)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        y, _ = self.pair(self.conv(x))
        flat = y.flatten(2)
        weights = self.weights((flat.transpose(1, 2) @ flat)[:, None])
        return {"map": y, "more": (self.windows(self.fixed(y)), weights)}


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x + 1, 3


def test_every_module_that_is_no_site_has_its_reason() -> None:
    sites = find_sites(Odd(), (3, 8, 12))
    assert sites.names == ("conv",)
    assert sites.refused == {
        "pair": "returns a tuple",
        "windows": "returns a 5-D tensor, not a feature map",
        "fixed": "returns a 4-D tensor whose size does not follow the image's",
        "never": "is not called in a forward pass",
        "weights": "returns a 4-D tensor whose size does not follow the image's",
    }
    with pytest.raises(UserError, match="no repeated blocks"):
        sites.select("bottleneck")


def test_a_model_that_takes_one_size_only_is_read_by_division() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.widen, self.cube = (
                nn.Conv2d(3, 6, 2, 2),
                Last(),
                nn.Conv2d(6, 8, 1),
                Last(),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] == (16, 16)
            return self.cube(self.widen(self.last(self.first(x)).permute(0, 3, 1, 2)))

    sites = find_sites(Fixed(), (3, 16, 16))
    assert {site.name: site.layout for site in sites} == {
        "first": "NCHW",
        "last": "NHWC",
        "widen": "NCHW",
        "cube": "NHWC",  # 8 by 8 by 8: by where its elements come from
    }


class Last(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


def test_a_model_that_asks_for_values_is_watched_on_the_cpu() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) if x.sum().item() == 0 else x

    assert find_sites(Asks(), (3, 8, 8)).names == ("conv",)


def test_attention_that_is_there_already_is_looked_past() -> None:
    net = load_space("small").backbone(10)
    before = find_sites(net, (3, 32, 32))
    attach(net, "bottleneck=bam every-block=se", (3, 32, 32))
    assert find_sites(net, (3, 32, 32)) == before


@pytest.mark.parametrize("target", ["/(/", "/[[a]/", "/a{99999999999}/"])
def test_a_regular_expression_that_is_none_is_one_sentence(target: str) -> None:
    with pytest.raises(UserError, match="is no regular expression"):
        sites_of(load_space("small")).select(target)


def test_regular_expressions_and_lists() -> None:
    sites = sites_of(load_space("resnet18"))
    assert [s.name for s in sites.select(r"/layer[12]\.\d\.bn2/")] == [
        "layer1.0.bn2",
        "layer1.1.bn2",
        "layer2.0.bn2",
        "layer2.1.bn2",
    ]
    assert [s.name for s in sites.select("bottleneck,layer4")] == [
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    ]
    assert [s.name for s in sites.select("/layer(1|2),?/")] == ["layer1", "layer2"]
    assert [s.name for s in sites.select("/layer1/,layer[34]")] == ["layer1", "layer3", "layer4"]
    assert [s.name for s in sites.select("layer4,/layer{1,2}1/")] == ["layer4", "layer1"]
    assert Placement.parse("/layer1/,layer2=bam").choices[0][0] == "/layer1/,layer2"
