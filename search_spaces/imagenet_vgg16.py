"""VGG16 for ImageNet: stages end before each pooling.

Blocks are the other convolutions with their ReLU.
"""

from bam_search.model.backbones.resnet import imagenet_vgg16
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_vgg16",
        backbone=imagenet_vgg16,
        input_shape=(3, 224, 224),
        classes=1000,
    )
