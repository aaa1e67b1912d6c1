"""ResNet34 with the CIFAR stem: 4 stage ends and 16 blocks."""

from bam_search.model.backbones.resnet import resnet34
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="resnet34", backbone=resnet34)
