"""Training images on their device: batches, the loss of a step, and the error on other images."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bam_search.model.arguments import main_tensor
from bam_search.tasks.classification.batches import DeviceImages, ImageBatches, LabelledPart
from bam_search.tasks.classification.images import Images
from bam_search.tasks.metric import binomial
from bam_search.tasks.outputs import Model
from bam_search.tasks.pictures.measured import as_measured, measured_of
from bam_search.tasks.pictures.normalisation import Normalisation
from bam_search.tasks.pictures.on_device import MeasuredPixels
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Measured

BATCH = {"cpu": 125, "cuda": 1000}
"""Images of 32x32 that are measured at a time: as many as stay in a core's cache, or fill a GPU.

Of larger images as many as have as many pixels, but at least LEAST.
"""
LEAST = {"cpu": 16, "cuda": 128}
NO_LABEL = -1
"""The label of an image that only fills the last batch.

It equals no answer, and the loss leaves it out.
"""
TOP = 5
"""With more classes than this, the error of the best TOP answers is measured too."""


def batch_of(size: Size, device: str) -> int:
    """How many images of (H, W) are measured at a time."""
    of_same_pixels = BATCH[device] * 32**2 // (size[0] * size[1])
    return min(BATCH[device], max(LEAST[device], of_same_pixels))


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The training images, and how images enter a model that is trained on them.

    `size` is the (H, W) that a model gets of each. `room` is how many bytes of the device's memory
    they may take, and as many those that are measured.
    """

    images: Images
    size: Size
    normalisation: Normalisation
    recipe: Recipe
    device: str
    room: int
    _made: dict[int, DeviceImages] = field(default_factory=dict)

    @classmethod
    def of(
        cls, images: Images, size: Size, recipe: Recipe, device: str, room: int
    ) -> "TrainingImages":
        """The images on `device`."""
        normalisation = Normalisation.of(images.pixels, size, device)
        return cls(images, size, normalisation, recipe.for_size(size), device, room)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch: int) -> ImageBatches:
        """Empty batches of `batch` images each."""
        return ImageBatches.of(self._on_device(batch), self.normalisation, self.recipe, batch)

    def _on_device(self, batch: int) -> DeviceImages:
        """The images on the device, made when first asked for: what only measures needs none."""
        if batch not in self._made:
            self._made[batch] = DeviceImages.of(
                self.images, self.size, self.recipe, self.device, batch, self.room
            )
        return self._made[batch]

    def loss(self, model: Model, part: LabelledPart) -> Tensor:
        """The mean cross-entropy, with the recipe's label smoothing.

        It is that of the main logits; auxiliary ones that a model adds in training do not count.
        Raises ValueError if the model returns no tensor.
        """
        logits = main_tensor(model(part.inputs))
        if logits is None:
            raise ValueError("the model returns no logits")
        smoothing = self.recipe.label_smoothing
        return functional.cross_entropy(logits.float(), part.labels, label_smoothing=smoothing)

    def held_out(self, images: Images) -> "HeldOutImages":
        """Other images, to be measured."""
        classes = 1 + int(max(self.images.y.max(), images.y.max()))
        return HeldOutImages.of(images, classes, self)

    def inputs(self, images: Images) -> Tensor:
        """(B, C, H, W): the middle of the images, normalised."""
        pixels = torch.from_numpy(images.x).to(self.device)
        return self.normalisation(as_measured(pixels, self.size))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How images enter the model elsewhere, in timm's words.

        The shorter side is resized to `input_size` / `crop_pct`, the middle is cropped, and values
        from 0 to 1 are normalised by `mean` and `std`.
        """
        channels = self.images.shape[2]
        height, _ = measured_of(self.images.shape[:2], self.size)
        values = self.normalisation.mean[:channels] / 255, self.normalisation.std[:channels] / 255
        mean, std = ([round(one, 5) for one in each.tolist()] for each in values)
        return {
            "input_size": [channels, *self.size],
            "crop_pct": round(self.size[0] / height, 5),
            "mean": mean,
            "std": std,
        }


@dataclass(frozen=True, eq=False)
class HeldOutImages:
    """Images as they are measured, in full batches on a device.

    `labels` is (steps, B) int64; images without a label fill the last batch. `class_samples` is how
    many images each class has.
    """

    pixels: MeasuredPixels
    labels: Tensor
    class_samples: tuple[int, ...]
    normalisation: Normalisation

    @classmethod
    def of(cls, images: Images, classes: int, training: TrainingImages) -> "HeldOutImages":
        """The images, to be measured as those of the training are, in batches of one shape."""
        device, size = training.device, training.size
        batch = batch_of(size, device)
        pixels = MeasuredPixels.of(images.pixels, size, batch, device, training.room)
        labels = functional.pad(torch.from_numpy(images.y), (0, pixels.missing), value=NO_LABEL)
        labels = labels.view(pixels.steps, batch).to(device)
        samples = tuple(np.bincount(images.y, minlength=classes).tolist())
        return cls(pixels, labels, samples, training.normalisation)

    def __len__(self) -> int:
        return len(self.labels)

    def ready(self, step: int) -> None:
        """Have the images of batch number `step` on the device; batch 0 begins again."""
        self.pixels.ready(step)

    def batch(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs, (B, C, H, W), and the labels, (B,), of batch number `step`."""
        return self.normalisation(self.pixels.batch(step)), self.labels.index_select(0, step)[0]

    def tally(self) -> "Answers":
        """No answers yet."""
        correct = self.labels.new_zeros(())
        by_class = self.labels.new_zeros(len(self.class_samples))
        loss = torch.zeros_like(correct, dtype=torch.float64)
        return Answers(self, correct, torch.zeros_like(correct), by_class, loss)


@dataclass(frozen=True, eq=False)
class Answers:
    """How many answers were `correct`, and the sum of their `loss`, on the device.

    `among_top` is how many of the best TOP answers had the right one among them, `by_class`,
    (classes,), how many answers were correct for the images of each class.
    """

    held_out: HeldOutImages
    correct: Tensor
    among_top: Tensor
    by_class: Tensor
    loss: Tensor

    def reset(self) -> None:
        """Begin again."""
        for total in (self.correct, self.among_top, self.by_class, self.loss):
            total.zero_()

    def add(self, model: Model, step: Tensor) -> None:
        """Count the right answers of batch number `step`, and add its loss."""
        inputs, labels = self.held_out.batch(step)
        logits = model(inputs).float()
        right = logits.argmax(1) == labels
        self.correct.add_(right.sum())
        # An image without a label is never right, so it may count for any class.
        self.by_class.index_add_(0, labels.clamp(min=0), right.long())
        if self._has_top:
            top = logits.topk(TOP, dim=1).indices
            self.among_top.add_((top == labels[:, None]).sum())
        loss = functional.cross_entropy(logits, labels, reduction="sum", ignore_index=NO_LABEL)
        self.loss.add_(loss)

    def measured(self) -> Measured:
        """The top-1 error in percent, and the mean cross-entropy without label smoothing.

        Also the top-5 error, and the top-1 error of each class to two decimals.
        """
        samples = self.held_out.class_samples
        n = sum(samples)
        error = 100 * (n - int(self.correct)) / n
        among_top = 100 * (n - int(self.among_top)) / n
        return Measured(
            error,
            float(self.loss) / n,
            binomial(error, n),
            {f"top-{TOP} error, %": among_top} if self._has_top else {},
            tuple(map(_error, self.by_class.tolist(), samples)),
            samples,
        )

    @property
    def _has_top(self) -> bool:
        return len(self.held_out.class_samples) > TOP


def _error(correct: int, samples: int) -> float | None:
    """The error in percent; None without samples."""
    return round(100 * (samples - correct) / samples, 2) if samples else None
