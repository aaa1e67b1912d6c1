"""125 placements in all, so that each can be trained.

BAM at three stage ends of the small ResNet, with two values of r and of d.
"""

from bam_search.model.backbones.resnet import small
from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    return SearchSpace(
        "small_grid", small, sites=("stage-ends",), modules={"bam": {"r": (4, 16), "d": (1, 4)}}
    )
