"""Attention survives what people do with models: copy, compile, export and run them.

Five families of models are tried in each way, with few blocks. They differ in how attention sits
in them: a hook on a leaf (ResNet), an appended child (MobileNetV3), a child out of sight while its
site runs (DenseNet), a branch that is permuted inside (ConvNeXt), a channels-last map (Swin).
"""

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ConvNeXt, DenseNet, MobileNetV3, ResNet, SwinTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.resnet import BasicBlock

from bam_search.model.attach import attach, detach


def resnet() -> nn.Module:
    return ResNet(BasicBlock, [2, 1, 1, 1], num_classes=10)


def mobilenet() -> nn.Module:
    blocks = [(16, 3, 16, 16, True, "RE", 2, 1), (16, 3, 32, 24, False, "RE", 2, 1)]
    blocks += [(24, 3, 32, 24, False, "RE", 1, 1), (24, 5, 32, 40, True, "HS", 2, 1)]
    blocks += [(40, 5, 64, 40, True, "HS", 1, 1)]
    config = [InvertedResidualConfig(*block, width_mult=1.0) for block in blocks]
    return MobileNetV3(config, last_channel=64, num_classes=10)


def densenet() -> nn.Module:
    return DenseNet(growth_rate=8, block_config=(3, 3, 3), num_init_features=16, num_classes=10)


def convnext() -> nn.Module:
    widths = ((16, 32), (32, 64), (64, None))
    return ConvNeXt([CNBlockConfig(*width, num_layers=2) for width in widths], num_classes=10)


def swin() -> nn.Module:
    return SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7], num_classes=10)


MODELS: dict[Callable[[], nn.Module], str] = {
    resnet: "bottleneck=bam(r=4,d=1) every-block=se(r=4)",
    mobilenet: "bottleneck=bam(r=4,d=1) features.*.block=se(r=4)",
    densenet: "bottleneck=bam(r=4,d=1) features.*.denselayer1=se(r=4)",
    convnext: "bottleneck=bam(r=4,d=1) every-block=se(r=4)",
    swin: "bottleneck=bam(r=4,d=1) every-block=se(r=4)",
}
SHAPE = (3, 64, 64)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates parts of what it uses itself
        yield


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def attended(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    attach(model, MODELS[make], SHAPE)
    return model.eval()


def images(n: int = 2) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def through_save(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_state_dict(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(model)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    return fresh


def replica(module: nn.Module) -> nn.Module:
    """What `nn.DataParallel` makes of a module for each device."""
    twin = module._replicate_for_data_parallel()
    for key, child in module._modules.items():
        twin._modules[key] = None if child is None else replica(child)
    for key, parameter in module._parameters.items():
        setattr(twin, key, parameter)
    for key, buffer in module._buffers.items():
        twin._buffers[key] = buffer
    return twin


def exported(model: nn.Module) -> nn.Module:
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


TRIPS: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": through_save,
    "state dict": through_state_dict,
    "replica": replica,
    "compile": lambda model: torch.compile(model, fullgraph=True, backend="eager"),
    "export": exported,
    "fx": torch.fx.symbolic_trace,
    "channels-last": lambda model: copy.deepcopy(model).to(memory_format=torch.channels_last),
}


SLOW_TRIPS = ("compile", "export")
"""Those that take seconds: one model always goes on them, the others when slow tests run."""
PAIRS = [
    pytest.param(
        make,
        trip,
        id=f"{make.__name__}-{trip}",
        marks=[pytest.mark.slow] if trip in SLOW_TRIPS and make is not resnet else [],
    )
    for make in MODELS
    for trip in TRIPS
]


@pytest.mark.parametrize(("make", "trip"), PAIRS, indirect=["make"])
def test_outputs_are_the_same_after(attended: nn.Module, trip: str) -> None:
    with torch.no_grad():
        expected = attended(images())
        found = TRIPS[trip](attended)(images())
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=1e-4, atol=1e-4)
        detach(bare := copy.deepcopy(attended))
        assert (bare(images()) - expected).abs().max() > 1e-2 * scale  # the attention is felt


def test_a_training_step_under_autocast_reaches_everything(attended: nn.Module) -> None:
    model = copy.deepcopy(attended).train()
    with torch.autocast("cpu", torch.bfloat16):
        model(images(4)).float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    statistics = [
        b
        for key, b in model.named_buffers()
        if "attention" in key and key.endswith("num_batches_tracked")
    ]
    assert statistics
    assert all(b == 1 for b in statistics)


def test_training_and_evaluation_modes_reach_the_attention(attended: nn.Module) -> None:
    model = copy.deepcopy(attended)
    assert all(m.training for m in model.train().modules())
    assert not any(m.training for m in model.eval().modules())
    assert torch.equal(model(images()), model(images()))


def test_pretrained_keys_stay_and_load(make: Callable[[], nn.Module], attended: nn.Module) -> None:
    pretrained = make().state_dict()
    assert [key for key in attended.state_dict() if ".attention." not in key] == list(pretrained)
    missing, unexpected = copy.deepcopy(attended).load_state_dict(pretrained, strict=False)
    assert not unexpected
    assert all(".attention." in key for key in missing)
