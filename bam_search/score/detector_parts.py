"""The parts of a detector, and what each costs at the size of its images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from bam_search.model.detector import is_detector
from bam_search.score.cost import macs_of_modules

NECKS = ("backbone.fpn", "backbone.extra")
"""What makes further maps of the backbone's: a feature pyramid, SSD's further layers."""
HEADS = ("head", "rpn")
"""What says for each position whether there is an object, and where."""
SECOND = "roi_heads"
"""What looks at each proposal of the first stage again."""
PROPOSALS = 1000
"""For as many the second stage is counted, as it costs the same for each."""


@dataclass(frozen=True)
class PartCost:
    """The parameters, and the MACs of convolutions and linear layers for one image, of a part."""

    name: str
    params: int
    macs_conv_fc: int

    def named(self, name: str) -> "PartCost":
        """The same as the cost of another part."""
        return replace(self, name=name)

    def without(self, part: "PartCost") -> "PartCost":
        """What it costs beside a part of it."""
        params, macs = self.params - part.params, self.macs_conv_fc - part.macs_conv_fc
        return PartCost(self.name, params, macs)

    @property
    def text(self) -> str:
        """'neck 12,345 parameters, 1,234,567 MACs'."""
        return f"{self.name} {self.params:,} parameters, {self.macs_conv_fc:,} MACs"


def detector_parts(net: nn.Module, input_shape: tuple[int, ...]) -> tuple[PartCost, ...]:
    """Backbone, neck, head and second stage of a detector with torchvision's interface.

    Nothing for any other model. Raises UserError as `count` does.
    """
    if not is_detector(net):
        return ()
    return tuple(_parts(net, macs_of_modules(net, input_shape)))


def _parts(net: nn.Module, macs: Mapping[str, int]) -> Iterator[PartCost]:
    modules = dict(net.named_modules())
    params = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    neck, head = (next(iter(set(names) & set(modules)), "") for names in (NECKS, HEADS))
    costs = {name: PartCost("", params[name], macs.get(name, 0)) for name in modules}
    nothing = PartCost("", 0, 0)
    of_neck = costs[neck] if neck else nothing
    yield costs["backbone"].without(of_neck).named("backbone")
    if neck:
        yield of_neck.named("neck")
    of_head = costs[head] if head else nothing
    if head:
        yield of_head.named("head")
    if SECOND in modules:
        # Not all of its operators are traced within it.
        left = costs[""].without(costs["backbone"]).without(of_head)
        macs_each = left.macs_conv_fc / _proposals(net)
        name = f"second stage, per {PROPOSALS:,} proposals"
        yield PartCost(name, left.params, round(PROPOSALS * macs_each))


def _proposals(net: Any) -> int:
    """How many the first stage passes on in eval mode."""
    return net.rpn._post_nms_top_n["testing"]
