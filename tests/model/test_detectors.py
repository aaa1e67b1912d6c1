"""torchvision's detectors, and a user's: sites, sizes, costs, latency, and what a study checks."""

from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import without_values
from torch import nn
from torchvision.models.detection import fcos_resnet50_fpn

from bam_search.errors import UserError
from bam_search.model.attach import attach, fit_to_sites
from bam_search.model.build import backbone, build, sites_of, start_of
from bam_search.model.detector import AsGiven, example_targets, is_detector
from bam_search.model.load import Inputs, load
from bam_search.model.start import StartPlan
from bam_search.running.prepare import check_outputs
from bam_search.score.cost import count
from bam_search.score.cost_table import cost_table
from bam_search.score.detector_parts import detector_parts
from bam_search.score.device import choose
from bam_search.score.latency import LatencySetting, latency, training_memory
from bam_search.space.search_space import SearchSpace, space_table
from bam_search.space.sites import Sites
from bam_search.tasks.detection.outputs import Detections
from bam_search.tasks.recipe import Recipe

SHAPE = (3, 128, 160)
SMALL = Inputs(SHAPE, 4)
DETECTORS = [name for name, row in space_table().items() if row.backbone.startswith("detectors.")]


@cache
def space(name: str) -> SearchSpace:
    return load(name, SMALL)


@cache
def sites(name: str) -> Sites:
    return sites_of(without_values(space(name)))


def test_detectors_of_each_kind_ship() -> None:
    for kind in ("fcos", "retinanet", "fasterrcnn"):
        assert {f"{kind}_resnet{n}" for n in (18, 50, 101)} <= set(DETECTORS)
    assert {"ssd300_vgg16", "ssdlite320_mobilenet_v3", "fcos_small"} <= set(DETECTORS)


@pytest.mark.parametrize(
    "name",
    [
        "fcos_small",
        pytest.param("retinanet_resnet18", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet18_gn", marks=pytest.mark.slow),
    ],
)
def test_attention_goes_into_the_backbone_and_on_request_into_the_neck(
    name: str,
) -> None:
    found = sites(name)
    ends = [site.name for site in found.select("stage-ends")]
    assert ends[:3] == [f"backbone.body.layer{n}" for n in (1, 2, 3)]
    in_blocks = [site.name for site in found.select("every-block")]
    assert all(site.startswith("backbone.body.layer") for site in in_blocks)
    assert "backbone.fpn.layer_blocks.0" in found.names
    net = space(name).backbone(4)
    attach(net, "backbone.fpn.layer_blocks.0=se(r=8) bottleneck=bam", sites=found)
    assert len(net.eval()(torch.rand(1, *SHAPE))) == 1


@pytest.mark.parametrize(
    "name", ["fcos_small", "fasterrcnn_resnet18_gn", "torchvision:fcos_resnet50_fpn"]
)
def test_a_detector_takes_a_batch_as_it_is(name: str) -> None:
    net = without_values(space(name)).backbone(4)
    sizes = []
    net.backbone.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape))  # type: ignore[union-attr]
    with torch.device("meta"), pytest.raises(Exception):  # noqa: B017, PT011  boxes need values
        net.eval()(torch.zeros(2, *SHAPE))
    assert sizes == [(2, *SHAPE)]
    assert isinstance(net.transform, AsGiven)


def test_losses_and_boxes_are_computed_in_float32_under_bfloat16() -> None:
    net = space("fcos_small").backbone(4)
    images = torch.rand(2, *SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        losses = net.train()(images, example_targets(images))
        found = net.eval()(images)
    kinds = {loss.dtype for loss in losses.values()} | {one["boxes"].dtype for one in found}
    assert kinds == {torch.float32}


def test_a_users_detector_keeps_its_weights_and_loses_its_resizing(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from torchvision.models.detection import ssdlite320_mobilenet_v3_large\n"
        "def net(num_classes):\n"
        "    return ssdlite320_mobilenet_v3_large(\n"
        "        weights=None, weights_backbone=None, num_classes=num_classes)\n"
    )
    mine = load(f"{path}:net", SMALL)
    net = mine.backbone(4)
    assert is_detector(net)
    assert isinstance(net.transform, AsGiven)
    check_outputs(net, mine, Detections(4))


@pytest.mark.parametrize(
    "name", ["fcos_small", pytest.param("fasterrcnn_resnet18_gn", marks=pytest.mark.slow)]
)
def test_the_parts_of_a_detector_cost_what_it_costs(name: str) -> None:
    net = space(name).backbone(4)
    parts, whole = detector_parts(net, SHAPE), count(net, SHAPE)
    assert sum(part.macs_conv_fc for part in parts) == whole.macs_conv_fc
    assert sum(part.params for part in parts) == whole.params
    assert [part.name for part in parts[:3]] == ["backbone", "neck", "head"]
    assert detector_parts(nn.Linear(2, 2), (2,)) == ()


@pytest.mark.slow
def test_the_second_stage_is_counted_for_a_thousand_proposals() -> None:
    net = load("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", SMALL).backbone(4)
    second = detector_parts(net, SHAPE)[-1]
    assert second.name == "second stage, per 1,000 proposals"
    # Two layers, then classes and boxes, for each of 1,000 proposals of 256 x 7 x 7.
    per_proposal = 256 * 49 * 1024 + 1024 * 1024 + 1024 * 4 * 5
    assert second.macs_conv_fc == 1000 * per_proposal


def test_the_overhead_of_attention_is_exact() -> None:
    found = sites("fcos_small")
    placement = fit_to_sites("bottleneck=bam backbone.fpn.layer_blocks.0=se(r=4)", found)[0]
    costs = cost_table(space("fcos_small"), found)
    traced = count(build(space("fcos_small"), found, placement, seed=0), SHAPE)
    assert costs.cost(placement) == traced


def test_latency_and_memory_are_measured() -> None:
    found = sites("fcos_small")
    plain = backbone(space("fcos_small"), 0)
    model = build(space("fcos_small"), found, "every-block=bam", 0)
    setting = LatencySetting(choose("cpu"), SHAPE, 2, bf16=False, cuda_graph=False)
    assert latency(model, plain, setting, pairs=3).ratio > 0.5
    recipe = Recipe(optimizer="adamw")
    assert training_memory(model, setting, recipe) > training_memory(plain, setting, recipe) > 0


def test_a_network_that_is_no_detector_is_refused_before_training() -> None:
    classifier = load("small", SMALL)
    with pytest.raises(UserError, match=r"returns \(2, 4\) for 2 samples"):
        check_outputs(classifier.backbone(4), classifier, Detections(4))


def test_a_detector_for_fewer_classes_is_refused_before_training() -> None:
    with pytest.raises(UserError, match="cannot run in training on 2 samples: IndexError"):
        check_outputs(space("fcos_small").backbone(3), space("fcos_small"), Detections(5))


def test_a_file_of_the_backbone_alone_starts_a_detector(tmp_path: Path) -> None:
    """As torchvision publishes ResNets: with a head of other classes, which is left out."""
    body = load("imagenet_resnet18").backbone(1000)
    nn.init.constant_(body.conv1.weight, 0.25)  # type: ignore[union-attr,arg-type]
    torch.save(body.state_dict(), tmp_path / "resnet18.pth")
    of = space("fcos_resnet18")
    start = start_of(of, StartPlan(weights=str(tmp_path / "resnet18.pth"), norms="frozen"))
    net = backbone(of, 1)
    start.load(net)
    assert (net.backbone.body.conv1.weight == 0.25).all()  # type: ignore[union-attr]
    start.train_mode(net)
    assert not net.backbone.body.bn1.training  # type: ignore[union-attr]
    assert net.head.training  # type: ignore[union-attr]


def test_torchvision_names_are_found() -> None:
    made = load("torchvision:fcos_resnet50_fpn")
    assert (made.input_shape, made.classes) == ((3, 800, 1088), 91)
    with torch.device("meta"):
        theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    ours = without_values(made).backbone(91)
    assert list(ours.state_dict()) == list(theirs.state_dict())
