"""ResNet18 for ImageNet: 4 stage ends and 8 blocks."""

from bam_search.model.backbones.resnet import imagenet_resnet18
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_resnet18",
        backbone=imagenet_resnet18,
        input_shape=(3, 224, 224),
        classes=1000,
    )
