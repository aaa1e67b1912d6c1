"""ResNeXt29 16x64d: 3 stage ends and 9 blocks."""

from functools import partial

from bam_search.model.backbones.resnet import resnext29
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="resnext29_16x64d", backbone=partial(resnext29, 16))
