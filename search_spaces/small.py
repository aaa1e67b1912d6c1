"""A small CIFAR ResNet for CPUs: 3 stage ends and 3 blocks, 32 to 128 channels.

A candidate trains in seconds.
"""

from bam_search.model.backbones.resnet import small
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="small", backbone=small)
