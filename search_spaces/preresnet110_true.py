"""PreResNet with 110 layers: 3 stage ends and 54 basic blocks."""

from bam_search.model.backbones.preact import preresnet110_true
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="preresnet110_true", backbone=preresnet110_true)
