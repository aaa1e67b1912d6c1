"""The cost of a model, counted by fvcore.

Parameters, and multiply-adds (MACs; fvcore calls them flops) for one image in eval mode.

Two conventions, always both. `macs_conv_fc` counts convolutions and linear layers only, as papers
publish. `macs` is the full count: what fvcore counts by itself (batch normalisation and adaptive
pooling too) plus one operation per output element (per input element for a pooling, a mean or a
sum) for the elementwise, pooling and reducing operators that fvcore skips.
"""

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    # fvcore is built on torch.jit, which newer releases call deprecated.
    warnings.simplefilter("ignore")
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

FREE = frozenset({"aten::expand_as"})
"""Views beyond those that fvcore knows.

They compute nothing, so they are neither counted nor listed as uncounted.
"""


PUBLISHED = ("conv", "linear")
"""fvcore's names of the operators that the published convention counts."""
COUNTS = ("params", "macs_conv_fc", "macs", "activations")
"""The counts of a cost that are compared with the backbone's."""


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    `params` are its parameters. For one image, `activations` are the elements that convolutions and
    linear layers put out, and `by_operator` has the MACs of each operator. `uncounted` has the
    number of calls of each operator that was not counted.
    """

    params: int
    activations: int
    by_operator: Mapping[str, int]
    uncounted: Mapping[str, int]

    @property
    def macs(self) -> int:
        """The full count."""
        return sum(self.by_operator.values())

    @property
    def macs_conv_fc(self) -> int:
        """The published convention."""
        return sum(self.by_operator.get(name, 0) for name in PUBLISHED)


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """The cost of `model` for one (C, H, W) image: parameters, activations and MACs.

        >>> from torchvision.models import resnet50
        >>> from bam_search import count
        >>> cost = count(resnet50(), (3, 224, 224))
        >>> f"{cost.params:,} parameters, {cost.macs_conv_fc:,} MACs conv + fc"
        '25,557,032 parameters, 4,089,184,256 MACs conv + fc'

    The model may be on the meta device, and is not changed.
    """
    twin = copy.deepcopy(model).eval().float()
    on_meta = any(parameter.is_meta for parameter in twin.parameters())
    twin = twin.to_empty(device="cpu") if on_meta else twin.to("cpu")
    image = torch.zeros(1, *input_shape)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(twin, image).set_op_handle(**HANDLES)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        macs = sorted(analysis.by_operator().items())
        skipped = sorted(analysis.unsupported_ops().items())
        outputs = ActivationCountAnalysis(twin, image)
        outputs.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        activations = int(outputs.total())
    params = sum(parameter.numel() for parameter in twin.parameters())
    by_operator = {name: int(n) for name, n in macs if n}
    uncounted = {name: n for name, n in skipped if name not in FREE}
    return Cost(params, activations, by_operator, uncounted)


def overheads(cost: Cost, base: Cost) -> dict[str, float]:
    """How much more expensive than `base`, in percent, for each of COUNTS."""
    return {key: overhead(getattr(cost, key), getattr(base, key)) for key in COUNTS}


def overhead(value: int, base: int) -> float:
    """How much more expensive than `base`, in percent."""
    return 100 * (value - base) / base


def _per_output(name: str) -> Callable[[list[Any], list[Any]], Counter[str]]:
    return lambda _inputs, outputs: Counter({name: _elements(outputs[0])})


def _per_input(name: str) -> Callable[[list[Any], list[Any]], Counter[str]]:
    return lambda inputs, _outputs: Counter({name: _elements(inputs[0])})


def _elements(value: Any) -> int:
    size = 1
    for side in get_shape(value) or ():
        size *= side
    return size


_ARITHMETIC = ("add", "sub", "mul", "div", "addcmul", "maximum", "minimum", "exp", "pow", "sqrt")
_ACTIVATIONS = (
    *("relu", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus"),
    *("sigmoid", "hardsigmoid", "hardswish", "hardtanh", "tanh", "softmax"),
)
_REDUCING = ("mean", "sum", "amax", "max_pool2d", "avg_pool2d", "adaptive_max_pool2d")


def _handles() -> dict[str, Callable[[list[Any], list[Any]], Counter[str]]]:
    """By fvcore's name of an operator; one that works in place counts under the plain name."""
    found = {f"aten::{name}": _per_input(name) for name in _REDUCING}
    for name in (*_ARITHMETIC, *_ACTIVATIONS):
        found[f"aten::{name}"] = found[f"aten::{name}_"] = _per_output(name)
    return found


HANDLES: Mapping[str, Callable[[list[Any], list[Any]], Counter[str]]] = _handles()
"""What is counted beyond fvcore's own: one operation an element."""
