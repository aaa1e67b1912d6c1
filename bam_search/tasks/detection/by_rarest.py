"""The split of annotated pictures in which rare classes have their share of each part."""

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.detection.samples import DetectionSamples, pictures_of
from bam_search.tasks.split import SplitSizes, stratified_order
from bam_search.tasks.task import Dataset, Split
from bam_search.words import counted


def split_by_rarest(data: Dataset, sizes: SplitSizes, seed: int) -> Split:
    """The split of these sizes, stratified by the rarest class that each picture has.

    Raises UserError if a part has no picture with an object to find.
    """
    order = stratified_order(rarest_classes(data.train), np.random.default_rng(seed))
    split = Split.of(data, order, sizes, "stratified by the rarest class of each image")
    for part, samples in (("training", split.fit), ("validation", split.validation)):
        if samples.ignore.all():
            raise UserError(
                f"{counted(len(samples), f'{part} image')} without an object to find",
                "set data.images and data.validation so that each part has more images",
            )
    return split


def rarest_classes(samples: DetectionSamples) -> np.ndarray:
    """(N,) int64: of the classes in each picture, that of the fewest pictures; 0 in an empty one.

    Objects to ignore do not count.
    """
    wanted = ~samples.ignore
    picture = pictures_of(samples.offsets)[wanted]
    labels = samples.labels[wanted]
    has = np.zeros((len(samples), int(labels.max(initial=0)) + 1), bool)
    has[picture, labels] = True
    counts = np.where(has, has.sum(0), len(samples) + 1)
    return np.where(has.any(1), counts.argmin(1), 0)
