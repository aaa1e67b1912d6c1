"""ResNet50 for ImageNet: 4 stage ends and 16 blocks.

The stride is on the first 1x1 convolution, as in the published counts.
"""

from bam_search.model.backbones.resnet import imagenet_resnet50
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_resnet50",
        backbone=imagenet_resnet50,
        input_shape=(3, 224, 224),
        classes=1000,
    )
