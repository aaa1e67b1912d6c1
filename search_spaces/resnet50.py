"""ResNet50 with the CIFAR stem: 4 stage ends and 16 blocks.

It is the backbone of the BAM paper's ablations.
"""

from bam_search.model.backbones.resnet import resnet50
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="resnet50", backbone=resnet50)
