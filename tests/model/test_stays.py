"""Attention stays where it was put, or a sentence says that it does not.

Each kind of thing that people do to a model with attention has several members here.
"""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import fuse_modules
from torch.fx.experimental.optimization import fuse
from torchvision.ops import Conv2dNormActivation, FrozenBatchNorm2d

from bam_search import UserError, attach, attached, detach, disabled, find_sites
from bam_search.model.insert import attended

SHAPE = (3, 16, 16)


class Block(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self, make: Callable[[], nn.Module] = Block) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = make(), make()
        self.body = nn.Sequential(Block(), Block())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.second(self.first(self.stem(x)))).mean((2, 3)))


def image(n: int = 2) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def net(placement: str = "", make: Callable[[], nn.Module] = Block) -> nn.Module:
    torch.manual_seed(0)
    model = Net(make).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
    if placement:
        attach(model, placement, SHAPE)
    return model


def times(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """How often the attention at each site runs."""
    counts: dict[str, int] = {}

    def count(name: str, *_: object) -> None:
        counts[name] = counts.get(name, 0) + 1

    hooks = [
        model.get_submodule(child).register_forward_hook(functools.partial(count, site))
        for site, child in attended(model).items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return counts


EVERYWHERE = "first.bn=bam(r=4,d=1) second=se(r=4) body.1.bn=se(r=4) body=bam(r=4,d=1)"


def replaced(kind: type, make: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], None]:
    """Replace each module of a kind, as conversions do."""

    def convert(model: nn.Module) -> None:
        for name, module in list(model.named_modules()):
            parent, _, own = name.rpartition(".")
            if isinstance(module, kind) and ".attention" not in name:
                setattr(model.get_submodule(parent), own, make(module))

    return convert


def with_children(module: nn.Module) -> nn.Module:
    new = nn.GroupNorm(2, 8)
    for name, child in module.named_children():
        new.add_module(name, child)
    return new


MOVED: dict[str, Callable[[nn.Module], object]] = {
    "synchronised": nn.SyncBatchNorm.convert_sync_batchnorm,
    "group normalisation, with children": replaced(nn.BatchNorm2d, with_children),
    "a container of the same modules": lambda model: setattr(
        model, "body", nn.Sequential(OrderedDict(model.body.named_children()))
    ),
}


@pytest.mark.parametrize("how", MOVED)
def test_attention_that_moved_with_a_replaced_site_stays_in_effect(how: str) -> None:
    model = net(EVERYWHERE)
    changed = MOVED[how](model)
    model = changed if isinstance(changed, nn.Module) else model
    found = times(model.eval(), lambda: model(image()))
    assert found == dict.fromkeys(attended(model), 1)
    assert attached(model).text == EVERYWHERE
    detach(model)
    assert not any("attention" in key for key in model.state_dict())
    assert not any(module._forward_hooks for module in model.modules())


LOST: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "frozen": (
        replaced(nn.BatchNorm2d, lambda norm: FrozenBatchNorm2d(norm.num_features)),
        r"'first\.bn'.* FrozenBatchNorm2d",
    ),
    "no more": (lambda model: setattr(model, "second", nn.Identity()), "'second'.* Identity"),
    "another block": (lambda model: setattr(model, "first", Block()), r"'first\.bn'"),
    "another container": (lambda model: setattr(model, "body", nn.Sequential(Block())), "'body'"),
    "taken out by hand": (lambda model: delattr(model.second, "attention"), "'second'"),
    "deleted": (lambda model: model.body.pop(-1), r"'body\.1\.bn'.* is gone"),
}


@pytest.mark.parametrize("how", LOST)
def test_the_next_pass_says_which_site_lost_its_attention(how: str) -> None:
    change, message = LOST[how]
    model = net(EVERYWHERE)
    change(model)
    with pytest.raises(UserError, match=message):
        model(image())
    assert len(attached(model).choices) < 4
    detach(model)
    model(image())
    assert not any("attention" in key for key in model.state_dict())


def test_what_fuses_by_exact_class_leaves_sites_alone() -> None:
    model = net("first.bn=bam(r=4,d=1)")
    expected = model(image())
    torch.testing.assert_close(fuse(model)(image()), expected)
    with pytest.raises(AssertionError, match="did not find fuser method"):  # torch's own
        fuse_modules(model, ["first.conv", "first.bn"])
    fused = fuse_modules(model, ["second.conv", "second.bn"])
    torch.testing.assert_close(fused(image()), expected)


class Helper(Block):
    """Runs over its children in a method of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


def chain(module: nn.Module, x: Tensor) -> Tensor:
    return functools.reduce(lambda value, layer: layer(value), module._modules.values(), x)


class Free(Block):
    """Has a function run over its children."""

    def forward(self, x: Tensor) -> Tensor:
        return chain(self, x)


def decorated(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def run(self: nn.Module, x: Tensor) -> Tensor:
        for _, layer in self.named_children():
            x = layer(x)
        return forward(self, x)

    return run


class Decorated(Block):
    """A decorator runs over its children."""

    @decorated
    def forward(self, x: Tensor) -> Tensor:
        return x


class Walk(nn.Sequential):
    """A Sequential that does not run itself."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 8, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        for layer in list(self.modules())[1:]:
            if not list(layer.children()):
                x = layer(x)
        return x


@pytest.mark.parametrize("make", [Helper, Free, Decorated, Walk])
def test_attention_runs_once_whoever_runs_over_the_children(make: Callable[[], nn.Module]) -> None:
    plain = net(make=make)
    expected = plain.first(plain.stem(image()))
    model = net("first=se(r=4)", make)
    assert times(model, lambda: model(image())) == {"first": 1}
    got = model.first(model.stem(image()))
    torch.testing.assert_close(got, model.first.attention(expected))
    assert "first.attention.gate.1.weight" in model.state_dict()


class Outside(nn.Module):
    """Runs a block, and then the block's children once more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 8, 1), Block(), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        for layer in self.block.children():
            x = layer(x)
        return self.head(x)


def test_a_site_whose_children_something_else_runs_over_is_refused() -> None:
    assert (
        find_sites(Outside(), SHAPE).refused["block"]
        == "has children that something else runs over"
    )


class Listening(nn.Module):
    """Takes what it goes on with from a hook, as timm's feature extractors do."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.heard = net(), []
        self.net.second.register_forward_hook(lambda _module, _args, out: self.heard.append(out))

    def forward(self, x: Tensor) -> Tensor:
        self.heard.clear()
        self.net(x)
        return self.heard[0]


def test_a_hook_that_was_there_before_hears_the_attention() -> None:
    model = Listening()
    attach(model.net, "second=se(r=4)", SHAPE)
    found = model(image())
    with disabled(model.net):
        plain = model(image())
    torch.testing.assert_close(found, model.net.second.attention(plain))


class Mapping(nn.ModuleDict):
    """Runs over what it holds, as DenseNet's blocks do."""

    def __init__(self) -> None:
        super().__init__({"conv": nn.Conv2d(8, 8, 1), "act": nn.ReLU()})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = layer(x)
        return x


def sequential() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())


CONTAINERS = [sequential, functools.partial(Conv2dNormActivation, 8, 8), Walk, Mapping]


@pytest.mark.parametrize("make", CONTAINERS)
def test_a_container_does_not_see_the_attention(make: Callable[[], nn.Module]) -> None:
    plain, model = net(make=make).first, net("first=se(r=4)", make)
    site = model.first
    assert len(site) == len(plain)
    assert [str(entry) for entry in site] == [str(entry) for entry in plain]
    assert repr(site).splitlines()[:3] == repr(plain).splitlines()[:3]
    assert type(site).__name__ == type(plain).__name__
    assert times(model, lambda: model(image())) == {"first": 1}
    if isinstance(site, nn.ModuleDict):
        assert list(site.items()) == list(zip(site.keys(), site.values(), strict=True))
        assert "attention" not in site
        return
    assert type(site[-1]) is type(plain[-1])
    if type(plain) is nn.Sequential:
        assert type(site[:1]) is nn.Sequential
        assert list(site[:1].state_dict()) == list(plain[:1].state_dict())
    site.append(nn.Identity())
    site.insert(0, nn.Identity())
    site[1] = nn.Conv2d(8, 8, 1)
    del site[-1]
    assert len(site) == len(plain) + 1
    assert times(model, lambda: model(image())) == {"first": 1}
    assert [key for key in model.state_dict() if "attention" in key]


def test_a_copy_of_a_site_has_its_class_and_detach_gives_the_old_one_back() -> None:
    model = net(EVERYWHERE)
    twin = copy.deepcopy(model)
    assert type(twin.first.bn) is type(model.first.bn) is not nn.BatchNorm2d
    detach(twin)
    assert type(twin.first.bn) is nn.BatchNorm2d
    assert type(twin.body) is nn.Sequential


class Own(Block):
    """Has an attribute `attention` of its own."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.attention = value

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return self.attention(x) if isinstance(self.attention, nn.Module) else x


class Method(Block):
    def attention(self) -> float:
        return 1.0


OWN: dict[str, Callable[[], nn.Module]] = {
    "a module": lambda: Own(nn.Conv2d(8, 8, 1)),
    "a number": lambda: Own(0.5),
    "nothing": lambda: Own(None),
    "a method": Method,
}


@pytest.mark.parametrize("what", OWN)
def test_a_site_keeps_an_attention_of_its_own(what: str) -> None:
    make = OWN[what]
    before = list(net(make=make).state_dict())
    model = net("first=bam(r=4,d=1)", make)
    assert times(model, lambda: model(image())) == {"first": 1}
    added = [key for key in model.state_dict() if key not in before]
    assert added
    assert all(key.startswith("first.bam_attention.") for key in added)
    with disabled(model):
        assert list(model.state_dict()) == before
    detach(model)
    assert list(model.state_dict()) == before


def test_a_site_with_both_names_taken_is_refused() -> None:
    model = net(make=Method)
    model.first.bam_attention = None
    with pytest.raises(UserError, match="'bam_attention' of its own"):
        attach(model, "first=se(r=4)", SHAPE)


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def submodule(model: nn.Module) -> nn.Module:
    model.body = torch.compile(model.body, backend="eager")
    return model


def around(model: nn.Module) -> nn.Module:
    model.first.compile(backend="eager")
    return model


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("change", "placement", "where"),
    [
        (in_place, "second=se(r=4)", "the model is compiled already"),
        (submodule, "body=se(r=4)", "submodule 'body' is compiled"),
        (around, "first.bn=se(r=4)", "submodule 'first' is compiled"),
    ],
)
def test_attention_does_not_go_into_what_is_compiled(
    change: Callable[[nn.Module], nn.Module], placement: str, where: str
) -> None:
    model = change(net())
    sites = find_sites(net(), SHAPE)
    with pytest.raises(UserError, match=where) as caught:
        attach(model, placement, sites=sites)
    assert "then compile" in caught.value.hint
    # What is compiled elsewhere does not matter.
    attach(around(net()), "second=se(r=4)", sites=sites)


def test_what_was_compiled_before_feels_what_is_attached_and_detached() -> None:
    model = net()
    fast = torch.compile(model, backend="eager")
    with torch.no_grad():
        before = fast(image())
        attach(model, EVERYWHERE, SHAPE)
        after = fast(image())
        torch.testing.assert_close(after, model(image()))
        assert (after - before).abs().max() > 1e-3
        with disabled(model):
            torch.testing.assert_close(fast(image()), before)
        torch.testing.assert_close(fast(image()), after)
        detach(model)
        torch.testing.assert_close(fast(image()), before)
