"""WideResNet18, 2.0 times as wide, for ImageNet: 4 stage ends and 8 blocks."""

from functools import partial

from bam_search.model.backbones.resnet import imagenet_wrn18
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_wrn18_2_0",
        backbone=partial(imagenet_wrn18, 2.0),
        input_shape=(3, 224, 224),
        classes=1000,
    )
