"""A small pre-activation net for CPUs: 3 stage ends and 6 blocks, 64 to 256 channels.

Its blocks are those of PreResNet110.
"""

from bam_search.model.backbones.preact import small_preact
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="small_preact", backbone=small_preact)
