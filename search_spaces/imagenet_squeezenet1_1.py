"""SqueezeNet 1.1 for ImageNet: stages end before each pooling, blocks are fire modules."""

from bam_search.model.backbones.resnet import imagenet_squeezenet1_1
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_squeezenet1_1",
        backbone=imagenet_squeezenet1_1,
        input_shape=(3, 224, 224),
        classes=1000,
    )
