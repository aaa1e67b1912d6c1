"""A model's blocks and stages, read off one traced forward pass.

They are found by repetition and by resolution, never by name. The *trunk* is the set of operations
that every path from the image to the output passes through. A *block* is a submodule of a class
that comes up again and again and whose outputs all lie on the trunk; a *stage* is a run of blocks
whose maps have one size.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from bam_search.model.trace import WEIGHTED, Call, Trace

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Classes that say nothing of what is in them."""

MAPS = (3, 4, 5)
"""The numbers of dimensions of what may be a map: of a sequence or tokens, an image, a volume."""

LAYOUT_OPS = frozenset(
    {
        *("permute", "transpose", "view", "_unsafe_view", "reshape"),
        *("clone", "_to_copy", "alias", "unsqueeze", "squeeze"),
    }
)
"""Operations that leave the values as they are."""


@dataclass(frozen=True)
class Block:
    """A block, and the submodule that ends its residual branch, both by name.

    `branch_end` is the block itself if the block adds no branch.
    """

    name: str
    branch_end: str


@dataclass(frozen=True)
class TracedModel:
    """The trace of a model, and the calls of the submodules that were called once.

    `single_calls` has these calls by name, in the order in which they returned.
    """

    trace: Trace
    single_calls: Mapping[str, Call]

    def module(self, name: str) -> nn.Module:
        """The submodule of a name."""
        return self.trace.model.get_submodule(name)

    def on_trunk(self, name: str) -> bool:
        """Whether what it returned lies on the trunk."""
        return self.single_calls[name].out in self.trace.trunk

    def dimensions(self, name: str) -> int:
        """The number of dimensions of the tensor it returned."""
        return len(self.single_calls[name].shape)

    def producer(self, name: str) -> int | None:
        """The operation that computed the values it returned, looking through layout changes."""
        n = self.single_calls[name].out
        while n is not None and self.trace.kinds[n] in LAYOUT_OPS:
            n = self.trace.sources[n][0]
        return n


def traced_model(trace: Trace) -> TracedModel:
    """The traced model of `trace`."""
    single_calls = {call.name: call for call in trace.calls if trace.times[call.name] == 1}
    return TracedModel(trace, single_calls)


def blocks(traced: TracedModel) -> tuple[Block, ...]:
    """The blocks of a model, in order.

    Four ways to find blocks are tried in turn: submodules of repeated classes on the trunk; the
    same for containers of repeated content; submodules of repeated classes wherever they are, for
    networks without a trunk (NASNet) or whose blocks return several tensors; convolutions on the
    trunk, each with the normalisation and activation after it (VGG). The first that finds blocks
    counts, unless another finds blocks with more than twice its parameters.
    """
    tried = [
        find(traced)
        for find in (
            _repeated_classes,
            _repeated_containers,
            _repeated_classes_anywhere,
            _convolution_blocks,
        )
    ]
    candidates = [names for names in tried if len(names) > 1]
    if not candidates:
        return ()
    sizes = [sum(_size(traced.module(name)) for name in names) for names in candidates]
    sized = zip(candidates, sizes, strict=True)
    chosen = next(names for names, size in sized if 2 * size >= max(sizes))
    return tuple(Block(name, _branch_end(traced, name)) for name in chosen)


def stages(
    found: Sequence[Block], sizes: Mapping[str, tuple[int, int]]
) -> tuple[tuple[Block, ...], ...]:
    """The blocks of each stage; `sizes` has (height, width) of those that put out a map.

    Empty if sizes grow anywhere from first to last: such a network works at several
    resolutions at a time (HRNet).
    """
    mapped = [block for block in found if block.name in sizes]
    resolutions = [sizes[block.name] for block in mapped]
    if sorted(resolutions, reverse=True) != resolutions:
        return ()
    distinct = list(dict.fromkeys(resolutions))
    return tuple(tuple(block for block in mapped if sizes[block.name] == size) for size in distinct)


def outermost(traced: TracedModel, name: str, without: Sequence[str]) -> str:
    """The outermost submodule that returns what `name` returns and holds none of `without`.

    It may return the values laid out in another way.
    """
    producer = traced.producer(name)
    around = [other for other in traced.single_calls if holds(other, name)]
    same = [other for other in around if traced.producer(other) == producer]
    fit = [other for other in same if not any(holds(other, inside) for inside in without)]
    return min(fit, key=len, default=name)


def _repeated_classes(traced: TracedModel) -> list[str]:
    """Submodules of repeated classes on the trunk."""

    def fits(name: str) -> bool:
        return traced.on_trunk(name) and traced.dimensions(name) in MAPS

    groups = _groups(traced, _class_key, fits)
    return _in_order(traced, _topmost(_without_stages(traced, groups, groups)))


def _repeated_containers(traced: TracedModel) -> list[str]:
    """Containers of repeated content on the trunk."""

    def fits(name: str) -> bool:
        return traced.on_trunk(name) and traced.dimensions(name) in MAPS

    groups = _groups(traced, _content_key, fits)
    return _in_order(traced, _topmost(_without_stages(traced, groups, groups)))


def _repeated_classes_anywhere(traced: TracedModel) -> list[str]:
    """Submodules of repeated classes wherever they are."""
    groups = _groups(traced, _class_key, lambda name: traced.dimensions(name) in MAPS)
    # Only what returns several tensors is checked for being a stage.
    several = [key for key, names in groups.items() if _any_without_result(traced, names)]
    left = _without_stages(traced, groups, several)
    every = _all_names(left)
    outermost_kinds = {
        key: names
        for key, names in left.items()
        if not any(_inside_any(name, every) for name in names)
    }
    return _in_order(traced, outermost_kinds)


def _any_without_result(traced: TracedModel, names: Iterable[str]) -> bool:
    return any(traced.single_calls[name].out is None for name in names)


def _convolution_blocks(traced: TracedModel) -> list[str]:
    """For each convolution on the trunk, the last submodule that still returns its map.

    That is the last one without children that follows it before the map changes its shape.
    """
    ends: list[str] = []
    open_shape: tuple[int, ...] | None = None
    for name, call in traced.single_calls.items():
        module = traced.module(name)
        if any(module.children()) or not traced.on_trunk(name):
            continue
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            if module.kernel_size == call.given[2:]:  # a linear layer in disguise
                break
            ends.append(name)
            open_shape = call.shape
        elif call.shape == open_shape:
            ends[-1] = name
        else:
            open_shape = None
    return ends


def _class_key(module: nn.Module) -> object:
    return None if type(module) in CONTAINERS else type(module)


def _content_key(module: nn.Module) -> object:
    return tuple(type(m) for m in module.modules()) if type(module) in CONTAINERS else None


Groups = Mapping[object, list[str]]
"""Submodules that may be blocks, by what makes them of one kind."""


def _groups(
    traced: TracedModel, kind: Callable[[nn.Module], object], fits: Callable[[str], bool]
) -> Groups:
    """The kinds that repeat, and whose submodules with layers all fit.

    A submodule inside another of its kind does not count.
    """
    groups: dict[object, list[str]] = {}
    for name in traced.single_calls:
        module = traced.module(name)
        key = kind(module) if _has_layers(module) else None
        if key is not None:
            groups.setdefault(key, []).append(name)
    outer = {key: _outside(names, names) for key, names in groups.items()}
    return {key: names for key, names in outer.items() if len(names) > 1 and all(map(fits, names))}


def _without_stages(traced: TracedModel, groups: Groups, among: Iterable[object]) -> Groups:
    """The groups without those kinds of `among` that are stages: made of other kinds."""
    stage_kinds = {
        key for key in among if any(_made_of(traced, name, groups) for name in groups[key])
    }
    return {key: names for key, names in groups.items() if key not in stage_kinds}


def _topmost(groups: Groups) -> Groups:
    """The groups without submodules that lie inside another."""
    every = _all_names(groups)
    return {key: _outside(names, every) for key, names in groups.items()}


def _all_names(groups: Groups) -> list[str]:
    return list(itertools.chain.from_iterable(groups.values()))


def _outside(names: Iterable[str], others: Sequence[str]) -> list[str]:
    """The names that lie inside none of the others."""
    return [name for name in names if not _inside_any(name, others)]


def _made_of(traced: TracedModel, name: str, groups: Groups) -> bool:
    """Whether two or more of one kind lie in `name`, and candidates hold most of its parameters."""
    inside = {
        key: [other for other in names if other != name and holds(name, other)]
        for key, names in groups.items()
    }
    if not any(len(names) > 1 for names in inside.values()):
        return False
    every = _all_names(inside)
    held = sum(_size(traced.module(other)) for other in _outside(every, every))
    return 2 * held > _size(traced.module(name))


def _without_transitions(traced: TracedModel, groups: Groups) -> Groups:
    """The groups without kinds that only lead from stage to stage.

    These are plain chains where other kinds merge paths, and kinds that always resize and add
    nothing. Where nothing would be left, they stay.
    """
    merging = {
        key: names for key, names in groups.items() if any(_merges(traced, name) for name in names)
    }
    remaining = merging or groups
    keeping_size = {
        key: names
        for key, names in remaining.items()
        if not all(_resizes(traced, name) for name in names)
    }
    return keeping_size or remaining


def _merges(traced: TracedModel, name: str) -> bool:
    """Whether several paths come together in the submodule."""
    call, trace = traced.single_calls[name], traced.trace
    inside = range(call.first, call.last + 1)
    joins = [n for n in inside if trace.kinds[n] in ("add", "cat", "stack")]
    return any(len(trace.sources[n]) > 1 for n in joins)


def _resizes(traced: TracedModel, name: str) -> bool:
    """Whether the submodule changes the shape of its map, and adds nothing."""
    call = traced.single_calls[name]
    if not call.shape or sorted(call.given[1:]) == sorted(call.shape[1:]):
        return False
    return _branch(traced.trace, call) is None


def _in_order(traced: TracedModel, groups: Groups) -> list[str]:
    """The blocks among the groups, in the order in which they return."""
    nonempty = {key: names for key, names in groups.items() if names}
    names = _all_names(_without_transitions(traced, nonempty))
    return sorted(names, key=lambda name: traced.single_calls[name].last)


def _branch_end(traced: TracedModel, block: str) -> str:
    """The submodule that ends the block's residual branch, by name.

    The way to it leads back from the block's output to the addition, then along the operand that
    did more work. A layer scale or a stochastic depth between them is passed over. It is the block
    itself if there is no such operand or submodule.
    """
    call, trace = traced.single_calls[block], traced.trace
    operand = _branch(trace, call)
    while operand is not None and operand >= call.first:
        ends = [name for name in traced.single_calls if _ends_branch(traced, block, name, operand)]
        if ends:
            return min(ends, key=lambda name: name.count("."))
        operand = _only_source(trace, operand)
    return block


def _ends_branch(traced: TracedModel, block: str, name: str, operand: int) -> bool:
    """Whether a submodule in the block, with weights, returned this operand of the addition."""
    call = traced.single_calls[name]
    if call.out != operand or name == block or not holds(block, name):
        return False
    if sorted(call.shape) != sorted(traced.single_calls[block].shape):
        return False
    return _has_weights(traced.module(name)) and not _only_scales(traced.trace, call)


def _only_scales(trace: Trace, call: Call) -> bool:
    kinds = trace.kinds[call.first : call.last + 1]
    return all(kind == "mul" or kind in LAYOUT_OPS for kind in kinds)


def _branch(trace: Trace, call: Call) -> int | None:
    """The operand that is the residual branch, of the addition that made the block's output.

    It is the operand with more weighted operations; None if there was no addition, or if both have
    as many.
    """
    n: int | None = call.out
    while n is not None and n >= call.first:
        operands = [source for source in trace.sources[n] if source in trace.live]
        if len(operands) == 2 and trace.kinds[n] == "add":
            left, right = operands
            left_work = _weighted_above(trace, left, call)
            right_work = _weighted_above(trace, right, call)
            if left_work == right_work:
                return None
            return left if left_work > right_work else right
        n = _only_source(trace, n)
    return None


def _weighted_above(trace: Trace, operand: int, call: Call) -> int:
    """The number of weighted operations in the call that the operand depends on."""
    above = trace.above([operand], call.first)
    return sum(trace.kinds[n] in WEIGHTED for n in above)


def _only_source(trace: Trace, n: int) -> int | None:
    """The operation that n changes without weights; None if n has weights or several sources."""
    if len(trace.sources[n]) != 1 or trace.kinds[n] in WEIGHTED:
        return None
    return trace.sources[n][0]


def holds(outer: str, inner: str) -> bool:
    """Whether the submodule `inner` is `outer` or lies in it, by name."""
    return inner == outer or inner.startswith(f"{outer}.")


def _inside_any(name: str, others: Sequence[str]) -> bool:
    return any(name != other and holds(other, name) for other in others)


def _has_layers(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(p.dim() > 1 for p in module.parameters())


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
