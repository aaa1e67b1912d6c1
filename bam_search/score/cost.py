"""The cost of a model, counted by fvcore.

Parameters, and multiply-adds (MACs; fvcore calls them flops) for one image in eval mode.

Two conventions, always both. `macs_conv_fc` counts convolutions and linear layers only, as papers
publish. `macs` is the full count: what fvcore counts by itself (batch normalisation and adaptive
pooling too) plus one operation per output element (per input element for a pooling, a mean or a
sum) for the elementwise, pooling and reducing operators that fvcore skips.

A product with a weight is a linear layer, however it is written. Products of activations, such as
attention's, are in the full count only, in full where they are masked, and alike whether attention
is fused or written out. Recurrent layers count by their matrices, in the full count only.
"""

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bam_search.errors import UserError, first_line
from bam_search.score.countable import Countable, Example, countable, everything_in_sight
from bam_search.score.handles import OUTPUTS, PRODUCTS, WEIGHTED, Handle, function_handles, handles

with warnings.catch_warnings():
    # fvcore is built on torch.jit, which newer releases call deprecated.
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis

_FREE = (
    *("expand_as", "view_as", "reshape_as", "unflatten", "alias", "numpy_T", "clone", "numel"),
    *("embedding", "pad", *(f"reflection_pad{n}d" for n in (1, 2, 3))),
    *(f"replication_pad{n}d" for n in (1, 2, 3)),
)
FREE = frozenset(f"aten::{name}" for name in _FREE)
"""Views, copies and lookups beyond those that fvcore knows.

They compute nothing, so they are neither counted nor listed as uncounted.
"""
PUBLISHED = ("conv", "linear")
"""fvcore's names of the operators that the published convention counts."""
UNITS = {
    "params": "parameters",
    "macs_conv_fc": "MACs in convolutions and linear layers",
    "macs": "MACs",
    "activations": "activations",
}
"""What each count of a cost is a number of."""
COUNTS = tuple(UNITS)
"""The counts of a cost that are compared with the backbone's."""
INTERNAL = (PRODUCTS, OUTPUTS)
"""The names of the handles' totals, which are no operators."""


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    `params` are its parameters. For one image, `activations` are the elements that convolutions,
    linear layers and other products of matrices put out, and `by_operator` has the MACs of each
    operator. `uncounted` has the number of calls of each operator that was not counted.
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
        return _published(self.by_operator)


def count(
    model: nn.Module,
    input_shape: tuple[int, ...] | None = None,
    *,
    example_inputs: object = None,
) -> Cost:
    """The cost of `model` for one (C, H, W) image: parameters, activations and MACs.

        >>> from torchvision.models import resnet50
        >>> from bam_search import count
        >>> cost = count(resnet50(), (3, 224, 224))
        >>> f"{cost.params:,} parameters, {cost.macs_conv_fc:,} MACs conv + fc"
        '25,557,032 parameters, 4,089,184,256 MACs conv + fc'

    A model with several inputs, or with others than images, is counted on `example_inputs`: a
    tensor, a tuple of positional arguments, or a mapping of keyword ones. They are taken as they
    are, so a batch counts as a batch. The output may be tensors in any containers or dataclasses.

    The model may be on any device, "meta" among them, of any dtype, frozen or training. A copy of
    it is counted, in eval mode, on the CPU; hooks that a user put on it do not run.

    A detector of torchvision is counted at the size that is given: its images are not resized, only
    padded as always. Its heads count for as many proposals and detections as they keep at most
    (1,000 and 100 by default), so the count depends on no weights.

    Raises UserError if not one of `input_shape` and `example_inputs` is given, and if the model
    cannot be copied, does not run on the inputs, or has an operator with weights that cannot be
    counted.
    """
    example = Example.of(input_shape, example_inputs)
    net = countable(model, example)
    with everything_in_sight(), _quietly():
        ran = _ran(net, example)
        operators, skipped = _traced(net, example, {})
        if operators[PRODUCTS] < ran.products:
            # A trace drops what nothing reads, such as features that are only kept.
            net.keep_all = True
            operators, skipped = _traced(net, example, function_handles(skipped))
    uncounted = {name: n for name, n in sorted(skipped.items()) if name not in FREE}
    _require_complete(ran, operators[PRODUCTS], uncounted)
    params = sum(parameter.numel() for parameter in net.parameters())
    return _cost(params, operators + ran.registered, uncounted)


def macs_of_modules(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """MACs of convolutions and linear layers of each submodule, with all in it, by its name.

    Those of the model itself are at "". Raises UserError as `count` does.
    """
    example = Example.of(input_shape, None)
    net = countable(model, example)
    net.keep_all = True  # a detector's second stage is dropped otherwise
    with everything_in_sight(), _quietly():
        analysis = _analysis(net, example, {})
        found = analysis.by_module_and_operator()
    whole = found.pop("")  # more than that of "net": functions within it are traced outside
    inside = {name.removeprefix("net."): _published(each) for name, each in found.items()}
    return {**inside, "": _published(whole)}


def _published(by_operator: Mapping[str, int]) -> int:
    return int(sum(by_operator.get(name, 0) for name in PUBLISHED))


def _cost(params: int, operators: Counter[str], uncounted: Mapping[str, int]) -> Cost:
    by_operator = {name: int(n) for name, n in sorted(operators.items()) if name not in INTERNAL}
    left = {name: n for name, n in uncounted.items() if name not in operators}
    return Cost(params, int(operators[OUTPUTS]), by_operator, left)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _ran(net: Countable, example: Example) -> "_Ran":
    """A pass that is watched.

    Raises UserError if the model cannot run, or has an operator with weights that is not known.
    """
    ran = _Ran()
    try:
        with ran:
            net(*example.tensors)
    except Exception as error:  # a user's model can raise anything; the user has to read it
        raise UserError(
            f"the model cannot run on inputs of shape {example.text}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    _require_known(ran)
    return ran


def _traced(
    net: Countable, example: Example, more: Mapping[str, Handle]
) -> tuple[Counter[str], dict[str, int]]:
    """What fvcore counts by operator, with `more` handles, and the calls that it does not count.

    Raises UserError if torch cannot trace the model.
    """
    analysis = _analysis(net, example, more)
    try:
        counted = Counter(analysis.by_operator())
    except Exception as error:  # as above
        raise UserError(
            f"the model runs, but cannot be traced: {type(error).__name__}: {first_line(error)}",
            "what fvcore counts is a trace by torch.jit: leave scripted modules and compiled "
            "functions out",
        ) from error
    return counted, dict(analysis.unsupported_ops())


def _analysis(net: Countable, example: Example, more: Mapping[str, Handle]) -> FlopCountAnalysis:
    analysis = FlopCountAnalysis(net, example.tensors)
    analysis.set_op_handle(**handles(images=len(example.tensors)), **more)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)


def _require_known(ran: "_Ran") -> None:
    """Raise UserError if an operator has weights, and nothing says what it costs."""
    if ran.hidden:
        raise UserError(
            f"the operator {' and '.join(ran.hidden)} has weights, and how many MACs it takes is "
            "not known",
            "tell it with torch.utils.flop_counter.register_flop_formula",
        )


def _require_complete(ran: "_Ran", products: int, uncounted: Mapping[str, int]) -> None:
    """Raise UserError if convolutions or products of matrices ran in what is not counted."""
    if products < ran.products:
        raise UserError(
            f"{ran.products - products:,} of the {ran.products:,} MACs of convolutions and "
            "products of matrices cannot be counted: they are hidden in "
            f"{', '.join(uncounted) or 'code that torch.jit does not trace'}",
            "write it with operators that can be counted, such as torch.matmul",
        )


@dataclass(eq=False)
class _Ran(TorchDispatchMode):
    """Sees every operator that runs within the context, in a trace or not.

    `products` are the MACs of convolutions and products of matrices. `registered` has those of
    operators of other packages that have a formula of torch's flop counter, and `hidden` the ones
    with weights that have none.
    """

    products: int = 0
    registered: Counter[str] = field(default_factory=Counter)
    hidden: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        packet = func.overloadpacket
        name = f"{func.namespace}::{packet.__name__}"
        if packet in flop_registry:
            # torch counts a multiplication and an addition as two.
            macs = flop_registry[packet](*args, **given, out_val=result) // 2
            if func.namespace == "aten":
                self.products += macs
            else:
                self.registered[name] += macs
        elif func.namespace != "aten" and name not in WEIGHTED and _with_weights((args, given)):
            self.hidden[name] = None
        return result


def _with_weights(values: Any) -> bool:
    """Whether an operator gets a parameter, a view of one, or packed weights."""
    return any(
        isinstance(leaf, (Parameter, torch.ScriptObject))
        or (isinstance(leaf, Tensor) and isinstance(leaf._base, Parameter))
        for leaf in tree_leaves(values)
    )


def overheads(cost: Cost, base: Cost) -> dict[str, float]:
    """How much more expensive than `base`, in percent, for each of COUNTS.

    Raises UserError if one of them is 0 for `base`.
    """
    return {key: overhead(getattr(cost, key), getattr(base, key), UNITS[key]) for key in COUNTS}


def overhead(value: int, base: int, what: str = "cost") -> float:
    """How much more expensive than `base`, in percent; `what` is the plural of what is compared.

    Raises UserError if `base` is 0.
    """
    if not base:
        raise UserError(
            f"the backbone has 0 {what}, and an overhead over nothing is no number",
            "compare the counts themselves: count(model, input_shape)",
        )
    return 100 * (value - base) / base
