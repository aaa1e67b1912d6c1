"""A model made ready to be counted: on the CPU, from tensors to tensors, with nothing hidden.

Operators hide from a trace in the fused attention of torch, inside `autograd.Function`s (gradient
checkpointing is one), in compiled modules, and where nothing reads their result. Detectors resize
their images, and run their heads on as many boxes as the images have.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, _SingleLevelFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bam_search.errors import UserError
from bam_search.model.arguments import Arguments, tensors
from bam_search.model.twin import twin_of

ONE_THREAD = threading.RLock()
"""Held while settings of torch that all threads share are others than the user's."""
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True)
class Example:
    """What a model is called with to count it: the leaves of its arguments, and their structure."""

    leaves: tuple[Any, ...]
    structure: TreeSpec

    @classmethod
    def of(cls, input_shape: tuple[int, ...] | None, example_inputs: object) -> "Example":
        """The example of `count`, on the CPU.

        Raises UserError unless one of the two is given, and if there is no tensor in the inputs.
        """
        if (input_shape is None) == (example_inputs is None):
            raise UserError(
                f"input_shape is {input_shape}, and example_inputs are "
                f"{'not given either' if example_inputs is None else 'given as well'}",
                "give one of them: input_shape, such as (3, 224, 224), or example_inputs",
            )
        if input_shape is not None:
            example_inputs = torch.zeros(1, *input_shape)
        arguments = Arguments.of(example_inputs)
        leaves, structure = tree_flatten((arguments.args, dict(arguments.kwargs)))
        return cls(tuple(map(_on_cpu, leaves)), structure)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors among the leaves, which a trace has for inputs."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    @property
    def text(self) -> str:
        """The shapes, for a sentence."""
        return " and ".join(str(tuple(tensor.shape)) for tensor in self.tensors)

    def arguments(self, tensors: Iterable[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the keyword arguments, with these tensors."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.structure)
        return args, kwargs


def _on_cpu(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    on_cpu = torch.zeros_like(leaf, device="cpu") if leaf.is_meta else leaf.detach().cpu()
    return on_cpu.float() if leaf.is_floating_point() else on_cpu


class Countable(nn.Module):
    """The tensors of an example -> all tensors of the model's output, as a tuple.

    Within `keep_all`, the results of all operators are put out, so that a trace drops none.
    """

    def __init__(self, net: nn.Module, example: Example) -> None:
        super().__init__()
        self.net = net
        self.example = example
        self.keep_all = False
        self.register_state_dict_post_hook(_leave_tensors)  # type: ignore[no-untyped-call]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = self.example.arguments(given)
        kept = _Kept()
        with kept if self.keep_all else contextlib.nullcontext():
            output = self.net(*args, **kwargs)
        outputs = (*tensors(output), *kept.tensors)
        if not outputs:
            raise ValueError(f"its output, a {type(output).__name__}, has no tensors")
        return outputs


def _leave_tensors(_net: nn.Module, state: dict[str, Any], *_: object) -> None:
    """Take out of the state what a trace cannot have for an input."""
    for name in [name for name, value in state.items() if not isinstance(value, Tensor)]:
        del state[name]


class _Kept(TorchFunctionMode):
    """Keeps the results of all functions of torch within the context."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.tensors.extend(tensors(result))
        return result


def countable(model: nn.Module, example: Example) -> Countable:
    """A copy of the model that can be counted, in eval mode. Raises UserError."""
    net = twin_of(_unwrapped(model), "cpu").eval().float()
    for module in net.modules():
        for name, child in module.named_children():
            if hasattr(child, "_orig_mod"):  # what torch.compile compiled
                setattr(module, name, child._orig_mod)
        for kind in type(module).__mro__:
            if kind.__name__ in DETECTORS:
                DETECTORS[kind.__name__](module, example.tensors[0].shape[-2:])
    return Countable(net, example)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of what compiles it or makes it parallel."""
    if isinstance(model, WRAPPERS):
        return _unwrapped(model.module)
    compiled = getattr(model, "_orig_mod", None)
    return model if compiled is None else _unwrapped(compiled)


def _resize_to(transform: Any, size: Sequence[int]) -> None:
    transform.fixed_size = None
    transform.min_size, transform.max_size = (min(size),), max(size)


def _propose_all(rpn: Any, _size: Sequence[int]) -> None:
    rpn.nms_thresh = math.inf


def _detect_all(heads: Any, _size: Sequence[int]) -> None:
    """Take the first proposals for detections, as many as are kept at most."""
    most = heads.detections_per_img

    def detections(_logits: Tensor, _deltas: Tensor, proposals: list[Tensor], _shapes: Any) -> Any:
        boxes = [proposed[:most] for proposed in proposals]
        scores = [kept.new_ones(len(kept)) for kept in boxes]
        return boxes, scores, [score.long() for score in scores]

    heads.postprocess_detections = detections


DETECTORS: Mapping[str, Callable[[Any, Sequence[int]], None]] = {
    "GeneralizedRCNNTransform": _resize_to,
    "RegionProposalNetwork": _propose_all,
    "RoIHeads": _detect_all,
}
"""By the names of torchvision's classes, what makes a detector's count one of the given size."""


@contextlib.contextmanager
def everything_in_sight() -> Iterator[None]:
    """Within the context a trace of this thread sees every operator, whatever the caller has set.

    Gradients, inference mode, autocast and the fast path of torch's attention are off, functions of
    autograd run as plain ones, and random numbers are given back.
    """
    with (
        ONE_THREAD,
        without_fast_path(),
        _functions_in_sight(),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.random.fork_rng(devices=()),
    ):
        yield


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Within the context torch's attention runs as operators that can be seen."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _functions_in_sight() -> Iterator[None]:
    function = torch.autograd.Function
    hidden = vars(function)["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not torch._C._is_tracing():  # another thread, which is none of ours
            return hidden.__get__(None, cls)(*args, **kwargs)
        if cls.setup_context is not _SingleLevelFunction.setup_context:
            return cls.forward(*args, **kwargs)
        context: Any = FunctionCtx()
        context.needs_input_grad = (False,) * len(args)
        return cls.forward(context, *args, **kwargs)

    function.apply = classmethod(apply)
    try:
        yield
    finally:
        function.apply = hidden
