"""Attention goes in and out without a trace, and every placement shares its backbone's start."""

import copy
import pickle

import pytest
import torch

from bam_search.errors import UserError
from bam_search.model.attach import attach, detach, resolve
from bam_search.model.build import backbone, build, sites_of
from bam_search.space.placement import Placement
from bam_search.space.search_space import load_space

SMALL = load_space("small")
SITES = sites_of(SMALL)
BOTH = "layer1=bam layer2.0.bn2=se(r=4)"  # a Sequential site, and one with a hook


def image() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_keys_of_the_backbone_stay_and_detach_restores() -> None:
    net = backbone(SMALL, seed=0).eval()
    before, keys = net(image()), list(net.state_dict())
    attach(net, resolve(BOTH, SITES), SITES)
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
    assert not torch.equal(some["layer1.attention.spatial.layers.0.weight"], other["layer1.attention.spatial.layers.0.weight"])


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer1=bam layer9=bam", "no site is named 'layer9'"),
        ("layer1=bam layer2=bam(r=65)", "at site 'layer2'.*65"),
        ("layer1=bam bottleneck=se", "'layer1' twice"),
        ("layer1=bam layer2=bamm", "no attention module 'bamm'"),
    ],
)
def test_a_mistake_leaves_the_model_untouched(text: str, message: str) -> None:
    net = backbone(SMALL, seed=0)
    keys = list(net.state_dict())
    with pytest.raises(UserError, match=message):
        attach(net, Placement.parse(text), SITES)
    assert list(net.state_dict()) == keys


def test_attention_does_not_go_in_twice() -> None:
    net = build(SMALL, SITES, resolve("layer1=bam", SITES), seed=0)
    with pytest.raises(UserError, match="already"):
        attach(net, resolve("layer2=bam layer1=bam", SITES), SITES)
    assert not hasattr(net.layer2, "attention")


def test_resolve_is_canonical() -> None:
    texts = ["layer1=bam layer2=bam", "bottleneck=bam(r=16,d=4)", "layer2=bam layer1=bam(d=4)", "layer[12]=bam", "layer1,layer2=bam"]
    assert {resolve(text, SITES).text for text in texts} == {"layer1=bam layer2=bam"}
