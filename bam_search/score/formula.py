"""What each attention module costs, as closed forms.

The search counts with these, and tests compare them with fvcore (`cost.py`).

Each formula gives the count of every operator as fvcore names and counts it, for one image in eval
mode on a map of C channels and S = H * W pixels; m = C // r. A batch normalisation with weights
counts 2 an element, without 1, a layer normalisation with weights 5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bam_search.model.attention import defaults
from bam_search.model.attention.eca import kernel
from bam_search.space.placement import Choice
from bam_search.space.sites import Site

PUBLISHED = ("conv", "linear")
"""fvcore's names of the operators that the published convention counts."""


def published(by_operator: Mapping[str, int]) -> int:
    """The MACs of the published convention among those of all operators."""
    return sum(by_operator.get(name, 0) for name in PUBLISHED)


@dataclass(frozen=True)
class Increment:
    """What an attention module adds to its backbone.

    `params` are its parameters, `activations` the outputs of its convolutions and linear layers,
    `by_operator` has the MACs of each operator, `uncounted` the calls of those that nobody counted.
    """

    params: int
    activations: int
    by_operator: Mapping[str, int]
    uncounted: Mapping[str, int] = field(default_factory=dict)

    @property
    def macs_conv_fc(self) -> int:
        """The published convention."""
        return published(self.by_operator)

    @property
    def macs(self) -> int:
        """The full count."""
        return sum(self.by_operator.values())


def increment(choice: Choice, site: Site) -> Increment:
    """What `choice` adds at `site`, by its formula.

    Raises KeyError for a module without one (`block`, which has none of its own).
    """
    options = {**defaults(choice.module), **dict(choice.options)}
    return FORMULAS[choice.module](site.channels, site.height * site.width, **options)


def _bam(
    c: int, s: int, *, r: int, d: int, n: int, branches: str, combine: str, end_bn: bool
) -> Increment:
    del d  # a dilation costs nothing
    m = c // r
    whole = c * s  # elements of the map
    gate = {"both": whole, "channel": c, "spatial": whole if end_bn else s}[branches]
    total = _Sum()
    if branches != "spatial":
        total.add(sum=whole, div=c, linear=2 * c * m, batch_norm=2 * m + 2 * c * end_bn, relu=m)
        total.params += 2 * c * m + 3 * m + c + 2 * c * end_bn
        total.activations += m + c
    if branches != "channel":
        convolutions = n + 1
        total.add(conv=s * (c * m + 9 * n * m**2 + m), relu=m * s * convolutions)
        total.add(batch_norm=2 * m * s * convolutions + s * end_bn, addcmul=whole * end_bn)
        total.params += c * m + 9 * n * m**2 + 3 * m * convolutions + m + 1 + 2 * c * end_bn
        total.activations += s * (m * convolutions + 1)
    if branches == "both":
        # The sum is taken over C channels, before the map is spread over the pixels.
        operator = {"sum": "add", "product": "mul", "max": "maximum"}[combine]
        total.add(**{operator: c if combine == "sum" and end_bn else whole})
    total.add(sigmoid=gate, mul=whole, add=gate)
    return total.increment()


def _se(c: int, s: int, *, r: int) -> Increment:
    m = c // r
    total = _Sum(params=2 * c * m + m + c, activations=m + c)
    total.add(sum=c * s, div=c, linear=2 * c * m, relu=m, sigmoid=c, mul=c * s)
    return total.increment()


def _cbam(c: int, s: int, *, r: int, k: int) -> Increment:
    m = c // r
    total = _Sum(params=2 * c * m + 2 * k**2, activations=2 * (m + c) + s)
    total.add(adaptive_max_pool2d=c * s, conv=4 * c * m + 2 * k**2 * s, relu=2 * m, add=c)
    total.add(sigmoid=c + s, mul=2 * c * s, sum=c * s, div=c, mean=c * s, amax=c * s)
    return total.increment()


def _eca(c: int, s: int, *, gamma: int, b: int) -> Increment:
    k = kernel(c, gamma, b)
    total = _Sum(params=k, activations=c)
    total.add(sum=c * s, div=c, conv=c * k, sigmoid=c, mul=c * s)
    return total.increment()


def _gc(c: int, s: int, *, r: int) -> Increment:
    m = c // r
    total = _Sum(params=c + 1 + 2 * c * m + 3 * m + c, activations=s + m + c)
    total.add(conv=c * s, softmax=s, mul=c * s, sum=c * s)
    total.add(linear=2 * c * m, layer_norm=5 * m, relu=m, add=c * s)
    return total.increment()


FORMULAS: Mapping[str, Callable[..., Increment]] = {
    "bam": _bam,
    "se": _se,
    "cbam": _cbam,
    "eca": _eca,
    "gc": _gc,
}
"""The closed form of each attention module.

`block` has none: it costs what the backbone's own block costs, and is traced once a site.
"""


class _Sum:
    """A running sum of operations by operator, parameters and activations."""

    def __init__(self, params: int = 0, activations: int = 0) -> None:
        self.params = params
        self.activations = activations
        self._operators: dict[str, int] = {}

    def add(self, **operators: int) -> None:
        for name, value in operators.items():
            self._operators[name] = self._operators.get(name, 0) + value

    def increment(self) -> Increment:
        used = {name: value for name, value in self._operators.items() if value}
        return Increment(self.params, self.activations, used)
