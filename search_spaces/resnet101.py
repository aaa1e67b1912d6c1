"""ResNet101 with the CIFAR stem: 4 stage ends and 33 blocks."""

from bam_search.model.backbones.resnet import resnet101
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="resnet101", backbone=resnet101)
