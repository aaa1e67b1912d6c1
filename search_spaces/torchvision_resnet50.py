"""torchvision's ResNet50 on 32x32 images: an example of a model from outside this package."""

from torch import nn
from torchvision.models import resnet50

from bam_search.space.search_space import SearchSpace


def space() -> SearchSpace:
    """The search space.

    Sites are targets as in a placement; each module comes with the values to try for its options.
    """
    return SearchSpace(
        name="torchvision_resnet50",
        backbone=backbone,
        sites=("stage-ends", "every-block"),
        modules={"bam": {"r": (8, 16, 32), "d": (1, 2, 4)}, "se": {"r": (8, 16)}},
    )


def backbone(classes: int) -> nn.Module:
    """The model as it is: nothing in it needs to know of attention."""
    return resnet50(num_classes=classes)
