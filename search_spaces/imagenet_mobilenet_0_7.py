"""MobileNetV1, width 0.7, for ImageNet: 4 stage ends and 12 blocks.

The paper's BAM goes to the first three stage ends.
"""

from functools import partial

from bam_search.model.backbones.mobilenet import MobileNetV1
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_mobilenet_0_7",
        backbone=partial(MobileNetV1, 0.7),
        input_shape=(3, 224, 224),
        classes=1000,
    )
