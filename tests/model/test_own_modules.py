"""Attention modules of a user's and of timm's are known by name, and treated as the package's."""

import copy
import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bam_search import UserError, attach, attached, count, detach, disabled, register_attention
from bam_search.model.attention import canonical, create, defaults, registry
from bam_search.model.attention_gain import attention_gains
from bam_search.model.insert import attended
from bam_search.score.fused import fused
from bam_search.space.modules import TIMM_NAMES, ModuleFile
from bam_search.space.placement import Choice
from bam_search.space.search_space import load_space

OWN = Path(__file__).parents[1] / "own_module.py"
SOURCE = f"{OWN}:CoordAttention"


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    yield
    for forget in registry._ON_CHANGE:
        forget()


def model() -> nn.Module:
    return load_space("small").backbone(10)


def test_a_module_of_a_file_goes_in_and_out_as_bam_does() -> None:
    register_attention("coord", SOURCE)
    net = model().eval()
    x = torch.rand(2, 3, 32, 32)
    keys, before = list(net.state_dict()), net(x)
    text = "bottleneck=coord(r=8) layer3=bam"
    placement = attach(net, text, (3, 32, 32))
    assert placement.text == "layer1=coord(r=8) layer2=coord(r=8) layer3=bam"
    assert not torch.equal(net(x), before)
    assert set(attention_gains(net, lambda: net(x))) == {"layer1", "layer2", "layer3"}
    new = [key for key in net.state_dict() if key not in keys]
    assert all(".attention." in key for key in new)
    assert attached(net) == placement
    with disabled(net):
        assert attached(net).text == "none"
        assert list(net.state_dict()) == keys
    detach(net)
    assert attached(net).text == "none"
    assert torch.equal(net(x), before)


def test_copies_tell_what_is_attached() -> None:
    register_attention("coord", SOURCE)
    net = model()
    placement = attach(net, "stage-ends=coord every-block=se", (3, 32, 32), init="identity")
    saved = io.BytesIO()
    torch.save(net, saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded):
        assert attached(copied) == placement
        detach(copied)
        assert attached(copied).text == "none"
        assert not attended(copied)


def test_what_is_attached_is_in_the_order_of_the_sites() -> None:
    net = model()
    attach(net, "layer3=se", (3, 32, 32))
    attach(net, "layer1=bam layer1.0.bn2=se", (3, 32, 32))
    assert attached(net).text == "layer1.0.bn2=se layer1=bam layer3=se"


def test_a_child_that_was_there_before_is_not_ours() -> None:
    net = model()
    net.get_submodule("layer1").add_module("attention", nn.Identity())
    assert attached(net).text == "none"
    detach(net)
    assert hasattr(net.get_submodule("layer1"), "attention")


def test_fused_training_leaves_a_users_normalisations_alone() -> None:
    register_attention("coord", SOURCE)
    net = model().train()
    attach(net, "every-block=coord", (3, 32, 32))
    with fused(net, backend="eager"):
        net(torch.rand(4, 3, 32, 32)).square().mean().backward()
    coord = net.get_submodule("layer1.0.bn2.attention")
    assert all(parameter.grad is not None for parameter in coord.parameters())


def test_a_class_and_a_file_that_runs_again_are_the_same_module() -> None:
    register_attention("coord", SOURCE)
    register_attention("coord", SOURCE)
    assert defaults("coord") == {"r": 32}
    assert registry.module_files() == {"coord": ModuleFile.parse(SOURCE)}

    register_attention("plain", Plain)
    assert defaults("plain") == {"scale": 1.0, "kind": "a"}
    chosen = canonical(Choice.of("plain", {"scale": 2}), 8, 8)
    assert chosen.text == "plain(scale=2.0)"


class Plain(nn.Module):
    def __init__(
        self,
        channels: int,
        scale: float = 1.0,
        act: type[nn.Module] = nn.ReLU,
        kind: str = "a",
    ) -> None:
        super().__init__()
        self.channels, self.scale, self.act, self.kind = channels, scale, act, kind

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Wrong(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class NoChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()


class Fails(nn.Module):
    def __init__(self, channels: int) -> None:
        raise ValueError(f"deliberate on {channels}")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("coord", "nowhere.py:CoordAttention", "there is no file 'nowhere.py'"),
        ("coord", f"{OWN}:CoordAtention", "has no class 'CoordAtention'"),
        ("coord", f"{OWN}:torch", "is no class of torch.nn.Module"),
        ("coord", "CoordAttention", "names no class in a Python file"),
        ("coord", dict, "dict is no class of torch.nn.Module"),
        ("coord", NoChannels, "cannot be called with a number of channels"),
        ("coord", Fails, "ValueError: deliberate on 256"),
        ("coord", Wrong, r"returns \(2, 512, 8, 8\) for a map of \(2, 256, 8, 8\)"),
        ("bam", SOURCE, "the name 'bam' is taken"),
        ("none", SOURCE, "the name 'none' is taken"),
        ("timm.se", SOURCE, "'timm.se' cannot name an attention module"),
        ("my coord", SOURCE, "'my coord' cannot name an attention module"),
    ],
)
def test_a_mistake_is_one_sentence(name: str, source: type | str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        register_attention(name, source)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert not registry.module_files()


def test_another_class_does_not_take_a_name() -> None:
    register_attention("coord", SOURCE)
    with pytest.raises(UserError, match="there is an attention module 'coord' already"):
        register_attention("coord", nn.Identity)


def test_a_file_that_changed_since_it_was_hashed_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN.read_text())
    file = ModuleFile.parse(f"{path}:CoordAttention")
    path.write_text(OWN.read_text() + "\n")
    with pytest.raises(UserError, match="is not the file that the study began with"):
        registry.use_module_files({"coord": file})


def test_what_a_file_imports_is_part_of_it(tmp_path: Path) -> None:
    text = OWN.read_text().replace("r: int = 32", "r: int = WIDTH")
    (tmp_path / "mine.py").write_text(f"from widths import WIDTH\n{text}")
    files = []
    for width in (32, 16):
        (tmp_path / "widths.py").write_text(f"WIDTH = {width}")
        files.append(ModuleFile.parse(f"{tmp_path}/mine.py:CoordAttention"))
        registry.use_module_files({"coord": files[-1]})
        assert defaults("coord") == {"r": width}
    with pytest.raises(UserError, match="is not the file that the study began with"):
        registry.use_module_files({"coord": files[0]})


class Asks(nn.Module):
    """Asks its tensors for their values when it is made, which tensors without any cannot say."""

    def __init__(self, channels: int, n: int = 3) -> None:
        super().__init__()
        self.shares = [value.item() for value in torch.linspace(0, 1, n)]
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x).sigmoid() * sum(self.shares)


def test_a_constructor_that_asks_for_values_has_them() -> None:
    register_attention("asks", Asks)
    state = torch.get_rng_state()
    assert canonical(Choice.of("asks", {"n": 4}), 8, 8).text == "asks(n=4)"
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(UserError, match="on 8 channels: RuntimeError"):
        canonical(Choice.of("asks", {"n": -1}), 8, 8)


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_timms_modules_keep_the_shape_and_are_counted(name: str) -> None:
    pytest.importorskip("timm")
    options = {"use_mlp": False} if name == "timm.ge" else {}  # timm 1.0.31 cannot build its MLP
    module = create(Choice.of(name, options), 64, nn.Identity()).eval()
    x = torch.rand(2, 64, 9, 7)
    assert module(x).shape == x.shape
    assert count(module, (64, 9, 7)).macs > 0


def test_timms_modules_go_in_by_name() -> None:
    pytest.importorskip("timm")
    net = model()
    text = "bottleneck=timm.gca(rd_ratio=0.25) every-block=timm.ese"
    placement = attach(net, text, (3, 32, 32))
    assert attached(net) == placement
    assert "layer1=timm.gca(rd_ratio=0.25)" in placement.text
    with pytest.raises(UserError, match=r"no attention module 'timm\.esee'") as caught:
        attach(net, "layer1=timm.esee", (3, 32, 32))
    assert "timm.ese" in caught.value.hint


def test_without_timm_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry._timm.cache_clear()
    monkeypatch.setitem(sys.modules, "timm.layers", None)
    with pytest.raises(UserError, match="which is not installed") as caught:
        attach(model(), "layer1=timm.ese", (3, 32, 32))
    assert caught.value.hint == "pip install timm"


def test_a_value_that_leaves_a_weight_without_elements_is_illegal() -> None:
    class Gate(nn.Module):
        def __init__(self, channels: int, ratio: int = 4) -> None:
            super().__init__()
            self.squeeze = nn.Conv2d(channels, channels // ratio, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x

    register_attention("empty_gate", Gate)
    assert canonical(Choice.of("empty_gate", {"ratio": 16}), 16, 8).text == "empty_gate(ratio=16)"
    with pytest.raises(UserError, match=r"on 16 channels: squeeze.weight has no elements"):
        canonical(Choice.of("empty_gate", {"ratio": 32}), 16, 8)
