"""A small ResNeXt for CPUs, of the same blocks as ResNeXt29: 3 stage ends and 6 blocks, 32 to 128
channels.
"""

from bam_search.model.backbones.resnet import small_resnext
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="small_resnext", backbone=small_resnext)
