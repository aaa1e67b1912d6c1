"""ResNet18 with the CIFAR stem: 4 stage ends and 8 blocks."""

from bam_search.model.backbones.resnet import resnet18
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="resnet18", backbone=resnet18)
