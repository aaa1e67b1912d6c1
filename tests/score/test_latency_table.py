"""Predicted latency: sums of measured increments, and what a form deployed is."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import pytest
import torch
from torch import nn

from bam_search.model.build import build, sites_of
from bam_search.score import latency as timing
from bam_search.score.device import choose
from bam_search.score.latency import DEPLOYED_PAIRS, PAIRS, LatencySetting, folded, latency
from bam_search.score.latency_table import LatencyTable, Network, measure
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import load_space
from bam_search.tasks.outputs import Model, OneTensor

SPACE = load_space("small")
SITES = sites_of(SPACE)
CPU = LatencySetting(choose("cpu"), (3, 32, 32), 2, bf16=False, threads=1)
SE, BAM = Choice.of("se", {"r": 4}), Choice.of("bam", {"r": 4, "d": 1})
CHOICES = {"layer1": [SE, BAM], "layer1.0.bn2": [SE], "layer3": [BAM]}


def network() -> Network:
    def make(placement: Placement) -> nn.Module:
        return build(SPACE, SITES, placement, 0)

    return Network(make(Placement.of({})), make, SITES.by_name, CHOICES)


@pytest.fixture(autouse=True, scope="module")
def measured_as_in_a_study() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "PAIRS", PAIRS)
        patch.setattr(timing, "DEPLOYED_PAIRS", DEPLOYED_PAIRS)
        yield


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return measure(network(), {"latency_overhead": CPU, "deployed_latency_overhead": CPU.deployed})


def convolutions_and_norms(model: nn.Module) -> tuple[int, int]:
    assert isinstance(model, torch.fx.GraphModule)
    modules = [model.get_submodule(n.target) for n in model.graph.nodes if n.op == "call_module"]
    return tuple(sum(isinstance(m, kind) for m in modules) for kind in (nn.Conv2d, nn.BatchNorm2d))  # type: ignore[return-value]


def test_every_choice_at_every_site_takes_time(table: LatencyTable) -> None:
    for added in table.added.values():
        assert {site: len(of_site) for site, of_site in added.items()} == {
            site: len(choices) for site, choices in CHOICES.items()
        }
        assert all(percent > 0 for of_site in added.values() for percent in of_site.values())
        # BAM has five times the operators of SE.
        assert added["layer1"]["bam(r=4,d=1)"] > added["layer1"]["se(r=4)"]
    assert table.seconds > 0


def test_a_placement_costs_the_sum_over_its_sites(table: LatencyTable) -> None:
    sites, key = SITES.by_name, "latency_overhead"
    placement = Placement.of({"layer1": SE, "layer3": BAM})
    each = [table.increment(key, sites[name], choice) for name, choice in placement.choices]
    assert table.overhead(key, placement, sites) == pytest.approx(sum(each))
    assert table.overhead(key, Placement.of({}), sites) == 0


def test_the_sum_is_near_what_the_whole_takes(table: LatencyTable) -> None:
    placement = Placement.of({"layer1": BAM, "layer3": BAM})
    settings = {"latency_overhead": CPU, "deployed_latency_overhead": CPU.deployed}
    for key, setting in settings.items():
        model = build(SPACE, SITES, placement, 0)
        found = latency(model, network().base, setting)
        predicted = table.overhead(key, placement, SITES.by_name)
        assert 0.4 < predicted / (100 * (found.ratio - 1)) < 2.5


def test_a_table_is_the_same_from_json(table: LatencyTable) -> None:
    assert LatencyTable(**asdict(table)) == table


def test_folding_keeps_attention_and_its_normalisation() -> None:
    image = torch.rand(2, 3, 32, 32)
    plain, attended = (
        build(SPACE, SITES, text, 0).eval() for text in ("none", "layer1=bam layer2.0.bn2=se")
    )
    with torch.no_grad():
        for net in (plain, attended):
            (one,) = folded([net])
            torch.testing.assert_close(one(image), net(image), atol=1e-4, rtol=1e-4)
    assert convolutions_and_norms(folded([plain])[0])[1] == 0
    assert convolutions_and_norms(folded([attended])[0])[1] == 1


class Branching(nn.Module):
    """A model that looks at values, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x)) if x.sum() > -1 else x


def test_both_models_are_folded_or_none() -> None:
    pair = [nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), Branching().eval()]
    assert all(one is other for one, other in zip(folded(pair), pair, strict=True))


class Detector(nn.Module):
    """As torchvision's detectors: a list of images in, a list of what is in each out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[torch.Tensor]) -> list[Mapping[str, torch.Tensor]]:
        assert all(image.shape == (3, 32, 32) for image in images)
        return [{"boxes": self.conv(image[None])} for image in images]


class Lists(OneTensor):
    """A task that calls models with a list."""

    def __init__(self) -> None:
        super().__init__(())

    def returned(self, model: Model, inputs: torch.Tensor, training: bool) -> object:
        del training
        return model(list(inputs))


def test_a_model_that_takes_a_list_of_images_is_timed() -> None:
    setting = LatencySetting(choose("cpu"), (3, 32, 32), 2, bf16=False, outputs=Lists())
    for one in (setting, setting.deployed):
        assert latency(Detector(), Detector(), one, pairs=5).batch == one.batch


def test_one_image_in_float32_on_one_thread_is_deployed() -> None:
    threads: list[tuple[int, torch.dtype, int]] = []

    class Probe(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            threads.append((torch.get_num_threads(), (x @ x).dtype, len(x)))
            return x if x.sum() >= 0 else -x

    before = torch.get_num_threads()
    setting = LatencySetting(choose("cpu"), (3, 8, 8), 4, bf16=True, threads=2).deployed
    latency(Probe(), Probe(), setting, pairs=3)
    # torch.fx saw it once with no values.
    assert {seen for seen in threads if isinstance(seen[2], int)} == {(1, torch.float32, 1)}
    assert torch.get_num_threads() == before
