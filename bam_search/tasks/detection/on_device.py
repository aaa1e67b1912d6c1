"""Annotated pictures on their device: batches, the loss of a step, and what is found in others."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bam_search.tasks.detection.average_precision import average_precision
from bam_search.tasks.detection.batches import AnnotatedBatches, AnnotatedPart, Objects
from bam_search.tasks.detection.matching import Detections
from bam_search.tasks.detection.samples import DetectionSamples
from bam_search.tasks.outputs import Model
from bam_search.tasks.pictures.normalisation import Normalisation
from bam_search.tasks.pictures.on_device import CroppedPixels, MeasuredPixels
from bam_search.tasks.pictures.sizes import Size
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import Measured

MOST = 100
"""Objects that count of those found in a picture, the surest ones; as for COCO."""
BATCH = {"cpu": 8, "cuda": 32}
"""Pictures that are measured at a time."""
NOTHING = 0
"""The label of what only fills the memory."""


@dataclass(frozen=True, eq=False)
class TrainingPictures:
    """The training pictures, and how pictures enter a model that is trained on them.

    `room` is how many bytes of the device's memory they may take, and as many those that are
    measured: by an average precision of this `kind`, of objects of so many `classes`.
    """

    samples: DetectionSamples
    normalisation: Normalisation
    recipe: Recipe
    device: str
    room: int
    classes: int
    kind: str
    _made: dict[int, CroppedPixels] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        samples: DetectionSamples,
        recipe: Recipe,
        device: str,
        room: int,
        classes: int,
        kind: str,
    ) -> "TrainingPictures":
        """The pictures on `device`."""
        size = samples.shape[:2]
        normalisation = Normalisation.of(samples.pixels, size, device)
        recipe = recipe.for_size(size)
        return cls(samples, normalisation, recipe, device, room, classes, kind)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def size(self) -> Size:
        """(H, W) of what enters a model."""
        return self.samples.shape[:2]

    def batches(self, batch: int) -> AnnotatedBatches:
        """Empty batches of `batch` pictures each."""
        pixels = self._on_device(batch)
        return AnnotatedBatches.of(
            pixels, self._objects, self.size, self.normalisation, self.recipe, batch
        )

    def _on_device(self, batch: int) -> CroppedPixels:
        """The pictures on the device, which trainings share; what only measures needs none."""
        if batch not in self._made:
            self._made[batch] = CroppedPixels.of(
                self.samples.pixels, self.size, self.recipe, self.device, batch, self.room
            )
        return self._made[batch]

    @cached_property
    def _objects(self) -> Objects:
        return Objects.of(self.samples, self.device)

    def loss(self, model: Model, part: AnnotatedPart) -> Tensor:
        """The sum of the detector's losses, each the mean that torchvision takes."""
        losses = model(part.inputs, part.objects.targets)
        return torch.stack([loss.float() for loss in losses.values()]).sum()

    def held_out(self, samples: DetectionSamples) -> "HeldOutPictures":
        """Other pictures, to be measured."""
        return HeldOutPictures.of(samples, self)

    def inputs(self, samples: DetectionSamples) -> Tensor:
        """(B, C, H, W): the pictures, normalised."""
        return self.normalisation(torch.from_numpy(samples.x).to(self.device))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How pictures enter the model elsewhere.

        A picture is scaled to fit into `input_size` as a whole, and lies in its upper left; values
        from 0 to 1 are normalised by `mean` and `std`. Boxes are in pixels of that.
        """
        values = self.normalisation.mean[:3] / 255, self.normalisation.std[:3] / 255
        mean, std = ([round(one, 5) for one in each.tolist()] for each in values)
        return {"input_size": [3, *self.size], "fit": "upper left", "mean": mean, "std": std}


@dataclass(frozen=True, eq=False)
class HeldOutPictures:
    """Pictures as they are measured, in full batches on a device."""

    pixels: MeasuredPixels
    samples: DetectionSamples
    training: TrainingPictures

    @classmethod
    def of(cls, samples: DetectionSamples, training: TrainingPictures) -> "HeldOutPictures":
        """The pictures, to be measured as those of the training are."""
        device, size = training.device, training.size
        pixels = MeasuredPixels.of(samples.pixels, size, BATCH[device], device, training.room)
        return cls(pixels, samples, training)

    def __len__(self) -> int:
        return self.pixels.steps

    def ready(self, step: int) -> None:
        """Have the pictures of batch number `step` on the device; batch 0 begins again."""
        self.pixels.ready(step)

    def batch(self, step: Tensor) -> Tensor:
        """The inputs, (B, C, H, W), of batch number `step`."""
        return self.training.normalisation(self.pixels.batch(step))

    def tally(self) -> "Found":
        """Nothing found yet."""
        device, shape = self.training.device, (len(self), BATCH[self.training.device], MOST)
        labels = torch.full(shape, NOTHING, device=device)
        boxes = torch.zeros(*shape, 4, device=device)
        return Found(self, boxes, torch.zeros(shape, device=device), labels)


@dataclass(frozen=True, eq=False)
class Found:
    """What a model finds in each picture, on the device, in tensors of one shape.

    `boxes` is (batches, B, MOST, 4), `scores` and `labels` are (batches, B, MOST). The label
    NOTHING stands for no object.
    """

    held_out: HeldOutPictures
    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def reset(self) -> None:
        """Begin again."""
        self.labels.fill_(NOTHING)

    def add(self, model: Model, step: Tensor) -> None:
        """Keep what is found in batch number `step`. A detector finds more here and less there."""
        found = [_filled(one) for one in model(self.held_out.batch(step))]
        for number, kept in enumerate((self.boxes, self.scores, self.labels)):
            batch = torch.stack([each[number] for each in found])
            kept.index_copy_(0, step, batch[None].to(kept.dtype))

    def measured(self) -> Measured:
        """The precision of what was found in all pictures. No loss: a detector has none here."""
        of = self.held_out
        classes, kind = of.training.classes, of.training.kind
        return average_precision(self.found(), of.samples, classes, kind).measured(math.nan)

    def found(self) -> Detections:
        """What was found in each picture, the surest first. Waits for the device."""
        n = len(self.held_out.samples)
        of_each = (self.boxes, self.scores, self.labels)
        return Detections(*(each.flatten(0, 1)[:n].cpu().numpy() for each in of_each))


def _filled(found: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The surest MOST objects of an image: boxes (MOST, 4), scores and labels (MOST,)."""
    scores, order = found["scores"].float().sort(descending=True, stable=True)
    order = order[:MOST]
    missing = MOST - len(order)
    return (
        functional.pad(found["boxes"][order], (0, 0, 0, missing)),
        functional.pad(scores[:MOST], (0, missing)),
        functional.pad(found["labels"][order], (0, missing), value=NOTHING),
    )
