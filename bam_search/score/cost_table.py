"""The costs of all placements of one backbone, without tracing each.

A placement costs what the backbone costs plus, for each site, what the attention there adds.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from bam_search.errors import UserError
from bam_search.model.attention import create, needs_like
from bam_search.model.build import backbone
from bam_search.score.cost import Cost, count
from bam_search.score.detector_parts import PartCost, detector_parts
from bam_search.score.increments import increment
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace, SearchSpace
from bam_search.space.sites import Site, Sites


@dataclass(frozen=True, eq=False)
class CostTable:
    """The cost of a backbone, and of what each choice adds to it.

    `base` is the backbone's cost, counted by fvcore once. `net` is the backbone itself: the choice
    `block` repeats a part of it. `gated` says whether attention has the gate of `init="identity"`.
    `input_shape` is that of an image.
    """

    net: nn.Module
    input_shape: tuple[int, ...]
    sites: dict[str, Site]
    base: Cost
    gated: bool = False
    _traced: dict[tuple[str, Choice, tuple[int, ...]], Cost] = field(default_factory=dict)

    @functools.cached_property
    def parts(self) -> tuple[PartCost, ...]:
        """Those of a detector, and none of another backbone; traced when first asked for."""
        return detector_parts(self.net, self.input_shape)

    def cost(self, placement: Placement) -> Cost:
        """The cost of the backbone with a canonical placement.

        It is exactly what fvcore counts (tested). A choice that is new to this machine is traced,
        once; one that is known takes microseconds.
        """
        added = [self.added(name, choice) for name, choice in placement.choices]
        return _total([self.base, *added])

    def added(self, site: str, choice: Choice) -> Cost:
        """What `choice` adds at `site`, in all calls. Raises UserError if it cannot be there."""
        added = self._added(site, choice)
        return _with_gate(added, self.sites[site]) if self.gated else added

    def _added(self, site: str, choice: Choice) -> Cost:
        """What the module of `choice` adds at `site`, without a gate."""
        at = self.sites[site]
        calls = [self._added_by_call(at, choice, sides) for sides in at.maps]
        # All calls are of one module.
        return replace(_total(calls), params=calls[0].params)

    def _added_by_call(self, at: Site, choice: Choice, sides: tuple[int, ...]) -> Cost:
        if not needs_like(choice.module):
            return increment(choice, at.channels, *sides)
        key = (at.name, choice, sides)
        if key not in self._traced:
            module = create(choice, at.channels, self.net.get_submodule(at.name), at.dims)
            self._traced[key] = count(module, (at.channels, *sides))
        return self._traced[key]


def _total(costs: Sequence[Cost]) -> Cost:
    """The sum of costs, operators in their order."""
    return Cost(
        sum(cost.params for cost in costs),
        sum(cost.activations for cost in costs),
        _summed(cost.by_operator for cost in costs),
        _summed(cost.uncounted for cost in costs),
    )


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))


def _with_gate(cost: Cost, site: Site) -> Cost:
    """The cost with that of the gate around: a weight, and three operations an element."""
    elements = sum(site.channels * math.prod(sides) for sides in site.maps)
    operators = Counter(cost.by_operator)
    operators.update(dict.fromkeys(("add", "mul", "sub"), elements))
    return replace(cost, params=cost.params + 1, by_operator=dict(operators))


def cost_table(space: SearchSpace, sites: Sites, gated: bool = False) -> CostTable:
    """The table of a search space: one trace of its backbone.

    `gated` is as in CostTable.
    """
    net = backbone(space, seed=0)
    shape = space.input_shape
    return CostTable(net, shape, sites.by_name, count(net, shape), gated)


def what_choices_add(
    costs: CostTable, choice_space: ChoiceSpace
) -> dict[str, tuple[tuple[int, int] | None, ...]]:
    """The parameters and MACs (conv + fc) that each choice adds, by site.

    Choices are in the order of `ChoiceSpace.choices`; None is for one that cannot be at its site.
    """
    return {
        site: tuple(_counts(costs, site, choice) for choice in choice_space.choices(site))
        for site in choice_space.sites
    }


def _counts(costs: CostTable, site: str, choice: Choice) -> tuple[int, int] | None:
    try:
        added = costs.added(site, choice)
    except UserError:
        return None
    return added.params, added.macs_conv_fc
