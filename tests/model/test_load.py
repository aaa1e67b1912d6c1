"""Search spaces by the name a user gives: files, functions, models of torchvision and timm."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bam_search.errors import UserError
from bam_search.model.build import backbone, sites_of
from bam_search.model.load import Inputs, load, names, natural_shape

MINE = """
    from dataclasses import dataclass
    from torch import nn
    from bam_search.space.search_space import SearchSpace
    import neighbour

    @dataclass
    class Widths:
        first: "int" = neighbour.WIDTH

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(width, width, 3, padding=1)

        def forward(self, x):
            return x + self.conv(x)

    class Net(nn.Sequential):
        def __init__(self, num_classes=7, width=Widths().first):
            features = nn.Conv2d(3, width, 1), Block(width), nn.MaxPool2d(2), Block(width)
            head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
            super().__init__(*features, *head)

    def plain():
        return Net(100)

    def one(classes_of_mine):
        return Net(classes_of_mine)

    def whole():
        return SearchSpace("whole", Net, (3, 16, 16), 5)

    def deep(depth, width, n):
        assert depth == 3
        return Net(n, width)

    def anything(**arguments):
        return Net(100, **arguments)

    def positional(n, /, width=16):
        return Net(n, width)

    def wrong():
        return 3

    def fails(classes):
        return 1 / 0
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "neighbour.py").write_text("WIDTH = 16\n")
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(MINE))
    return str(path)


@pytest.mark.parametrize("function", ["Net", "plain", "one"])
def test_a_function_or_class_of_the_users_is_a_space(mine: str, function: str) -> None:
    space = load(f"{mine}:{function}")
    assert (space.input_shape, space.classes) == ((3, 32, 32), 100)
    assert backbone(space, seed=0)[-1].out_features == 100
    sites = sites_of(space)
    assert [site.name for site in sites.select("every-block")] == ["1.conv", "3.conv"]
    assert [site.name for site in sites.select("bottleneck")] == ["1"]


def test_a_function_may_return_a_space(mine: str) -> None:
    assert load(f"{mine}:whole", Inputs((3, 32, 32), 100)).classes == 5


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("Net( width = 8 )", "Net(width=8)"),
        ("Net()", "Net"),
        ("deep(width=8,depth=3)", "deep(depth=3, width=8)"),
        ("anything(width=8)", "anything(width=8)"),
        ("positional(width=8)", "positional(width=8)"),
    ],
)
def test_arguments_reach_a_function_or_class_of_the_users(
    mine: str, function: str, text: str
) -> None:
    space = load(f"{mine}:{function}")
    assert space.name == f"{mine}:{text}"
    net = backbone(space, seed=0)
    assert net[0].out_channels == (8 if "width" in text else 16)
    assert net[-1].out_features == 100
    assert sum(p.numel() for p in backbone(load(space.name), seed=0).parameters()) == sum(
        p.numel() for p in net.parameters()
    )


@pytest.mark.parametrize(
    ("library", "reference", "changed"),
    [
        (
            "torchvision",
            "resnet18(zero_init_residual=True)",
            lambda net: net.layer1[0].bn2.weight[0] == 0,
        ),
        (
            "torchvision",
            "resnet50(replace_stride_with_dilation=[False,True,True])",
            lambda net: net.layer4[1].conv2.dilation == (4, 4),
        ),
        (
            "torchvision",
            "mobilenet_v2(width_mult=0.5)",
            lambda net: net.features[0][0].out_channels == 16,
        ),
        (
            "timm",
            "resnet10t(drop_path_rate=0.5)",
            lambda net: net.layer4[0].drop_path.drop_prob == 0.5,
        ),
        (
            "timm",
            "convnext_atto(dims=(8, 16, 32, 64))",
            lambda net: net.stages[3].blocks[0].mlp.fc1.in_channels == 64,
        ),
    ],
)
def test_arguments_reach_models_of_libraries(
    library: str, reference: str, changed: Callable[[Any], bool]
) -> None:
    pytest.importorskip(library)
    with torch.random.fork_rng():
        assert changed(backbone(load(f"{library}:{reference}"), seed=0))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (":Net(widht=8)", "Net has no argument 'widht'"),
        (":Net(num_classes=8)", "cannot have the argument 'num_classes'"),
        (":anything(classes=8)", "cannot have the argument 'classes'"),
        (":anything(widht=8)", "TypeError: .*widht"),
        (":deep(depth=4, width=8)", "failed: AssertionError"),
        ("torchvision:resnet18(weights='DEFAULT')", "cannot have the argument 'weights'"),
        ("torchvision:resnet18(widht=8)", "TypeError: .*widht"),
        ("small(depth=3)", r"there is no 'small\(depth=3\)'"),
        (":nott", "no function 'nott'"),
        (":wrong", "returned a int"),
        (":fails", "failed: ZeroDivisionError"),
        (".py:Net", "no file"),
        ("torchvision:resnet5", "no model 'resnet5'"),
        ("torchvisio:resnet50", "cannot read 'torchvisio:resnet50'"),
        ("smal", "there is no 'smal'"),
    ],
)
def test_a_mistake_is_one_sentence(mine: str, reference: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        backbone(load(f"{mine}{reference}" if reference[0] in ":." else reference), seed=0)


def test_a_file_that_cannot_be_imported_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def space(:\n")
    with pytest.raises(UserError, match=r"broken\.py cannot be imported: SyntaxError"):
        load(f"{tmp_path / 'broken.py'}:space")


def test_models_of_torchvision_have_the_images_they_were_made_for() -> None:
    assert len(names("torchvision")) >= 80
    assert load("torchvision:mobilenet_v2").input_shape == (3, 224, 224)
    assert natural_shape("torchvision:inception_v3") == (3, 299, 299)
    small = load("torchvision:mobilenet_v2", Inputs((3, 32, 32), 100))
    assert (small.input_shape, small.classes) == ((3, 32, 32), 100)
    assert backbone(small, seed=0).classifier[-1].out_features == 100


def test_models_of_timm() -> None:
    pytest.importorskip("timm")
    space = load("timm:resnet10t", Inputs((3, 64, 64), 10))
    assert [site.name for site in sites_of(space).select("bottleneck")] == [
        "layer1",
        "layer2",
        "layer3",
    ]
    assert natural_shape("timm:resnetrs50") == (3, 160, 160)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match="timm is not installed") as caught:
        load("timm:resnet18")
    assert caught.value.hint == "pip install timm"


def test_a_space_that_ships_takes_images_that_are_not_too_small() -> None:
    space = load("imagenet_resnet18", Inputs((3, 64, 64), 10))
    assert (space.input_shape, space.classes) == ((3, 64, 64), 10)
    with pytest.raises(UserError, match="is for images of 224x224 pixels, and these have 32x32"):
        load("imagenet_resnet18", Inputs((3, 32, 32), 100))


def test_a_users_space_keeps_its_own_inputs(mine: str) -> None:
    own = Path(mine).with_name("own.py")
    own.write_text(Path(mine).read_text() + "\nspace = whole\n")
    space = load(str(own), Inputs((3, 32, 32), 100))
    assert (space.input_shape, space.classes) == ((3, 16, 16), 5)


def test_a_function_s_space_follows_the_data_unless_it_says_what_it_is_for(tmp_path: Path) -> None:
    text = "from bam_search.space.search_space import SearchSpace\n"
    text += "from torchvision.models import resnet18\n"
    text += "def plain():\n    return SearchSpace('mine', lambda n: resnet18(num_classes=n))\n"
    text += "def own():\n    return SearchSpace('mine', resnet18, (3, 48, 48), 7)\n"
    (tmp_path / "net.py").write_text(text)
    inputs = Inputs((3, 64, 64), 10)
    plain, own = (load(f"{tmp_path}/net.py:{name}", inputs) for name in ("plain", "own"))
    assert (plain.input_shape, plain.classes) == (inputs.shape, inputs.classes)
    assert (own.input_shape, own.classes) == ((3, 48, 48), 7)


def test_arguments_that_are_missing_come_with_how_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from os import getcwd\ndef net(classes, depth):\n    return None\n"
    )
    with pytest.raises(UserError, match="depth") as caught:
        load(f"{tmp_path}/net.py:net")
    assert "net.py:net(NAME=VALUE)" in caught.value.hint
    with pytest.raises(UserError, match="has no function 'space'") as caught:
        load(f"{tmp_path}/net.py")
    assert "net.py:net" in caught.value.hint
