"""MobileNetV1, width 1.0, for ImageNet: 4 stage ends and 12 blocks.

The paper's BAM goes to the first three stage ends.
"""

from functools import partial

from bam_search.model.backbones.mobilenet import MobileNetV1
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_mobilenet_1_0",
        backbone=partial(MobileNetV1, 1.0),
        input_shape=(3, 224, 224),
        classes=1000,
    )
