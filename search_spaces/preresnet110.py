"""PreResNet110 as the BAM paper counts it: 3 stage ends and 54 bottleneck blocks.

It has 164 layers.
"""

from bam_search.model.backbones.preact import preresnet110
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="preresnet110", backbone=preresnet110)
