"""Where should attention go in a U-Net? A task of one's own, searched from a script.

Pictures of 32x32 have an ellipse among stripes and noise; a small U-Net says which pixels belong to
it. It is measured by intersection over union (IoU), larger is better.

    python docs/examples/unet_shapes.py            a few minutes on two cores
    python docs/examples/unet_shapes.py --smoke    seconds, to see that it works
"""

import functools
import sys

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from bam_search import Study, TensorTask, run_study
from bam_search.model.load import Inputs
from bam_search.search.study import DataPlan, FinalistPlan, SearchPlan
from bam_search.tasks.metric import Metric
from bam_search.tasks.outputs import OneTensor
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Dataset
from bam_search.tasks.tensors import Arrays

SIDE = 32
IOU = Metric("IoU", "%", larger_is_better=True, chance=0.0, best=100.0)


# The data: pictures (N, 1, 32, 32) float32 and their masks (N, 1, 32, 32) float32, of 0 and 1.
def shapes(n: int, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]

    def each(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n, 1, 1))

    across, down, turn = x - each(8, 24), y - each(8, 24), each(0, np.pi)
    along = across * np.cos(turn) + down * np.sin(turn)
    beside = down * np.cos(turn) - across * np.sin(turn)
    mask = (along / each(4, 9)) ** 2 + (beside / each(3, 6)) ** 2 < 1
    stripes = np.sin(each(0.3, 1.2) * x + each(0.3, 1.2) * y + each(0, 6))
    picture = stripes + each(0.4, 1.2) * mask + rng.normal(0, 1, mask.shape)
    return Arrays(picture[:, None].astype(np.float32), mask[:, None].astype(np.float32))


@functools.cache
def data(wanted: str) -> Dataset:
    return Dataset("ellipses", f"made here, for --data {wanted}", shapes(800, 0), shapes(300, 1))


def loss(outputs: Tensor, masks: Tensor) -> Tensor:
    """(B,): cross-entropy of the pixels of each picture."""
    return binary_cross_entropy_with_logits(outputs, masks, reduction="none").mean((1, 2, 3))


def overlap(outputs: Tensor, masks: Tensor) -> Tensor:
    """(B, 2): the pixels of each picture in the intersection and in the union."""
    found, wanted = outputs > 0, masks > 0.5
    return torch.stack([(found & wanted).sum((1, 2, 3)), (found | wanted).sum((1, 2, 3))], 1)


def flipped(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half of the pictures mirrored, with their masks."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(3), x), torch.where(mirrored, y.flip(3), y)


# What a study names by `task = "unet_shapes.py"`: this file's function `task`.
def task() -> TensorTask:
    return TensorTask(
        name="segmentation",
        sample="picture",
        metric=IOU,
        inputs=Inputs((1, SIDE, SIDE), 1),
        outputs=OneTensor((1, SIDE, SIDE)),
        data=data,
        noise=lambda n: shapes(n, 2),
        loss=loss,
        score=overlap,
        scores=2,
        value=lambda means: 100 * means[..., 0] / means[..., 1],
        augment=flipped,
    )


def convolutions(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two steps down, two up, each with what the way down saw at that size."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.down1, self.down2 = convolutions(1, width), convolutions(width, 2 * width)
        self.middle = convolutions(2 * width, 4 * width)
        self.up2 = convolutions((4 + 2) * width, 2 * width)
        self.up1 = convolutions((2 + 1) * width, width)
        self.pool, self.mask = nn.MaxPool2d(2), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        down1 = self.down1(x)
        down2 = self.down2(self.pool(down1))
        middle = self.middle(self.pool(down2))
        up2 = self.up2(torch.cat([interpolate(middle, scale_factor=2.0), down2], 1))
        return self.mask(self.up1(torch.cat([interpolate(up2, scale_factor=2.0), down1], 1)))


EVERY = ("down1", "down2", "middle", "up2", "up1")
STUDY = Study(
    question="Where should attention go in a U-Net?",
    task=__file__,
    space=f"{__file__}:UNet",
    references={"no attention": "none", "SE everywhere": "=se(r=4) ".join((*EVERY, ""))},
    search=SearchPlan(EVERY, {"bam": {"r": [4], "d": [1, 4]}, "se": {"r": [4]}}),
    objectives=("metric", "params_overhead"),
    trials=12,
    startup=4,
    random_baseline=False,
    data=DataPlan(validation=0.25),
    recipe=Recipe(epochs=5, batch=16, lr=0.2),
    finalists=FinalistPlan(seeds=2, extra=0.0, leave_one_out=False),
)


if __name__ == "__main__":
    result = run_study(STUDY, out="unet_shapes", smoke="--smoke" in sys.argv)
    print(result.dataframe()[["name", "placement", "val_metric", "params_overhead"]])
    print(result.recommendation, result.page, sep="\n")
