"""ResNet101 for ImageNet: 4 stage ends and 33 blocks.

The stride is on the first 1x1 convolution, as in the published counts.
"""

from bam_search.model.backbones.resnet import imagenet_resnet101
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_resnet101",
        backbone=imagenet_resnet101,
        input_shape=(3, 224, 224),
        classes=1000,
    )
