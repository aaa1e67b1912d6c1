"""The closed forms are exactly what fvcore counts.

Compared are parameters, activations and every operator, for any placement.
"""

import random

import pytest
import torch
from conftest import without_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bam_search.errors import UserError
from bam_search.model.attach import attach, resolve
from bam_search.model.attention import ATTENTION, canonical, create
from bam_search.model.build import sites_of
from bam_search.score.cost import Cost, count
from bam_search.score.cost_table import CostTable, cost_table
from bam_search.score.formula import FORMULAS, increment
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import SearchSpace, load_space
from bam_search.space.sites import Site, Sites

VALUES = {
    "bam": {
        "r": (2, 4, 8, 16, 32),
        "d": (1, 2, 4, 6),
        "n": (1, 2, 3),
        "branches": ("both", "channel", "spatial"),
        "combine": ("sum", "product", "max"),
        "end_bn": (True, False),
    },
    "se": {"r": (2, 4, 8, 16)},
    "cbam": {"r": (2, 4, 8, 16), "k": (3, 5, 7)},
    "eca": {"gamma": (1, 2, 3), "b": (1, 2, 5)},
    "gc": {"r": (2, 4, 8, 16)},
}
SPACES = ("small", "resnet18", "resnet50", "wrn28_8", "resnext29_8x64d", "preresnet110")
FEW_BLOCKS = ("small", "small_preact", "small_resnext", "resnet18")
"""Spaces of the same families that are traced quickly."""


def choice(rng: random.Random, channels: int, side: int = 65536) -> Choice:
    """A random legal choice among all modules that have a formula."""
    while True:
        module = rng.choice(sorted(VALUES))
        drawn = Choice.of(
            module,
            {
                name: rng.choice(values)
                for name, values in VALUES[module].items()
                if rng.random() < 0.7
            },
        )
        try:
            return canonical(drawn, channels, side)
        except UserError:
            continue


def table(space: SearchSpace) -> tuple[Sites, CostTable]:
    sites = sites_of(without_values(space))
    return sites, cost_table(without_values(space), sites)


def traced(space: SearchSpace, sites: Sites, placement: Placement) -> Cost:
    net = without_values(space).backbone(space.classes)
    with torch.device("meta"):
        attach(net, placement, sites=sites)
    return count(net, space.input_shape)


def check_random_placements(name: str, examples: int) -> None:
    space = load_space(name)
    sites, costs = table(space)
    legal = [site for site in sites if site.channels >= 16]
    rng = random.Random(name)
    for _ in range(examples):
        chosen = rng.sample(legal, rng.randint(1, min(12, len(legal))))
        placement = resolve(
            Placement.of({site.name: choice(rng, site.channels, site.side) for site in chosen}),
            sites,
        )
        assert costs.cost(placement) == traced(space, sites, placement), placement.text


@pytest.mark.parametrize("space", FEW_BLOCKS)
def test_closed_forms_equal_fvcore_on_random_placements(space: str) -> None:
    check_random_placements(space, 6)


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_closed_forms_equal_fvcore_on_six_hundred_random_placements(space: str) -> None:
    check_random_placements(space, 100)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(16, 96), st.integers(1, 9), st.integers(1, 9))
def test_each_formula_equals_fvcore_on_any_map(
    seed: int, channels: int, height: int, width: int
) -> None:
    chosen = choice(random.Random(seed), channels)
    added = increment(chosen, Site("x", channels, height, width))
    alone = count(create(chosen, channels, torch.nn.Identity()), (channels, height, width))
    assert added.params == alone.params
    assert added.activations == alone.activations
    assert added.by_operator == alone.by_operator


@pytest.mark.parametrize("module", ["bam", "se", "cbam", "gc"])
def test_r_lowers_every_count_and_d_changes_none(module: str) -> None:
    site = Site("x", 256, 8, 8)
    by_r = [increment(Choice.of(module, {"r": r}), site) for r in (2, 4, 8, 16, 32)]
    for values in (
        [added.params for added in by_r],
        [sum(added.by_operator.values()) for added in by_r],
    ):
        assert values == sorted(set(values), reverse=True)
    if module == "bam":
        assert len({str(increment(Choice.of(module, {"d": d}), site)) for d in (1, 2, 4, 6)}) == 1


def test_every_module_but_block_has_a_formula() -> None:
    assert set(FORMULAS) == set(VALUES) == set(ATTENTION) - {"block"}


@pytest.mark.parametrize(
    ("space", "params"), [("resnet50", 25.17), ("wrn28_8", 24.88), ("resnext29_8x64d", 37.31)]
)
def test_one_more_block_costs_what_is_published(space: str, params: float) -> None:
    loaded = load_space(space)
    sites, costs = table(loaded)
    placement = resolve("bottleneck=block", sites)
    cost = costs.cost(placement)
    assert round(cost.params / 1e6, 2) == params
    assert cost == traced(loaded, sites, placement)


@pytest.mark.parametrize(
    ("space", "params", "giga"),
    [
        ("resnet18", 11_712_503, 1.819),
        ("resnet50", 25_915_099, 3.940),
        ("resnet101", 44_907_227, 7.652),
    ],
)
def test_published_counts_for_imagenet(space: str, params: int, giga: float) -> None:
    sites, costs = table(load_space(f"imagenet_{space}"))
    cost = costs.cost(resolve("bottleneck=bam(combine=product,end_bn=false)", sites))
    assert cost.params == params
    assert round(cost.macs_conv_fc / 1e9, 3) == giga
