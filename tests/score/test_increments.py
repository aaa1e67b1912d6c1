"""What attention modules add is exactly what fvcore counts, and is remembered, never wrongly."""

import random
from collections.abc import Iterator
from pathlib import Path

import counted
import pytest
import torch
from conftest import without_values

from bam_search.errors import UserError
from bam_search.model.attach import attach, resolve
from bam_search.model.attention import ATTENTION, canonical
from bam_search.model.build import sites_of
from bam_search.score import increments
from bam_search.score.cost import Cost, count
from bam_search.score.cost_table import cost_table
from bam_search.score.increments import cache_file, increment
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import SearchSpace, load_space
from bam_search.space.sites import Sites

VALUES = {
    "bam": {
        "r": (4, 8, 16),
        "d": (1, 2, 4),
        "branches": ("both", "channel", "spatial"),
        "combine": ("sum", "product", "max"),
        "end_bn": (True, False),
    },
    "se": {"r": (4, 16)},
    "cbam": {"r": (4, 16), "k": (3, 7)},
    "eca": {"gamma": (1, 2), "b": (1, 2)},
    "gc": {"r": (4, 16)},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and a process that remembers nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    increment.cache_clear()
    yield cache_file()
    increment.cache_clear()


def choice(rng: random.Random, channels: int, side: int) -> Choice:
    """A random legal choice among all modules that need nothing of their site."""
    while True:
        module = rng.choice(sorted(VALUES))
        options = {
            name: rng.choice(values)
            for name, values in VALUES[module].items()
            if rng.random() < 0.7
        }
        try:
            return canonical(Choice.of(module, options), channels, side)
        except UserError:
            continue


def traced(space: SearchSpace, sites: Sites, placement: Placement) -> Cost:
    with torch.device("meta"):  # counts need shapes only
        net = space.backbone(space.classes)
        attach(net, placement, sites=sites)
    return count(net, space.input_shape)


@pytest.mark.parametrize(
    "name", ["small", "resnet18", pytest.param("resnext29_8x64d", marks=pytest.mark.slow)]
)
def test_increments_add_up_to_what_fvcore_counts_for_whole_models(name: str) -> None:
    space = load_space(name)
    sites = sites_of(space)
    costs = cost_table(space, sites)
    rng = random.Random(name)
    legal = [site for site in sites if site.channels >= 16]
    for _ in range(4):
        chosen = rng.sample(legal, rng.randint(1, 6))
        placement = resolve(
            Placement.of({site.name: choice(rng, site.channels, site.side) for site in chosen}),
            sites,
        )
        assert costs.cost(placement) == traced(space, sites, placement), placement.text


def test_every_module_of_the_package_is_drawn() -> None:
    assert set(VALUES) == set(ATTENTION) - {"block"}


@pytest.mark.parametrize(
    ("space", "params"), [("resnet50", 25.17), ("wrn28_8", 24.88), ("resnext29_8x64d", 37.31)]
)
def test_one_more_block_costs_what_is_published(space: str, params: float) -> None:
    loaded = without_values(load_space(space))
    sites = sites_of(loaded)
    placement = resolve("bottleneck=block", sites)
    cost = cost_table(loaded, sites).cost(placement)
    assert round(cost.params / 1e6, 2) == params
    assert cost == traced(loaded, sites, placement)


@counted.ONE_PROCESS
@pytest.mark.parametrize(
    ("space", "params", "giga"),
    [
        ("resnet18", 11_712_503, 1.819),
        ("resnet50", 25_915_099, 3.940),
        ("resnet101", 44_907_227, 7.652),
    ],
)
def test_published_counts_for_imagenet(space: str, params: int, giga: float) -> None:
    sites = counted.sites(f"imagenet_{space}")
    placement = resolve("bottleneck=bam(combine=product,end_bn=false)", sites)
    cost = counted.costs(f"imagenet_{space}").cost(placement)
    assert cost.params == params
    assert round(cost.macs_conv_fc / 1e9, 3) == giga


def test_what_was_traced_is_read_by_the_next_process(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = increment(Choice("se"), 32, 8, 8)
    increment.cache_clear()  # as in another process
    monkeypatch.setattr(increments, "count", None)
    assert increment(Choice("se"), 32, 8, 8) == first
    assert cache.is_file()


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"version": 1}', "\udcff"])
def test_a_broken_cache_is_not_used(cache: Path, damage: str) -> None:
    first = increment(Choice("se"), 32, 8, 8)
    cache.write_bytes(damage.encode(errors="surrogateescape"))
    increment.cache_clear()
    assert increment(Choice("se"), 32, 8, 8) == first


def test_a_number_that_was_changed_is_not_believed(cache: Path) -> None:
    first = increment(Choice("se"), 32, 8, 8)
    written = cache.read_text()
    cache.write_text(written.replace(f'"params": {first.params}', '"params": 1'))
    assert cache.read_text() != written
    increment.cache_clear()
    assert increment(Choice("se"), 32, 8, 8) == first


def test_the_cache_of_another_version_is_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = increment(Choice("se"), 32, 8, 8)
    increment.cache_clear()
    monkeypatch.setattr(increments, "_version", lambda: "another")
    monkeypatch.setattr(increments, "count", lambda *_: Cost(1, 2, {}, {}))
    assert increment(Choice("se"), 32, 8, 8) != first
    assert cache.is_file()


def test_a_cache_that_cannot_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    increment.cache_clear()
    assert increment(Choice("se"), 32, 8, 8).params > 0
