"""A small CIFAR ResNet for CPUs: 3 stage ends and 3 blocks, 32 to 128 channels, a candidate in seconds."""

from functools import partial

from bam_search.model.backbones.resnet import SmallResNet
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="small", backbone=partial(SmallResNet, (32, 64, 128), (1, 1, 1)))
