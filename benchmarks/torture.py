"""Whether attention stays in effect whatever is done to the model that has it.

    python -m benchmarks.torture [--models resnet ...] [--operations fuse ...] [--out FILE.csv]

One row a model and an operation. The outputs of the model after the operation are set beside those
of the model with attention before it, and of the model without:

    in effect    the outputs are those with attention; where the operation changes outputs (also
                 those of the model without), or comes before attaching, the attention at each site
                 runs as often as usual
    sentence     attaching, or the first pass after, raised UserError
    torch        the operation cannot be done on the model without attention either, or torch
                 refuses the site by an error of its own
    SILENT       the outputs are those without attention, or others: a fault of this project
    ERROR        an error where the model without attention has none: a fault as well

All models are small, in eval mode, and run on the CPU. Batch normalisations have statistics that
are not those of the start, so that what leaves them out would be seen.
"""

import argparse
import copy
import csv
import functools
import io
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torchvision.models import ConvNeXt, DenseNet, ResNet, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.detection import FasterRCNN, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large
from torchvision.ops import FrozenBatchNorm2d

from bam_search import UserError, attach, attached, detach
from bam_search.model.insert import attended

IN_EFFECT, SENTENCE, TORCH, SILENT, ERROR = "in effect", "sentence", "torch", "SILENT", "ERROR"
FAULTS = (SILENT, ERROR)
COLUMNS = ("model", "operation", "outcome", "said")
CLASSES = 5


@dataclass(frozen=True)
class Subject:
    """A kind of model: how to make one, its inputs' shape without the batch, and a placement."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 32, 32)
    placement: str = "bottleneck=bam(r=4,d=1) every-block=se(r=4)"


class Down(nn.Module):
    """Two convolutions, as a U-Net has them at each size."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm, self.act = nn.BatchNorm2d(width), nn.ReLU()
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.norm(self.first(x)))))


class UNet(nn.Module):
    """An encoder and a decoder with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = Down(3, 8), Down(8, 16), Down(16, 32)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.up2, self.up1 = Down(48, 16), Down(24, 8)
        self.out = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(self.pool(a))
        c = self.middle(self.pool(b))
        d = self.up2(torch.cat([self.up(c), b], 1))
        return self.out(self.up1(torch.cat([self.up(d), a], 1)))


class Siamese(nn.Module):
    """Calls its backbone twice in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet()
        self.head = nn.Linear(2 * CLASSES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.backbone(x), self.backbone(x.flip(3))], 1))


class Block1d(nn.Module):
    """A residual block of sequences."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width // stride, width, 3, stride, padding=1)
        self.norm = nn.BatchNorm1d(width)
        self.short = nn.Conv1d(width // stride, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)) + self.short(x))


class Sequences(nn.Module):
    """A network for (B, C, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 16, 5, padding=2)
        blocks = [Block1d(16, 1), Block1d(16, 1), Block1d(32, 2), Block1d(32, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean(2))


class Odd(nn.Module):
    """Indexes its containers, runs over children in a helper, and has attributes `attention`."""

    class Block(nn.Module):
        """Runs over its children in a helper."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.attention = None

        def forward(self, x: Tensor) -> Tensor:
            return x + self._branch(x)

        def _branch(self, x: Tensor) -> Tensor:
            for layer in self.children():
                x = layer(x)
            return x

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(Odd.Block(), Odd.Block())
        self.tail = nn.Sequential(nn.MaxPool2d(2), Odd.Block(), Odd.Block())
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tail(self.body(self.stem(x))).mean((2, 3))
        last = self.body[-1]
        assert isinstance(last, Odd.Block)
        return self.fc(x) * last.conv.out_channels * len(self.tail)


def resnet() -> nn.Module:
    """A ResNet with few blocks."""
    return ResNet(BasicBlock, [2, 1, 1, 1], num_classes=CLASSES)


def convnext() -> nn.Module:
    """A ConvNeXt with few blocks."""
    widths = ((16, 32), (32, 64), (64, None))
    return ConvNeXt([CNBlockConfig(*width, num_layers=2) for width in widths], num_classes=CLASSES)


def vit() -> nn.Module:
    """A ViT with few blocks."""
    return VisionTransformer(32, 4, 3, 2, 24, 48, num_classes=CLASSES)


def faster_rcnn() -> nn.Module:
    """A detector for images of 64 pixels."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d
    )
    return FasterRCNN(backbone, CLASSES, min_size=64, max_size=64, box_score_thresh=0.0)


def ssd() -> nn.Module:
    """A detector of one pass."""
    return ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES, score_thresh=0.0
    )


def deeplab() -> nn.Module:
    """A network for segmentation."""
    return deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False
    )


SUBJECTS: Mapping[str, Subject] = {
    "ResNet": Subject(resnet),
    "ConvNeXt": Subject(convnext),
    "Swin": Subject(
        lambda: SwinTransformer([4, 4], 24, [2, 2], [2, 4], [2, 2], num_classes=CLASSES)
    ),
    "ViT": Subject(vit, placement="every-block=se(r=4)"),
    "DenseNet": Subject(
        lambda: DenseNet(8, (2, 2, 2), 16, num_classes=CLASSES),
        placement="bottleneck=bam(r=4,d=1) features.*.denselayer1=se(r=4)",
    ),
    "U-Net": Subject(UNet, placement="bottleneck=bam(r=4,d=1)"),
    "Siamese": Subject(Siamese),
    "Faster R-CNN": Subject(faster_rcnn, (3, 64, 64)),
    "SSD": Subject(ssd, (3, 64, 64)),
    "DeepLab": Subject(deeplab, (3, 64, 64)),
    "EfficientNet": Subject(
        lambda: torchvision.models.efficientnet_b0(num_classes=CLASSES),
        (3, 64, 64),
        "every-block=se(r=4)",
    ),
    "1-D": Subject(Sequences, (2, 64), "every-block=bam(r=4,d=1)"),
    "odd idioms": Subject(Odd),
}

Run = Callable[[Tensor], object]
"""A model, or what an operation made of it."""


@dataclass(frozen=True)
class Operation:
    """What is done to a model: after attention was attached, or before.

    `exact` says that the outputs of the model stay as they are. Where they do not, it is counted
    how often the attention runs.
    """

    do: Callable[[nn.Module, Tensor], Run]
    before: bool = False
    exact: bool = True


def _pickled(model: nn.Module, _x: Tensor) -> Run:
    loaded: nn.Module = pickle.loads(pickle.dumps(model))
    return loaded


def _saved(model: nn.Module, _x: Tensor) -> Run:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def _reloaded(model: nn.Module, _x: Tensor) -> Run:
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(model.state_dict(), strict=True)
    return fresh


def _frozen(model: nn.Module) -> nn.Module:
    for name, child in list(model.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            new = FrozenBatchNorm2d(child.num_features, child.eps)
            new.load_state_dict(child.state_dict(), strict=False)
            setattr(model, name, new)
        else:
            _frozen(child)
    return model


def _replaced(model: nn.Module, _x: Tensor) -> Run:
    """Put a new module of the same class in the place of the first site, or the first child."""
    sites = [site for site, _ in attached(model).choices]
    name, *_ = sites or [child for child, _ in model.named_children()]
    parent, _, own = name.rpartition(".")
    new = copy.deepcopy(model.get_submodule(name))
    detach(new)
    setattr(model.get_submodule(parent), own, new)
    return model


def _checkpointed(model: nn.Module, _x: Tensor) -> Run:
    """Every block computes its activations again in the backward pass."""
    for module in model.modules():
        if "Block" in type(module).__name__ and list(module.children()):
            forward = module.forward
            module.forward = functools.partial(checkpoint, forward, use_reentrant=False)
    return model


def _distributed(model: nn.Module, x: Tensor) -> Run:
    with _process_group():
        wrapped = DistributedDataParallel(model)
        out = wrapped(x)
    return lambda _x: out


@contextmanager
def _process_group() -> Iterator[None]:
    """A group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/group", rank=0, world_size=1
        )
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


def _half(model: nn.Module, _x: Tensor) -> Run:
    model.to(torch.bfloat16)
    return lambda x: model(x.to(torch.bfloat16))


def _averaged(model: nn.Module, _x: Tensor) -> Run:
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    return averaged


def _quantized(model: nn.Module, _x: Tensor) -> Run:
    changed: nn.Module = torch.ao.quantization.quantize_dynamic(
        model, {nn.Linear, nn.LSTM}, torch.qint8
    )
    return changed


def _parametrized(model: nn.Module, _x: Tensor) -> Run:
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            parametrize.register_parametrization(module, "weight", nn.Identity())
    return model


def _functional(model: nn.Module, _x: Tensor) -> Run:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return lambda x: torch.func.functional_call(model, state, (x,))


def _exported(model: nn.Module, x: Tensor) -> Run:
    return torch.export.export(model, (x,)).module()


def _in_place(model: nn.Module, _x: Tensor) -> Run:
    model.compile(backend="eager")
    return model


def _elsewhere(model: nn.Module, x: Tensor) -> Run:
    """Compiled by somebody who holds the compiled form, and ran it already."""
    fast = torch.compile(model, backend="eager")
    fast(x)
    return fast


def _compiled(model: nn.Module, _x: Tensor) -> Run:
    return torch.compile(model, backend="eager")


def _synchronised(model: nn.Module, _x: Tensor) -> Run:
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


OPERATIONS: Mapping[str, Operation] = {
    "SyncBatchNorm after": Operation(_synchronised),
    "SyncBatchNorm before": Operation(_synchronised, before=True),
    "fuse": Operation(lambda model, _x: fuse(model)),
    "frozen batch norm after": Operation(lambda model, _x: _frozen(model)),
    "frozen batch norm before": Operation(lambda model, _x: _frozen(model), before=True),
    "replaced by hand": Operation(_replaced),
    "compiled model": Operation(_compiled, before=True),
    "compiled in place before": Operation(_in_place, before=True),
    "compiled elsewhere before": Operation(_elsewhere, before=True),
    "compile after": Operation(_compiled),
    "compile in place after": Operation(_in_place),
    "export": Operation(_exported),
    "fx": Operation(lambda model, _x: torch.fx.symbolic_trace(model)),
    "deepcopy": Operation(lambda model, _x: copy.deepcopy(model)),
    "pickle": Operation(_pickled),
    "torch.save": Operation(_saved),
    "state dict": Operation(_reloaded),
    "DistributedDataParallel": Operation(_distributed),
    "EMA": Operation(_averaged),
    "bfloat16": Operation(_half, exact=False),
    "quantize_dynamic": Operation(_quantized, exact=False),
    "checkpointing after": Operation(_checkpointed),
    "checkpointing before": Operation(_checkpointed, before=True),
    "parametrized": Operation(_parametrized),
    "functional_call": Operation(_functional),
    "channels-last": Operation(lambda model, _x: model.to(memory_format=torch.channels_last)),
}


def made(subject: Subject) -> nn.Module:
    """A model whose normalisations are not as at the start, and whose outputs depend on it all."""
    torch.manual_seed(0)
    model = subject.make().eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():  # a ViT's head
            nn.init.normal_(module.weight)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model


def numbers(outputs: object) -> Tensor:
    """All floating-point outputs as one vector."""
    leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return torch.cat([leaf.detach().flatten().float() for leaf in leaves])


def tried(subject: Subject, operation: Operation) -> tuple[str, str]:
    """What came of an operation on a model: the outcome, and what was said."""
    x = torch.rand(2, *subject.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        usual = _attached(made(subject), subject)
        passes = set(ran(usual, x).values())
        try:
            if operation.before:
                return _before(subject, operation, x, passes)
            return _after(usual, subject, operation, x, passes)
        except UserError as error:
            return SENTENCE, error.message
        except Exception as error:
            return _whose(subject, operation, x), _line(error)


def _after(
    model: nn.Module, subject: Subject, operation: Operation, x: Tensor, passes: set[int]
) -> tuple[str, str]:
    expected, without = numbers(model(x)), numbers(made(subject)(x))
    changed = operation.do(model, x)
    found = numbers(changed(x))
    outcome = _judged(found, expected, without)
    if operation.exact and (
        outcome[0] == IN_EFFECT or not _changes(subject, operation, x, without)
    ):
        return outcome
    return _counted(changed if isinstance(changed, nn.Module) else model, x, passes)


def _changes(subject: Subject, operation: Operation, x: Tensor, without: Tensor) -> bool:
    """Whether the operation changes what the model without attention returns."""
    found = numbers(operation.do(made(subject), x)(x))
    if found.shape != without.shape:
        return True
    return bool((found - without).norm() > 1e-2 * without.norm())


def _before(subject: Subject, operation: Operation, x: Tensor, passes: set[int]) -> tuple[str, str]:
    plain = made(subject)
    without = numbers(plain(x))
    changed = operation.do(plain, x)
    # Who compiled the model elsewhere has attention attached to the model itself.
    holds_it = isinstance(changed, nn.Module) and operation.do is not _elsewhere
    model = _attached(changed if holds_it else plain, subject)  # type: ignore[arg-type]
    outcome = _judged(numbers(changed(x)), numbers(model(x)), without)
    return outcome if outcome[0] == SILENT else _counted(model, x, passes)


def _attached(model: nn.Module, subject: Subject) -> nn.Module:
    attach(model, subject.placement, subject.shape, fit=True)
    return model


def ran(model: nn.Module, x: Tensor) -> dict[str, int]:
    """How often the attention at each site runs in one pass."""
    counts = dict.fromkeys(attended(model), 0)

    def count(site: str, *_: object) -> None:
        counts[site] += 1

    hooks = [
        model.get_submodule(child).register_forward_hook(functools.partial(count, site))
        for site, child in attended(model).items()
    ]
    model(x.to(next(model.parameters()).dtype))
    for hook in hooks:
        hook.remove()
    return counts


def _counted(model: nn.Module, x: Tensor, passes: set[int]) -> tuple[str, str]:
    counts = ran(model, x)
    once = set(counts.values()) == passes
    return (
        IN_EFFECT if once else SILENT,
        f"{len(counts)} sites run {sorted(set(counts.values()))} times",
    )


def _whose(subject: Subject, operation: Operation, x: Tensor) -> str:
    """Whose error it is: torch's, if the model without attention has one too."""
    try:
        operation.do(made(subject), x)(x)
    except Exception:
        return TORCH
    return ERROR


def _judged(found: Tensor, expected: Tensor, without: Tensor) -> tuple[str, str]:
    if found.shape != expected.shape:
        return SILENT, f"{found.numel()} outputs, and {expected.numel()} with attention"
    felt = (expected - without).norm() if expected.shape == without.shape else expected.norm()
    off = (found - expected).norm() / felt
    return IN_EFFECT if off < 1e-2 else SILENT, f"off by {off:.0e} of what attention changes"


def _line(error: Exception) -> str:
    said = next(iter(str(error).strip().splitlines()), "")[:160]
    return f"{type(error).__name__}: {said}"


def main() -> None:
    """Try every operation on every model, and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("--operations", nargs="+", default=list(OPERATIONS), choices=OPERATIONS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for model in asked.models:
        for name in asked.operations:
            torch.compiler.reset()
            try:
                outcome = tried(SUBJECTS[model], OPERATIONS[name])
            except UserError as error:  # without any operation
                outcome = (ERROR, error.message)
            rows.append((model, name, *outcome))
            print(*rows[-1], sep="  ", flush=True)
    if asked.out:
        with asked.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    sys.exit(any(outcome in FAULTS for _, _, outcome, _ in rows))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
