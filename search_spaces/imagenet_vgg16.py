"""VGG16 for ImageNet: stages end before each pooling, blocks are the other convolutions with their ReLU."""

from bam_search.model.backbones.resnet import imagenet_vgg16
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_vgg16",
        backbone=imagenet_vgg16,
        input_shape=(3, 224, 224),
        classes=1000,
        stages=("features.3", "features.8", "features.15", "features.22", "features.29"),
        blocks=("features.1", "features.6", "features.11", "features.13", "features.18", "features.20", "features.25", "features.27"),
    )
