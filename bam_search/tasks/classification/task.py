"""Classification of uint8 images, which stay on the device as they are."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.on_device import TrainingImages
from bam_search.tasks.classification.stratified import split_stratified
from bam_search.tasks.metric import Metric
from bam_search.tasks.outputs import OneTensor
from bam_search.tasks.pictures.measured import as_measured
from bam_search.tasks.reading import Reading
from bam_search.tasks.recipe import TASK_KEYS, Recipe
from bam_search.tasks.split import SplitSizes
from bam_search.tasks.task import Dataset, Gallery, Source, Split

TOP1_ERROR = Metric("top-1 error", "%", sample_sd=50.0)


def top1_error(classes: int) -> Metric:
    """The top-1 error among so many classes, of which guessing finds one in as many."""
    return replace(TOP1_ERROR, chance=100 * (1 - 1 / classes))


@dataclass(frozen=True)
class Classification:
    """The task for images of one shape in so many classes.

    `inputs.classes` is the number of classes, `locate` finds the data set for `--data`.
    """

    inputs: Inputs
    locate: Callable[[str, Reading], Source]
    name: str = "classification"
    sample: str = "image"
    metric: Metric = TOP1_ERROR
    recipe_keys: tuple[str, ...] = TASK_KEYS

    @property
    def outputs(self) -> OneTensor:
        """The logits of the classes."""
        return OneTensor((self.inputs.classes,))

    @property
    def _size(self) -> tuple[int, int]:
        _, height, width = self.inputs.shape
        return height, width

    def for_inputs(self, inputs: Inputs) -> "Classification":
        """The task for images of another shape, or in other classes."""
        return replace(self, inputs=inputs, metric=top1_error(inputs.classes))

    def split(self, data: Dataset, sizes: SplitSizes, seed: int) -> Split:
        """A stratified split. Raises UserError if there are too few images."""
        return split_stratified(data, self.inputs.classes, sizes, seed)

    def noise(self, n: int) -> Images:
        """`n` images of random pixels in random classes."""
        rng = np.random.default_rng(0)
        channels, height, width = self.inputs.shape
        pixels = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        return Images(pixels, rng.integers(0, self.inputs.classes, n))

    def on_device(self, samples: Images, recipe: Recipe, device: str, room: int) -> TrainingImages:
        """The images on `device`, cropped and flipped as the recipe says.

        Those that do not fit into `room` bytes pass through them, ahead of the steps.
        Raises UserError for images that are smaller than the inputs.
        """
        if any(a < b for a, b in zip(samples.shape[:2], self._size, strict=True)):
            raise UserError(
                f"images of {samples.shape[:2]} are smaller than inputs of {self._size}"
            )
        return TrainingImages.of(samples, self._size, recipe, device, room)

    def gallery(self, samples: Images) -> Gallery:
        """The images in their order, as a model gets them, with their classes."""
        pixels = as_measured(torch.from_numpy(samples.x), self._size).contiguous().numpy()
        if pixels.shape[-1] == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        return Gallery(pixels, labels=samples.y.tolist())

    def from_pictures(self, pixels: np.ndarray) -> Images:
        """The pictures, in no known class."""
        return Images(pixels, np.zeros(len(pixels), dtype=np.int64))
