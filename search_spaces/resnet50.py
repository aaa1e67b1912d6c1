"""ResNet50 with the CIFAR stem, the backbone of the paper's ablations: 4 stage ends and 16 blocks."""

from bam_search.model.backbones.resnet import resnet50
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="resnet50", backbone=resnet50)
