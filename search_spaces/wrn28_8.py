"""WRN-28-8: 3 stage ends and 12 pre-activation blocks."""

from functools import partial

from bam_search.model.backbones.preact import wideresnet28
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(name="wrn28_8", backbone=partial(wideresnet28, 8))
