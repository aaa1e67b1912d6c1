"""Attention goes in and out without a trace, and every placement shares its backbone's start."""

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.attach import attach, attached, detach, disabled, fit_to_sites, resolve
from bam_search.model.attention import ATTENTION
from bam_search.model.build import backbone, build, sites_of
from bam_search.model.find_sites import find_sites
from bam_search.score.cost import count
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import load_space
from bam_search.space.sites import Site, Sites

SMALL = load_space("small")
SITES = sites_of(SMALL)
BOTH = "layer1=bam layer2.0.bn2=se(r=4)"  # a Sequential site, and one with a hook


def image() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_keys_of_the_backbone_stay_and_detach_restores() -> None:
    net = backbone(SMALL, seed=0).eval()
    before, keys = net(image()), list(net.state_dict())
    attach(net, BOTH, sites=SITES)
    added = [key for key in net.state_dict() if key not in keys]
    assert added
    assert all(key.startswith(("layer1.attention.", "layer2.0.bn2.attention.")) for key in added)
    assert not torch.equal(net(image()), before)
    detach(net)
    assert list(net.state_dict()) == keys
    assert torch.equal(net(image()), before)


def test_every_placement_shares_its_start() -> None:
    bare = build(SMALL, SITES, Placement(), seed=3).state_dict()
    some = build(SMALL, SITES, resolve("layer1=bam", SITES), seed=3).state_dict()
    more = build(SMALL, SITES, resolve("layer1=bam every-block=bam", SITES), seed=3).state_dict()
    assert all(torch.equal(bare[key], more[key]) for key in bare)
    assert all(torch.equal(some[key], more[key]) for key in some)
    other = build(SMALL, SITES, resolve("layer1=bam", SITES), seed=4).state_dict()
    assert not torch.equal(some["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(
        some["layer1.attention.spatial.layers.0.weight"],
        other["layer1.attention.spatial.layers.0.weight"],
    )


def test_attaching_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(_seed: int) -> None:
        raise AssertionError("a user's GPUs were seeded")

    net = backbone(SMALL, seed=0)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    attach(net, "layer1=bam", sites=SITES)


def test_building_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    build(SMALL, SITES, resolve(BOTH, SITES), seed=3)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_keep_their_own_attention(copier: object) -> None:
    net = build(SMALL, SITES, resolve(BOTH, SITES), seed=0).eval()
    twin = copier(net)  # type: ignore[operator]
    expected = net(image())
    detach(net)
    assert torch.equal(twin(image()), expected)
    detach(twin)
    assert torch.equal(twin(image()), net(image()))


class Drawn(nn.Module):
    """A model with a part that torch.fx has drawn, whose class makes itself anew when unpickled."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.stem, self.head = torch.fx.symbolic_trace(stem), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x)).mean((2, 3))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_graph_of_torch_fx_keeps_its_attention(copier: Callable[[Drawn], Drawn]) -> None:
    net = Drawn().eval()
    plain = net(image())
    attach(net, "stem=se(r=2)", (3, 32, 32))
    twin = copier(net)
    assert torch.equal(twin(image()), net(image()))
    assert attached(twin).text == "stem=se(r=2)"
    assert len(list(twin.stem.parameters())) == len(list(net.stem.parameters()))
    detach(twin)
    assert torch.equal(twin(image()), plain)
    assert isinstance(twin.stem, torch.fx.GraphModule)


class WritesLists(nn.Module):
    """Its forward pass writes into several tensors at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [self.a(x), self.b(x)]
        torch._foreach_add_(maps, 1.0)
        return maps[0] + maps[1]


def test_a_model_that_writes_into_lists_of_tensors_has_sites() -> None:
    assert find_sites(WritesLists(), (3, 32, 32)).names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer1=bam layer9=bam", "no site is named 'layer9'"),
        ("layer1=bam layer2=bam(r=65)", "at site 'layer2'.*65"),
        ("stage-ends=bam bottleneck=se", "'layer1' twice"),
        ("layer1=bam layer2=bamm", "no attention module 'bamm'"),
        ("layer1=bam fc=bam", "no attention can go to 'fc': it returns vectors"),
        ("layer1=bam layer1.0.relu=bam", "is called 2 times in one pass"),
        ("layer1=bam layer3=bam(d=5)", "dilation 5 is more than the map's side, 4"),
        ("layer1=bam /layer[/=bam", "no regular expression"),
    ],
)
def test_a_mistake_leaves_the_model_untouched(text: str, message: str) -> None:
    net = backbone(SMALL, seed=0)
    keys = list(net.state_dict())
    with pytest.raises(UserError, match=message):
        attach(net, Placement.parse(text), sites=SITES)
    assert list(net.state_dict()) == keys


def test_attention_does_not_go_in_twice() -> None:
    net = build(SMALL, SITES, resolve("layer1=bam", SITES), seed=0)
    with pytest.raises(UserError, match="already"):
        attach(net, resolve("layer2=bam layer1=bam", SITES), sites=SITES)
    assert not hasattr(net.layer2, "attention")


def test_resolve_is_canonical() -> None:
    texts = [
        "layer1=bam layer2=bam",
        "bottleneck=bam(r=16,d=4)",
        "layer2=bam layer1=bam(d=4)",
        "layer[12]=bam",
        "layer1,layer2=bam",
    ]
    texts += [
        "/layer(1|2)/=bam",
        "stage-ends=bam layer3=none",
        "bottleneck=bam(r=8) layer1=bam layer2=bam",
    ]
    assert {resolve(text, SITES).text for text in texts} == {"layer1=bam layer2=bam"}


def test_one_site_by_name_goes_before_a_set() -> None:
    assert resolve("bottleneck=bam layer2=bam(r=8)", SITES).text == "layer1=bam layer2=bam(r=8)"
    assert (
        resolve("bottleneck=bam stage-ends=se layer1=bam layer2=none", SITES).text
        == "layer1=bam layer3=se"
    )
    assert resolve("layer2=none every-block=se stage-ends=bam layer1=none", SITES).text == (
        "layer1.0.bn2=se layer2.0.bn2=se layer3.0.bn2=se layer3=bam"
    )


def test_fit_makes_what_a_set_says_small_enough() -> None:
    narrow = Sites(
        (
            Site("a", 64, 16, 16, roles=("stage-ends", "bottleneck")),
            Site("b", 8, 2, 3, roles=("stage-ends", "bottleneck")),
            Site("c", 8, 2, 2, roles=("stage-ends",)),
        )
    )
    placement, changes = fit_to_sites("stage-ends=bam(n=1)", narrow)
    assert placement.text == "a=bam(n=1) b=bam(r=8,d=2,n=1) c=bam(r=8,d=2,n=1)"
    assert len(changes) == 1
    assert changes[0].startswith("at b and 1 more: bam(n=1): r = 16 on 8 channels")
    assert changes[0].endswith("bam(r=8,d=2,n=1) takes its place")
    assert fit_to_sites("bottleneck=se(r=4)", narrow) == (resolve("bottleneck=se(r=4)", narrow), ())
    with pytest.raises(UserError, match="at site 'b'"):
        fit_to_sites("a=bam b=bam", narrow)  # what is said of one site by name is meant
    with pytest.raises(UserError, match="n = 0"):
        fit_to_sites("stage-ends=bam(n=0)", narrow)


@pytest.mark.parametrize(
    "table",
    [
        {"layer1": "bam", "layer2.0.bn2": "bam(r=8)"},
        {"layer1": Choice("bam"), "layer2.0.bn2": Choice.of("bam", {"r": 8})},
        Placement.parse("layer1=bam layer2.0.bn2=bam(r=8)").to_dict(),
    ],
)
def test_a_placement_may_be_a_mapping(table: dict[str, object]) -> None:
    net = backbone(SMALL, seed=0)
    assert attach(net, table, sites=SITES) == attached(net)
    assert {site for site, _ in attached(net).choices} == {"layer1", "layer2.0.bn2"}


def test_fit_makes_what_is_too_large_small_enough() -> None:
    net = backbone(SMALL, seed=0)
    placement = "every-block=bam(r=4096)"
    with pytest.raises(UserError, match="r = 4096"):
        attach(net, placement, sites=SITES)
    attach(net, placement, sites=SITES, fit=True)
    assert attached(net) == fit_to_sites(placement, SITES)[0]


def test_one_wrong_site_among_ten_leaves_the_model_as_it_was() -> None:
    net = backbone(SMALL, seed=0)
    names = [
        "conv1",
        "bn1",
        "layer1.0.conv1",
        "layer1.0.bn1",
        "layer1.0.conv2",
        "layer1",
        "layer2.0.conv9",
        "layer2",
        "layer3.0.bn1",
        "layer3",
    ]
    before = io.BytesIO()
    torch.save(net, before)
    with pytest.raises(UserError, match=r"'layer2\.0\.conv9'") as caught:
        attach(net, " ".join(f"{name}=bam" for name in names), (3, 32, 32))
    assert "layer2.0.conv" in caught.value.hint
    after = io.BytesIO()
    torch.save(net, after)
    assert before.getvalue() == after.getvalue()


def test_what_is_disabled_takes_no_attention_and_gives_none_back() -> None:
    net = build(SMALL, SITES, BOTH, seed=0).eval()
    expected = net(image())
    with disabled(net):
        for act in (lambda: attach(net, "layer2=bam", sites=SITES), lambda: detach(net)):
            with pytest.raises(UserError, match="the model's attention is disabled"):
                act()
        free = copy.deepcopy(net)
    assert torch.equal(net(image()), expected)
    # A copy that was made meanwhile is a backbone of its own, and its attention runs once.
    attach(free, BOTH, sites=SITES, seed=0)
    assert torch.equal(free(image()), expected)
    detach(free)
    assert list(free.state_dict()) == list(backbone(SMALL, seed=0).state_dict())


def test_a_site_takes_attention_once() -> None:
    net = build(SMALL, SITES, "layer1=bam", seed=0)
    with pytest.raises(UserError, match="detach it first"):
        attach(net, "layer1=bam", sites=SITES)


def test_disabled_is_the_backbone_for_a_while() -> None:
    net = backbone(SMALL, seed=0).eval()
    pretrained, expected = copy.deepcopy(net.state_dict()), net(image())
    attach(net, BOTH, (3, 32, 32))
    attended, keys = net(image()), list(net.state_dict())
    heard = []
    net.layer2[0].bn2.register_forward_hook(lambda _module, _args, output: heard.append(output))
    with disabled(net):
        assert torch.equal(net(image()), expected)
        net.load_state_dict(pretrained, strict=True)
    assert list(net.state_dict()) == keys
    assert torch.equal(net(image()), attended)
    # A hook of the user's still comes after the attention.
    assert not torch.equal(heard[0], heard[1])


@pytest.mark.parametrize("module", sorted(set(ATTENTION) - {"block"}))
def test_identity_changes_nothing_until_it_is_trained(module: str) -> None:
    net = backbone(SMALL, seed=0)
    before = net.eval()(image())
    attach(net, f"layer1={module} layer2.0.bn2={module}", (3, 32, 32), init="identity")
    assert torch.equal(net.eval()(image()), before)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # the gate moves first, then what is behind it
        optimizer.zero_grad()
        net.train()(image()).square().mean().backward()
        optimizer.step()
    added = {key: p for key, p in net.named_parameters() if ".attention." in key}
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for key, p in added.items()
        if key.endswith("gate")
    )
    assert not torch.equal(net.eval()(image()), before)


def test_a_child_of_the_models_own_is_not_taken_for_ours() -> None:
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 16, 3), attention=nn.Conv2d(16, 16, 1)))
    keys = list(net.state_dict())
    attach(net, "conv=se", (3, 8, 8))
    detach(net)
    assert list(net.state_dict()) == keys


def test_attention_goes_where_and_as_what_the_model_is() -> None:
    net = backbone(SMALL, seed=0).to(torch.float64).eval()
    attach(net, BOTH, (3, 32, 32))
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    assert net(image().double()).dtype == torch.float64
    assert count(net, (3, 32, 32)) == count(net.float(), (3, 32, 32))
    assert not any(m.training for m in net.modules())
    with torch.device("meta"):
        empty = backbone(SMALL, seed=0)
    attach(empty, BOTH, (3, 32, 32))
    assert all(p.is_meta for p in empty.parameters())


class Chain(nn.Module):
    """Runs over its children, and so would run over one more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.chain, self.head = Chain(), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.chain(x))


def test_a_site_that_runs_over_its_children_does_not_find_one_more() -> None:
    net = Net()
    plain, state = net.chain(image()), list(net.state_dict())
    attach(net, "chain=se", (3, 32, 32))
    assert torch.equal(net(image()), net.head(net.chain.attention(plain)))
    assert set(net.state_dict()) - set(state) == {
        f"chain.attention.gate.{i}.{kind}" for i in (1, 3) for kind in ("weight", "bias")
    }
    with pytest.raises(RuntimeError):
        net(image()[:, :2])
    assert hasattr(net.chain, "attention")  # also after a pass that failed
    detach(net)
    assert torch.equal(net.chain(image()), plain)
    assert not net.chain._forward_hooks
    assert not net.chain._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: attach(net, "layer1=bam", (32,)), r"not \(C, H, W\)"),
        (lambda net: attach(net, "layer1=bam", (3, 32, 32), init="zero"), "init = 'zero'"),
        (
            lambda net: attach(torch.compile(net), "layer1=bam", (3, 32, 32)),
            "the model is compiled already",
        ),
        (
            lambda net: attach(torch.jit.script(net), "layer1=bam", (3, 32, 32)),
            "the model is scripted already",
        ),
        (lambda net: attach(net, "layer1=bam", (4, 32, 32)), "cannot run on images"),
    ],
)
def test_what_cannot_be_is_said(call: Callable[[nn.Module], object], message: str) -> None:
    net = backbone(SMALL, seed=0)
    with pytest.raises(UserError, match=message):
        call(net)
