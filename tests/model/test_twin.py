"""Copies are made of what `copy.deepcopy` refuses, and leave the model and its user alone."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from bam_search.errors import UserError
from bam_search.model.attach import attach
from bam_search.model.find_sites import find_sites
from bam_search.model.insert import attended
from bam_search.model.twin import twin_of
from bam_search.score.cost import count

SHAPE = (3, 16, 16)
IMAGES = torch.rand(2, *SHAPE)
MACS = 27 * 16 * 256 + 80
"""Those of Net's convolution and linear layer."""


class Net(nn.Module):
    """A convolution, a pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.stem(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class KeepsAList(Net):
    kept: list[Tensor]

    def features(self, x: Tensor) -> Tensor:
        self.kept = [*getattr(self, "kept", []), self.stem(x)]
        return self.kept[-1].mean((2, 3))


class KeepsInItsChild(Net):
    def features(self, x: Tensor) -> Tensor:
        self.stem.last = {"map": (self.stem(x).relu(), 1)}
        return self.stem.last["map"][0].mean((2, 3))


class KeepsItsLoss(Net):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        self.loss = y.square().mean()
        return y


class HasALock(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def features(self, x: Tensor) -> Tensor:
        with self.lock:
            return super().features(x)


class HasAGenerator(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stem.steps = (n for n in range(3))


class HasAModuleOfPython(Net):
    def __init__(self) -> None:
        super().__init__()
        self.library = {"functional": nn.functional}

    def features(self, x: Tensor) -> Tensor:
        return self.library["functional"].relu(super().features(x))


class HooksItself(Net):
    """Its own method is a hook, and what that keeps is what it classifies."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}
        self.stem.register_forward_hook(partial(self.keep, "map"))

    def keep(self, name: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self.kept[name] = output

    def features(self, x: Tensor) -> Tensor:
        self.stem(x)
        return self.kept["map"].mean((2, 3))


def with_stem(change: Callable[[nn.Module], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = Net()
        change(net.stem)
        return net

    return make


class Halving(prune.BasePruningMethod):
    """A user's own way to prune."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        mask = default_mask.expand_as(t).clone()
        mask.view(-1)[::2] = 0
        return mask


ODD: dict[str, Callable[[], nn.Module]] = {
    "keeps a list": KeepsAList,
    "keeps in its child": KeepsInItsChild,
    "keeps its loss": KeepsItsLoss,
    "old weight norm": with_stem(nn.utils.weight_norm),
    "old spectral norm": with_stem(nn.utils.spectral_norm),
    "weight norm": with_stem(parametrizations.weight_norm),
    "pruned at random": with_stem(lambda m: prune.random_unstructured(m, "weight", 0.5)),
    "pruned twice": with_stem(
        lambda m: (prune.l1_unstructured(m, "weight", 0.2), prune.identity(m, "bias"))
    ),
    "pruned in channels": with_stem(lambda m: prune.ln_structured(m, "weight", 0.5, n=2, dim=0)),
    "pruned by a user's method": with_stem(lambda m: Halving.apply(m, "weight")),
    "lock": HasALock,
    "generator": HasAGenerator,
    "module of Python": HasAModuleOfPython,
    "hooks itself": HooksItself,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_deepcopy_refuses_is_copied(make: Callable[[], nn.Module]) -> None:
    net = make()
    net(IMAGES).sum().backward()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert torch.equal(twin_of(net, "cpu").eval()(IMAGES), net.eval()(IMAGES))
    assert twin_of(net, "meta").eval()(IMAGES.to("meta")).shape == (2, 5)
    net.train()
    assert count(net, SHAPE).macs_conv_fc == MACS
    assert attach(net, "stem=bam(r=4,d=1)", SHAPE).text == "stem=bam(r=4,d=1)"
    after = net.state_dict()
    assert net.training
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_what_a_copy_keeps_is_not_what_the_model_keeps() -> None:
    net = KeepsAList()
    net(IMAGES)
    twin_of(net, "cpu")(IMAGES)
    count(net, SHAPE)
    assert len(net.kept) == 1
    hooked = HooksItself()
    hooked(IMAGES)
    kept = hooked.kept["map"]
    count(hooked, SHAPE)
    find_sites(hooked, SHAPE)
    assert hooked.kept["map"] is kept


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (with_stem(lambda m: m.add_module("more", nn.LazyConv2d(4, 1))), "'weight' of 'stem.more'"),
        (lambda: nn.Sequential(nn.LazyBatchNorm2d(), nn.Flatten()), "'weight' of '0', a Lazy"),
        (lambda: nn.LazyLinear(4), "'weight' of 'the model', a LazyLinear"),
        (lambda: _with_modules_beside_a_lock(), "'parts' of 'the model': TypeError"),
        (lambda: _refusing(), "RuntimeError: not twice"),
    ],
)
@pytest.mark.parametrize("call", [count, find_sites])
def test_what_cannot_be_copied_is_told(
    make: Callable[[], nn.Module], told: str, call: Callable[..., object]
) -> None:
    with pytest.raises(UserError, match="the model cannot be copied") as caught:
        call(make(), SHAPE)
    assert told in caught.value.message
    assert caught.value.hint


def _with_modules_beside_a_lock() -> nn.Module:
    net = Net()
    net.parts = [nn.Identity(), threading.Lock()]  # type: ignore[assignment]
    return net


def _refusing() -> nn.Module:
    class Once(Net):
        def __deepcopy__(self, memo: object) -> "Once":
            raise RuntimeError("not twice")

    return Once()


def _counted(seen: list[object], *_: object) -> None:
    seen.append(1)


class Recorder:
    """What users write to look into a network."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.lock = threading.Lock()

    def hook(self, *_: object) -> None:
        self.seen.append(1)

    def __call__(self, *_: object) -> None:
        self.seen.append(1)


HOOKS: dict[str, Callable[[nn.Module, Recorder], object]] = {
    "forward hook": lambda m, r: m.register_forward_hook(lambda *_: r.seen.append(1)),
    "pre-hook": lambda m, r: m.register_forward_pre_hook(lambda *_: r.seen.append(1)),
    "method": lambda m, r: m.register_forward_hook(r.hook),
    "callable": lambda m, r: m.register_forward_pre_hook(r),
    "partial": lambda m, r: m.register_forward_hook(partial(_counted, r.seen)),
    "with keywords": lambda m, r: m.register_forward_pre_hook(
        lambda *_: r.seen.append(1), with_kwargs=True, prepend=True
    ),
    "always called": lambda m, r: m.register_forward_hook(r.hook, always_call=True),
    "backward": lambda m, r: m.register_full_backward_hook(lambda *_: r.seen.append(1)),
    "state dict": lambda m, r: m.register_state_dict_post_hook(lambda *_: r.seen.append(1)),
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("hang", HOOKS.values(), ids=HOOKS)
def test_a_users_hooks_are_not_run_and_stay(hang: Callable[[nn.Module, Recorder], Any]) -> None:
    net, recorder = Net(), Recorder()
    hang(net.stem, recorder)
    hang(net, recorder)
    find_sites(net, SHAPE)
    attach(net, "stem=se(r=4)", SHAPE)
    count(net, SHAPE)
    assert recorder.seen == []
    net(IMAGES).sum().backward()
    net.state_dict()
    assert recorder.seen


def test_a_graph_is_copied_as_it_says() -> None:
    exported = torch.export.export(Net().eval(), (IMAGES[:1],)).module()
    assert exported._forward_pre_hooks  # which its __deepcopy__ leaves out
    assert torch.equal(twin_of(exported, "cpu")(IMAGES[:1]), exported(IMAGES[:1]))
    assert count(exported, SHAPE).macs_conv_fc == MACS


def test_inserted_attention_is_copied_and_felt() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Flatten(), nn.Linear(16 * 256, 4)).eval()
    attach(net, "0=se(r=4)", SHAPE)
    twin = twin_of(net, "cpu")
    assert list(attended(twin)) == ["0"]
    assert torch.equal(twin(IMAGES), net(IMAGES))
    with torch.no_grad():
        for parameter in twin.get_submodule("0.attention").parameters():
            parameter.add_(1)
    assert not torch.equal(twin(IMAGES), net(IMAGES))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_shared_is_shared_in_the_copy(device: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 8)
            self.b = nn.Linear(8, 8)
            self.b.weight = self.a.weight
            self.again = self.a
            self.plain = [self.a.weight]

    twin: Any = twin_of(Tied(), device)
    assert twin.again is twin.a
    assert twin.b.weight is twin.a.weight is twin.plain[0]
    assert twin.a.weight.device.type == device
    assert len(list(twin.parameters())) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_copy_keeps_dtypes_and_what_trains(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).to(dtype)
    net[0].requires_grad_(False)
    for twin in (twin_of(net, "cpu"), twin_of(net, "meta")):
        assert [(p.dtype, p.requires_grad) for p in twin.parameters()] == [
            (p.dtype, p.requires_grad) for p in net.parameters()
        ]
        assert [b.dtype for b in twin.buffers()] == [b.dtype for b in net.buffers()]


class Indexing(nn.Module):
    """Reads a table by a buffer of indices, made in one of three ways."""

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index)
        self.table = nn.Parameter(torch.zeros(7, 4))
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.table[self.index].sum(0)[:, None, None]


@pytest.mark.parametrize(
    "index", [torch.arange(7), torch.tensor([[6, 0], [1, 1]])[0], torch.ones(7, dtype=torch.bool)]
)
def test_a_model_on_the_meta_device_counts_as_anywhere(index: Tensor) -> None:
    there = Indexing(index)
    with torch.device("meta"):
        on_meta = Indexing(torch.empty(index.shape, dtype=index.dtype))
    assert count(on_meta, SHAPE).macs_conv_fc == count(there, SHAPE).macs_conv_fc == 3 * 4 * 256
    assert on_meta.index.is_meta


def test_a_copy_made_in_inference_mode_is_as_any() -> None:
    with torch.inference_mode():
        net = Net()
        twin = twin_of(net, "cpu")
        assert not any(p.is_inference() for p in twin.parameters())
        assert count(net, SHAPE).macs_conv_fc == MACS
