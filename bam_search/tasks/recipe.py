"""How a candidate is trained: one dataclass, read from the `[recipe]` table of a study."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from bam_search.config import also, strict
from bam_search.errors import UserError

Augment = Literal["auto", "resized-crop-flip", "crop-flip", "flip", "none"]
TASK_KEYS = ("label_smoothing", "augment", "alternate")
"""The keys that a task may have a use for, or not; all others are the training's own."""
GPU_KEYS = ("cuda_graph", "cudnn_benchmark")
"""The keys that mean nothing on a CPU."""
FEW_EPOCHS = 2
"""Trainings of so few learn more from images that are only flipped."""
LARGE = 64
"""Pixels of the shorter side from which objects keep their form in a crop that is resized."""


@strict
@dataclass(frozen=True)
class Recipe:
    """An optimizer with momentum and a triangular learning rate.

    `optimizer`: "sgd", or "muon", which is Muon for the filters of convolutions and the matrices of
    linear layers, and SGD for the last layer and all vectors (`bam_search.score.muon`), or "adamw"
    (Ilya Loshchilov, Frank Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
    https://arxiv.org/abs/1711.05101), as is usual for detectors from scratch. `lr` is that of all,
    and `momentum` too, which AdamW calls its first beta. `weight_decay` times the weight is added
    to its gradient under SGD; under Muon and AdamW, where the size of a gradient counts for
    nothing, the weight shrinks by lr * weight_decay of itself a step, under AdamW no vector does.

    The learning rate rises linearly over the share `warmup` of all steps, then falls linearly to 0.
    `augment`: "crop-flip" pads by an eighth, crops at random and flips half of the images, as usual
    for CIFAR; "resized-crop-flip" resizes boxes of at least 0.35 of the image, as usual for
    ImageNet; "auto" is the first below 64 pixels, else the second, and "flip" for trainings of one
    or two epochs, which learn more without crops. Models are measured on the middle of each image,
    without either. `alternate` flips each image
    in every other epoch instead of at random (Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a
    Single GPU", 2024, https://arxiv.org/abs/2404.00498). `precision`: "bf16" trains under bfloat16
    autocast, "fp32" does not, "auto" takes bf16 where the hardware has it. With `cuda_graph` the
    training step is one CUDA graph on a GPU; a model that waits for the GPU, or draws random
    numbers in Python, needs it to be false. `compile` compiles each block once a process
    (torch.compile). `fuse` makes batch normalisation, addition and ReLU one function, compiled once
    a process for each shape of a map, so that a map is read and written less often; compiled blocks
    have that already, so not both. `cudnn_benchmark` lets cuDNN choose each convolution's algorithm
    by trial, on a GPU. A training that takes longer than `seconds` is stopped, and its record says
    so.
    """

    epochs: Annotated[int, Ge(1), Le(10_000)] = 10
    batch: Annotated[int, Ge(2), Le(65_536)] = also(128, "batch_size")
    optimizer: Literal["sgd", "muon", "adamw"] = "sgd"
    lr: Annotated[float, Gt(0), Le(100)] = also(0.1, "learning_rate")
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[float, Ge(0), Le(1)] = also(5e-4, "wd", "l2")
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.1
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.2
    augment: Augment = "auto"
    alternate: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    cuda_graph: bool = True
    compile: bool = False
    fuse: bool = False
    cudnn_benchmark: bool = False
    seconds: Annotated[float, Gt(0)] | None = None

    def __post_init__(self) -> None:
        if self.compile and self.fuse:
            hint = "compiled blocks are fused already; set one of the two to false"
            raise UserError("recipe.compile and recipe.fuse are both true", hint)

    def for_size(self, size: Sequence[int]) -> "Recipe":
        """The recipe for images of (H, W): with the augmentation that "auto" means for them."""
        if self.augment != "auto":
            return self
        if self.epochs <= FEW_EPOCHS:
            return replace(self, augment="flip")
        large = min(size) >= LARGE
        return replace(self, augment="resized-crop-flip" if large else "crop-flip")

    def check_keys(self, task: str, used: Iterable[str]) -> None:
        """Raise UserError for a key in TASK_KEYS that is set, and that `task` does not use."""
        untouched = Recipe()
        for key in set(TASK_KEYS).difference(used):
            if getattr(self, key) != getattr(untouched, key):
                raise UserError(
                    f"recipe.{key} = {getattr(self, key)!r} does nothing: "
                    f"the task {task!r} has no use for it",
                    "leave it out",
                )

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of step `step` (from 0) of `steps`."""
        rising = self.warmup * steps
        if step + 1 < rising:
            share = (step + 1) / rising
        else:
            share = (steps - step) / max(steps - rising, 1)
        return self.lr * min(1.0, share)
