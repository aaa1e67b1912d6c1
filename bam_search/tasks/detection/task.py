"""Detection: the objects in photographs, by a detector with torchvision's interface."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bam_search.model.load import Inputs
from bam_search.tasks.detection.average_precision import KINDS
from bam_search.tasks.detection.by_rarest import split_by_rarest
from bam_search.tasks.detection.drawn import drawn
from bam_search.tasks.detection.on_device import TrainingPictures
from bam_search.tasks.detection.outputs import Detections
from bam_search.tasks.detection.samples import DetectionSamples
from bam_search.tasks.metric import Metric
from bam_search.tasks.pictures.pixels import Pixels
from bam_search.tasks.reading import Reading
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Gallery, Source, Split
from bam_search.words import counted

OF_NOISE = 8
"""Objects in a random picture."""


@dataclass(frozen=True)
class Detection:
    """The task for pictures of one size with objects of so many classes.

    `inputs.classes` counts the background, class 0, as torchvision does. `locate` finds the data
    set for `--data`, `kind` says which of KINDS is measured.
    """

    inputs: Inputs
    locate: Callable[[str, Reading], Source]
    kind: str
    name: str = "detection"
    sample: str = "image"
    recipe_keys: tuple[str, ...] = ("augment", "alternate")

    @property
    def metric(self) -> Metric:
        """The mean average precision of its kind; of nothing that is found it is 0."""
        name = KINDS[self.kind].name
        return Metric(name, "%", larger_is_better=True, chance=0.0, best=100.0)

    @property
    def outputs(self) -> Detections:
        """What torchvision's detectors return."""
        return Detections(self.inputs.classes)

    def for_inputs(self, inputs: Inputs) -> "Detection":
        """The task for pictures of another size, or objects of other classes."""
        return replace(self, inputs=inputs)

    def split(self, data: Dataset, sizes: SplitSizes, seed: int) -> Split:
        """The split in which rare classes have their share of each part."""
        return split_by_rarest(data, sizes, seed)

    def noise(self, n: int) -> DetectionSamples:
        """`n` pictures of random pixels, with objects of random sizes."""
        rng = np.random.default_rng(0)
        _, height, width = self.inputs.shape
        pixels = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
        corners = rng.uniform(0, 0.7, (n * OF_NOISE, 2))
        sides = rng.uniform(0.1, 0.3, corners.shape)
        boxes = np.concatenate([corners, corners + sides], 1) * (width, height, width, height)
        return DetectionSamples(
            Pixels(pixels),
            boxes.astype(np.float32),
            rng.integers(1, max(2, self.inputs.classes), len(boxes)),
            np.zeros(len(boxes), dtype=bool),
            OF_NOISE * np.arange(n + 1),
            np.full((n, 2), (height, width)),
        )

    def on_device(
        self, samples: DetectionSamples, recipe: Recipe, device: str, room: int
    ) -> TrainingPictures:
        """The pictures on `device`, with their objects cropped and flipped as the recipe says.

        Those that do not fit into `room` bytes pass through them, ahead of the steps.
        """
        classes = self.inputs.classes - 1
        return TrainingPictures.of(samples, recipe, device, room, classes, self.kind)

    def gallery(self, samples: DetectionSamples) -> Gallery:
        """The pictures with the boxes of their objects, and how many these are."""
        counts = np.diff(samples.offsets).tolist()
        return Gallery(drawn(samples), [counted(count, "object") for count in counts])

    def from_pictures(self, pixels: np.ndarray) -> DetectionSamples:
        """The pictures, in which nothing is annotated."""
        n, height, width, _ = pixels.shape
        nothing = np.zeros(0, dtype=np.int64)
        return DetectionSamples(
            Pixels(pixels),
            np.zeros((0, 4), dtype=np.float32),
            nothing,
            nothing.astype(bool),
            np.zeros(n + 1, dtype=np.int64),
            np.full((n, 2), (height, width)),
        )
