"""Sites, their roles, and the targets that name them."""

import pytest
import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.build import sites_of
from bam_search.model.sites import find_sites, menu, select
from bam_search.space.search_space import SearchSpace, load_space


@pytest.mark.parametrize(
    ("name", "stages", "blocks"),
    [
        ("resnet18", 4, [f"layer{i}.{j}.bn2" for i in (1, 2, 3, 4) for j in (0, 1)]),
        ("resnet50", 4, [f"layer{i}.{j}.bn3" for i, n in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True) for j in range(n)]),
        ("small", 3, [f"layer{i}.0.bn2" for i in (1, 2, 3)]),
    ],
)
def test_stages_and_blocks_are_found(name: str, stages: int, blocks: list[str]) -> None:
    sites = sites_of(load_space(name))
    ends = [f"layer{i + 1}" for i in range(stages)]
    assert [site.name for site in select("stage-ends", sites)] == ends
    assert [site.name for site in select("bottleneck", sites)] == ends[:-1]
    assert [site.name for site in select("every-block", sites)] == blocks


def test_shapes_are_those_of_a_forward_pass() -> None:
    shapes = {site.name: (site.channels, site.height, site.width) for site in sites_of(load_space("resnet50"))}
    assert shapes["layer1"] == shapes["layer1.0.bn3"] == (256, 32, 32)
    assert shapes["layer4"] == (2048, 4, 4)
    assert shapes["layer2.0.bn1"] == (128, 16, 16)  # the stride is on the first 1x1
    assert "fc" not in shapes


def test_targets() -> None:
    sites = sites_of(load_space("resnet18"))
    assert [s.name for s in select("layer3", sites)] == ["layer3"]
    assert [s.name for s in select("layer2.*.bn2", sites)] == ["layer2.0.bn2", "layer2.1.bn2"]
    assert [s.name for s in select("layer4,layer1", sites)] == ["layer4", "layer1"]


@pytest.mark.parametrize(("target", "nearest"), [("layer5", "layer"), ("every_block", "every-block"), ("layer1.0.bn9", "layer1.0.bn")])
def test_an_unknown_target_gets_the_nearest_name(target: str, nearest: str) -> None:
    with pytest.raises(UserError, match="no site is named") as caught:
        select(target, sites_of(load_space("resnet18")))
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
    assert find_sites(net, (3, 9, 11))[0].width == 9
    assert next(net.parameters()).device.type == "cpu"
    assert not net.once._forward_hooks


def test_the_menu_holds_what_is_legal_at_each_site() -> None:
    space = SearchSpace("s", load_space("small").backbone, modules={"bam": {"r": (4, 64), "d": (1, 4, 6)}, "se": {"r": (16,)}})
    offered = menu(space, sites_of(space))
    assert list(offered.sites) == ["layer1.0.bn2", "layer1", "layer2.0.bn2", "layer2", "layer3.0.bn2", "layer3"]
    assert offered.sites["layer1"]["bam"] == {"r": (4,), "d": (1, 4, 6)}  # 32 channels, 16x16
    assert offered.sites["layer3"]["bam"] == {"r": (4, 64), "d": (1, 4)}  # 128 channels, 4x4: d = 6 is d = 4 again


def test_a_space_that_offers_nothing_is_refused() -> None:
    space = SearchSpace("s", load_space("small").backbone, modules={"bam": {"r": (4096,)}})
    with pytest.raises(UserError, match="offers nothing"):
        menu(space, sites_of(space))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda _classes: 3, "is a int"),
        (lambda _classes: 1 / 0, "ZeroDivisionError"),
        (lambda classes: nn.Conv2d(4, classes, 3), "cannot run on an image"),
    ],
)
def test_a_backbone_that_fails_is_one_sentence(backbone: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sites_of(SearchSpace("mine", backbone))  # type: ignore[arg-type]


def test_a_space_that_offers_nonsense_is_refused() -> None:
    space = SearchSpace("s", load_space("small").backbone, modules={"bam": {"r": (4, 7.5)}})
    with pytest.raises(UserError, match=r"r=7\.5"):
        menu(space, sites_of(space))
