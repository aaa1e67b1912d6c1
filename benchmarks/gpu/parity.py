"""Does a GPU compute what a CPU computes?

Batches are compared byte for byte, and losses in float32 without TF32.
"""

from dataclasses import replace
from typing import Any

import torch

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.train import train
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.batches import LabelledPart
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Split
from benchmarks.gpu.parts import SMALL, Part, Work

EVERYTHING = "layer1=cbam layer2=eca layer3=gc every-block=bam"
"""All modules in one net."""
STEPS, BATCH = 12, 64
RECIPE = Recipe(epochs=1, batch=BATCH, lr=0.02, precision="fp32", cuda_graph=False)


def parts(work: Work) -> list[Part]:
    """The stage."""
    return [
        Part("batches", 60, lambda: batches(work)),
        Part("losses", 60, lambda: losses(work)),
    ]


def images(work: Work) -> Split:
    """The images, split as a study splits them."""
    data = locate(work.data).load()
    return sources.task().split(data, SplitSizes.of(len(data.train), None, 0.1), seed=0)


def batches(work: Work) -> dict[str, Any]:
    """The last batch of an epoch there and here. Raises if a byte differs."""
    fit = images(work).fit
    here, there = (_last(fit, kind) for kind in ("cpu", work.device))
    if not all(torch.equal(one, other) for one, other in zip(here, there, strict=True)):
        raise RuntimeError("the batches on the device are not those on the CPU")
    return {"equal": True, "images": len(here[1])}


def _last(fit: Images, kind: str) -> tuple[torch.Tensor, ...]:
    """Pixels, normalised, and labels of the last batch of an epoch on a device."""
    context = TrainingContext.of(sources.task(), choose(kind), RECIPE, fit)
    batches = context.data.batches(RECIPE.batch)
    batches.load(0, 0)
    number = torch.tensor([len(batches) - 1], device=kind)
    (part,) = batches.parts(number, 1)
    assert isinstance(part, LabelledPart)
    return part.inputs.cpu(), part.labels.cpu()


def losses(work: Work) -> dict[str, Any]:
    """The mean loss of a dozen steps, on the CPU and on the device.

    The device runs them eagerly, as one CUDA graph, and with TF32.

    `largest_relative_difference` is of those without TF32.
    """
    steps = 4 if work.tiny else STEPS
    few = images(work).fit.take(slice(0, steps * BATCH))
    found = {"CPU": _loss(few, "cpu", RECIPE), work.device: _loss(few, work.device, RECIPE)}
    if work.device == "cuda":
        found["cuda, one graph"] = _loss(few, "cuda", replace(RECIPE, cuda_graph=True))
    most = max(abs(loss / found["CPU"] - 1) for loss in found.values())
    with_tf32 = _loss(few, work.device, RECIPE, tf32=True)
    return {"losses": found, "largest_relative_difference": most, "with_tf32": with_tf32}


def _loss(few: Images, kind: str, recipe: Recipe, tf32: bool = False) -> float:
    # By torch's older names, which set its newer ones too: the other way round, whoever asks for an
    # older one gets an error.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    space = load(SMALL, CIFAR_INPUTS)
    net = build(space, sites_of(space), EVERYTHING, 0)
    net.to(kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return train(net, TrainingContext.of(sources.task(), choose(kind), recipe, few), recipe, 0)[
        0
    ].loss
