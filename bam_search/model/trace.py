"""Trace one forward pass.

Which submodule was called when, what it returned, and how the tensors depend on one another.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bam_search.errors import UserError
from bam_search.model.arguments import Arguments, tensors
from bam_search.model.insert import free_name, remove
from bam_search.model.probe import Probe, put_probes
from bam_search.model.twin import twin_of

Shape = tuple[int, ...]
"""(C, H, W) of an image, (C, L) of a sequence or (C, D, H, W) of a volume."""
BATCH = 2
"""Images in the traced pass.

With one, an output that folds something else into the batch could not be told apart.
"""

WEIGHTED = frozenset({"convolution", "mm", "addmm", "bmm", "baddbmm"})
"""Operations that do a layer's work; all others shape, normalise or combine."""


@dataclass(frozen=True)
class Call:
    """One call of a submodule.

    The operations `first` to `last` ran inside, and operation `out` made what it returned. `given`
    is the shape of the first tensor it got, `shape` that of the one it returned; `returned` is the
    name of its class. `out` is None unless that was one tensor that depends on the image; `outs`
    made the tensors among what it returned. It `began` and `ended` at these moments, where each
    beginning and end of a call is one. `arguments` is what it got.
    """

    name: str
    first: int
    last: int
    out: int | None
    given: tuple[int, ...]
    shape: tuple[int, ...]
    returned: str
    outs: tuple[int, ...] = ()
    began: int = 0
    ended: int = 0
    arguments: Arguments = field(default_factory=Arguments, compare=False, repr=False)

    def holds(self, other: "Call") -> bool:
        """Whether the other call was made within this one."""
        return self.began < other.began and other.ended < self.ended


@dataclass(frozen=True)
class Trace:
    """The operations of one forward pass, and the calls of submodules.

    Operations are numbered in the order in which they ran; 0 is the image, and only operations that
    depend on it are numbered. `sources[n]` are the operations whose results operation n read,
    `kinds[n]` is its name, `shapes[n]` the shape of its result; `results` made the tensors that the
    model returned. `model` is the copy that was watched: without attention, perhaps without values.

    `run_children` are the submodules that run over their own children, so that they would run one
    more; `children_run_outside` those whose children something else runs over.
    """

    model: nn.Module
    calls: tuple[Call, ...]
    sources: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    results: tuple[int, ...]
    run_children: frozenset[str] = frozenset()
    children_run_outside: frozenset[str] = frozenset()

    @cached_property
    def calls_of(self) -> dict[str, list[Call]]:
        """The calls of each submodule, by name."""
        calls: dict[str, list[Call]] = {}
        for call in self.calls:
            calls.setdefault(call.name, []).append(call)
        return calls

    @cached_property
    def times(self) -> Counter[str]:
        """How often each submodule was called."""
        return Counter({name: len(calls) for name, calls in self.calls_of.items()})

    @property
    def resizes_images(self) -> bool:
        """Whether the model resizes its images before it does any work on them (a detector)."""
        weighted = (n for n, kind in enumerate(self.kinds) if kind in WEIGHTED)
        before = self.kinds[: next(weighted, 0)]
        return any("upsample" in kind for kind in before)

    @cached_property
    def live(self) -> frozenset[int]:
        """The operations that the model's outputs depend on."""
        return self.above(self.results, down_to=0)

    @cached_property
    def result(self) -> int:
        """The operation that made the main output: the one that most weighted ones lead to."""
        return max(self.results, key=lambda n: (self.work(self.above([n], down_to=0)), n))

    @cached_property
    def decodes(self) -> bool:
        """Whether the main output is a map, and larger than a map that it was made from."""
        if not self._is_map(self.result):
            return False
        above = self.above([self.result], down_to=0)
        return any(self._is_smaller(n, self.result) for n in above if self.kinds[n] in WEIGHTED)

    @cached_property
    def trunk(self) -> frozenset[int]:
        """The operations that every path from the image to the main output passes through.

        A path that skips smaller maps, from an encoder to its decoder, does not count.
        """
        sources = self._without_skips if self.decodes else self.sources
        above = _above(sources, [self.result], 0)
        jumps = [0] * (len(sources) + 1)
        for end in above:
            for start in sources[end]:
                if end - start > 1:
                    jumps[start + 1] += 1
                    jumps[end] -= 1
        trunk, edges_over = set(), 0
        for n in range(len(sources)):
            edges_over += jumps[n]
            if n in above and not edges_over:
                trunk.add(n)
        return frozenset(trunk)

    @cached_property
    def turn(self) -> int:
        """The last operation on the trunk that made the smallest map; after it maps grow.

        It is the last of all if none grows.
        """
        maps = [n for n in sorted(self.trunk) if self._is_map(n)]
        if not self.decodes:
            return len(self.sources)
        smallest = min(self._positions(n) for n in maps)
        return max(n for n in maps if self._positions(n) == smallest)

    def above(self, ends: Iterable[int], down_to: int) -> frozenset[int]:
        """`ends` and all operations from `down_to` on that they depend on."""
        return _above(self.sources, ends, down_to)

    def work(self, operations: Iterable[int]) -> int:
        """How many of the operations are weighted."""
        return sum(self.kinds[n] in WEIGHTED for n in operations)

    def within(self, call: Call) -> "Trace":
        """The trace of one call of a submodule, as if that were the model.

        Names stay as they are.
        """

        def renumbered(n: int) -> int:
            return max(n - call.first + 1, 0)

        def moved(inner: Call) -> Call:
            return replace(
                inner,
                first=renumbered(inner.first),
                last=renumbered(inner.last),
                out=None if inner.out is None else renumbered(inner.out),
                outs=tuple(map(renumbered, inner.outs)),
            )

        inside = slice(call.first, call.last + 1)
        sources = [tuple(sorted({*map(renumbered, read)})) for read in self.sources[inside]]
        return Trace(
            self.model,
            tuple(moved(inner) for inner in self.calls if call.holds(inner)),
            ((), *sources),
            ("image", *self.kinds[inside]),
            (call.arguments.shape, *self.shapes[inside]),
            tuple(map(renumbered, call.outs)),
        )

    @cached_property
    def _without_skips(self) -> Sequence[tuple[int, ...]]:
        """The sources without the operands that skip smaller maps, where another passes them."""
        sources = list(self.sources)
        for n in sorted(self.live):
            operands = [source for source in sources[n] if self._is_as_large(source, n)]
            skips = self._skips(sources, operands)
            sources[n] = tuple(source for source in sources[n] if source not in skips)
        return sources

    def _skips(self, sources: Sequence[tuple[int, ...]], operands: Sequence[int]) -> set[int]:
        """The operands that do not come from smaller maps, where another does."""
        if len(operands) < 2:
            return set()
        above = {operand: _above(sources, [operand], 0) for operand in operands}
        grown = set()
        for operand in operands:
            others = frozenset().union(*(above[n] for n in operands if n != operand))
            if self._grows(sources, operand, others):
                grown.add(operand)
        return set(operands) - grown if grown else set()

    def _grows(
        self, sources: Sequence[tuple[int, ...]], operand: int, others: frozenset[int]
    ) -> bool:
        """Whether all that leads from `others` to the operand passes through a smaller map."""
        seen: set[int] = set()
        waiting = [operand]
        while waiting:
            n = waiting.pop()
            if n in others:
                return False
            if n not in seen:
                seen.add(n)
                waiting.extend(s for s in sources[n] if not self._is_smaller(s, operand))
        return True

    def _is_map(self, n: int) -> bool:
        """Whether an operation made a tensor of as many dimensions as the image."""
        return len(self.shapes[n]) == len(self.shapes[0]) > 2

    def _positions(self, n: int) -> int:
        return math.prod(self.shapes[n][2:])

    def _is_smaller(self, n: int, other: int) -> bool:
        return self._is_map(n) and self._positions(n) < self._positions(other)

    def _is_as_large(self, n: int, other: int) -> bool:
        return self._is_map(n) and self.shapes[n][2:] == self.shapes[other][2:]


def _above(sources: Sequence[tuple[int, ...]], ends: Iterable[int], down_to: int) -> frozenset[int]:
    """`ends` and all operations from `down_to` on that they depend on."""
    seen: set[int] = set()
    waiting = list(ends)
    while waiting:
        n = waiting.pop()
        if n >= down_to and n not in seen:
            seen.add(n)
            waiting.extend(sources[n])
    return frozenset(seen)


def trace(model: nn.Module, inputs: Shape | Arguments, probing: bool = True) -> Trace:
    """The trace of a copy of `model` without attention, in eval mode, on the meta device.

    `inputs` are BATCH images of a shape (C, H, W), or what the model is called with. Nothing is
    computed, and the model is not changed. A model that cannot run there (it asks for values) runs
    on the CPU. With `probing` it has a probe in each submodule; where it does not run with them,
    every submodule counts as one that runs over its children. Raises UserError if it cannot be
    copied, or run on the inputs at all.
    """
    arguments = inputs if isinstance(inputs, Arguments) else image_arguments(model, inputs)
    for probed in (True, False) if probing else (False,):
        found = trace_without_values(model, arguments, probed)
        if found is not None:
            return found
    twin = twin_of(model, "cpu")
    try:
        return _watched(twin, arguments.on("cpu"), probed=False)
    except Exception as error:  # a user's model can raise anything; the user has to read it
        kind = type(error).__name__
        first = (str(error).strip().splitlines() or [kind])[0]
        raise UserError(f"the model cannot run on {arguments.text}: {kind}: {first}") from error


def trace_without_values(
    model: nn.Module, arguments: Arguments, probed: bool = False
) -> Trace | None:
    """The trace on the meta device; None if the model cannot run there."""
    try:
        return _watched(twin_of(model, "meta"), arguments.on("meta"), probed)
    except Exception:  # a user's model can raise anything
        return None


def image_arguments(model: nn.Module, shape: Shape) -> Arguments:
    """BATCH black images of a shape, in the type of the model's weights, without values."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    images = torch.zeros(BATCH, *shape, dtype=dtype)
    return Arguments((images,), text=f"images of shape {shape}")


def _watched(twin: nn.Module, arguments: Arguments, probed: bool) -> Trace:
    remove(twin)
    watch = _Watch()
    watch.handed_on(arguments)
    named = {name: module for name, module in twin.named_modules() if name}
    for name, module in named.items():
        _listen(module, name, watch)
    probes = put_probes(twin, _probed(named)) if probed else {}
    with torch.no_grad(), watch:
        output = twin.eval()(*arguments.args, **arguments.kwargs)
    remove(twin)
    results = watch.makers(output)
    if not results:
        raise ValueError("its output does not depend on the image")
    return Trace(
        twin,
        tuple(watch.calls),
        tuple(watch.sources),
        tuple(watch.kinds),
        tuple(watch.shapes),
        tuple(sorted(results)),
        frozenset(_by_others(probes)) if probed else frozenset(named),
        frozenset(name for name, probe in probes.items() if probe.others_outside),
    )


def _probed(named: Mapping[str, nn.Module]) -> list[str]:
    """The submodules that get a probe: those that may be called, and have a name free for it."""
    return [
        name
        for name, module in named.items()
        if type(module) not in (nn.ModuleList, nn.ModuleDict)
        and not isinstance(module, torch.jit.ScriptModule)
        and free_name(module)
    ]


def _by_others(probes: Mapping[str, Probe]) -> list[str]:
    return [name for name, probe in probes.items() if probe.others]


def _listen(module: nn.Module, name: str, watch: "_Watch") -> None:
    begun: list[Call] = []
    module.register_forward_pre_hook(
        lambda _module, args, kwargs: begun.append(watch.begin(name, Arguments(args, kwargs))),
        with_kwargs=True,
    )
    module.register_forward_hook(lambda _module, _args, output: watch.returned(begun.pop(), output))


def _shape(values: Iterable[Tensor]) -> tuple[int, ...]:
    """The shape of the first tensor; () if there is none."""
    return next((tuple(t.shape) for t in values), ())


@functools.cache
def _written(func: Any) -> tuple[int, ...]:
    """The positions of the arguments that an operation writes to."""
    arguments = func._schema.arguments
    return tuple(
        n for n, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write
    )


@dataclass(frozen=True)
class _Write:
    """Operation `operation` wrote to a storage, from `start` to before `end`."""

    operation: int
    start: int
    end: int


def _storage(tensor: Tensor) -> int:
    """What is the same for all tensors that share their memory; 0 for one without strides."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The first place of the tensor in its storage, and the one after its last."""
    start = int(tensor.storage_offset())
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    reach = sum((size - 1) * step for size, step in steps)
    return start, start + reach + 1


@dataclass(eq=False)
class _Watch(TorchDispatchMode):
    """Sees every operation, and numbers those that depend on the image.

    `maker` is the number of the operation that made a tensor, by the tensor's id. `kept` holds
    these tensors: the id of a tensor that is freed would go to another. `writes` are by storage:
    what is written into a part of a tensor is in the whole.
    """

    calls: list[Call] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    maker: dict[int, int] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    writes: dict[int, list[_Write]] = field(default_factory=dict)
    moment: int = 0

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def handed_on(self, arguments: Arguments) -> None:
        """The model gets these: together they are the image."""
        self._add((), "image", arguments.tensors)
        self.shapes[0] = arguments.shape

    def begin(self, name: str, arguments: Arguments) -> Call:
        self.moment += 1
        given = _shape(arguments.tensors)
        return Call(
            *(name, len(self.sources), 0, None, given, (), ""),
            began=self.moment,
            arguments=arguments,
        )

    def returned(self, call: Call, output: object) -> None:
        self.moment += 1
        among = tensors(output)
        made = [self._makers(tensor) for tensor in among]
        outs = tuple(max(operations) for operations in made if operations)
        self.calls.append(
            replace(
                call,
                last=len(self.sources) - 1,
                out=outs[0] if outs and isinstance(output, Tensor) else None,
                shape=_shape(among),
                returned=type(output).__name__,
                outs=outs,
                ended=self.moment,
            )
        )

    def makers(self, values: object) -> set[int]:
        """The operations that made the tensors among the values."""
        return {number for tensor in tensors(values) for number in self._makers(tensor)}

    def _makers(self, tensor: Tensor) -> set[int]:
        """The operation that made a tensor, and those that wrote into a part of it since."""
        made = self.maker.get(id(tensor), -1)
        found = {made} if made >= 0 else set()
        for write in reversed(self.writes.get(_storage(tensor), ())):
            if write.operation <= made:
                break
            start, end = _extent(tensor)
            holds_write = start <= write.start and write.end <= end
            lies_in_write = write.start <= start and end <= write.end
            if holds_write or lies_in_write:
                found.add(write.operation)
        return found

    def _wrote(self, tensor: Tensor) -> None:
        """The last operation wrote to this tensor."""
        write = _Write(len(self.sources) - 1, *_extent(tensor))
        self.writes.setdefault(_storage(tensor), []).append(write)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = self.makers((args, kwargs))
        if read:
            self._add(
                tuple(sorted(read)), func.overloadpacket.__name__.rstrip("_"), tensors(result)
            )
            for n in _written(func):
                for tensor in tensors(args[n : n + 1]):
                    self._wrote(tensor)
        return result

    def _add(self, sources: tuple[int, ...], kind: str, results: Sequence[Tensor]) -> None:
        self.sources.append(sources)
        self.kinds.append(kind)
        self.shapes.append(_shape(results))
        for tensor in results:
            self.maker[id(tensor)] = len(self.sources) - 1
            self.kept.append(tensor)
