"""What a detector must return: torchvision's interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bam_search.model.detector import example_targets
from bam_search.tasks.outputs import Model

DETECTION = ("boxes", "scores", "labels")
"""What is told of each object that a detector finds."""


@dataclass(frozen=True)
class Detections:
    """What torchvision's detectors return: losses in training, else the objects in each image.

    `classes` counts the background, which is class 0.
    """

    classes: int

    def returned(self, model: Model, inputs: Tensor, training: bool) -> Any:
        """What the model returns; in training for an object of the last class in each image."""
        if not training:
            return model(inputs)
        return model(inputs, example_targets(inputs, self.classes - 1))

    def fits(self, returned: Any, samples: int, training: bool) -> bool:
        """Whether losses, or as many tables of objects as samples, were returned."""
        if training:
            return isinstance(returned, Mapping) and all(map(_is_number, returned.values()))
        if not isinstance(returned, Sequence) or len(returned) != samples:
            return False
        return all(map(_are_objects, returned))

    def text(self, samples: int, training: bool) -> str:
        """The interface in words."""
        if training:
            return (
                "a table of losses, as torchvision's detectors return it, "
                f"of {self.classes} classes with the background"
            )
        return (
            f"{samples} tables of boxes (n, 4), scores (n,) and labels (n,), "
            "as torchvision's detectors return them"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


def _are_objects(found: object) -> bool:
    if not isinstance(found, Mapping) or not set(DETECTION) <= set(found):
        return False
    boxes, scores, labels = (found[key] for key in DETECTION)
    n = len(scores)
    return boxes.shape == (n, 4) and scores.shape == labels.shape == (n,)
