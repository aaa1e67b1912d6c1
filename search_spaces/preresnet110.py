""" "PreResNet110" as the BAM paper counts it, which has 164 layers: 3 stage ends and 54 bottleneck
blocks.
"""

from bam_search.model.backbones.preact import preresnet110
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="preresnet110", backbone=preresnet110)
