"""A small ResNeXt for CPUs: 3 stage ends and 6 blocks, 32 to 128 channels.

Its blocks are those of ResNeXt29.
"""

from bam_search.model.backbones.resnet import small_resnext
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="small_resnext", backbone=small_resnext)
