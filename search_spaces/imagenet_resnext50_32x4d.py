"""ResNeXt50 32x4d for ImageNet: 4 stage ends and 16 blocks."""

from bam_search.model.backbones.resnet import imagenet_resnext50_32x4d
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        name="imagenet_resnext50_32x4d",
        backbone=imagenet_resnext50_32x4d,
        input_shape=(3, 224, 224),
        classes=1000,
    )
