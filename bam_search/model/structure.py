"""A model's blocks and stages, read off one watched forward pass: by repetition and by resolution,
never by name.

The *trunk* are the operations that every path from the image to the output passes through. A
*block* is a submodule of a class that comes up again and again and whose outputs all lie on the
trunk; a *stage* is a run of blocks whose maps have one size.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from bam_search.model.trace import WEIGHTED, Call, Trace

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Classes that say nothing of what is in them."""

LAYOUT = frozenset(
    {
        "permute",
        "transpose",
        "view",
        "_unsafe_view",
        "reshape",
        "clone",
        "_to_copy",
        "alias",
        "unsqueeze",
        "squeeze",
    }
)
"""Operations that leave the values as they are."""


@dataclass(frozen=True)
class Block:
    """A block by name, and the name of the submodule that ends its residual branch: the block
    itself if it adds none.
    """

    name: str
    branch_end: str


@dataclass(frozen=True)
class TracedModel:
    """What was seen of a model, and the calls of submodules called once, by name, in the order of
    their returning.
    """

    trace: Trace
    once: Mapping[str, Call]

    def module(self, name: str) -> nn.Module:
        """The submodule of a name."""
        return self.trace.model.get_submodule(name)

    def on_trunk(self, name: str) -> bool:
        """Whether what it returned lies on the trunk."""
        return self.once[name].out in self.trace.trunk

    def content(self, name: str) -> int | None:
        """The operation that made the values it returned, whatever laid them out since."""
        n = self.once[name].out
        while n is not None and self.trace.kinds[n] in LAYOUT:
            n = self.trace.sources[n][0]
        return n


def traced_model(trace: Trace) -> TracedModel:
    """What was seen in `trace`."""
    return TracedModel(
        trace, {call.name: call for call in trace.calls if trace.times[call.name] == 1}
    )


def blocks(traced: TracedModel) -> tuple[Block, ...]:
    """The blocks, in order: what the first of these finds, unless another finds blocks with more
    than twice its parameters.

    Submodules of repeated classes on the trunk; the same for containers of repeated content;
    submodules of repeated classes wherever they are, for networks without a trunk (NASNet) or whose
    blocks return several tensors; convolutions on the trunk, each with the normalisation and
    activation after it (VGG).
    """
    found = [
        names
        for find in (_classes, _contents, _anywhere, _convolutions)
        if len(names := find(traced)) > 1
    ]
    sizes = [sum(_size(traced.module(name)) for name in names) for names in found]
    chosen = next(
        (names for names, size in zip(found, sizes, strict=True) if 2 * size >= max(sizes)), []
    )
    return tuple(Block(name, _branch_end(traced, name)) for name in chosen)


def stages(
    found: Sequence[Block], sizes: Mapping[str, tuple[int, int]]
) -> tuple[tuple[Block, ...], ...]:
    """The blocks of each stage; `sizes` has (height, width) of those that put out a map.

    None at all if sizes do not shrink from first to last: such a network works at several
    resolutions at a time (HRNet).
    """
    mapped = [block for block in found if block.name in sizes]
    heights = [sizes[block.name] for block in mapped]
    if sorted(heights, reverse=True) != heights:
        return ()
    distinct = list(dict.fromkeys(heights))
    return tuple(tuple(block for block in mapped if sizes[block.name] == size) for size in distinct)


def outermost(traced: TracedModel, name: str, without: Sequence[str]) -> str:
    """The outermost submodule that returns what `name` returns, perhaps laid out otherwise, and
    holds none of `without`.
    """
    content = traced.content(name)
    same = [
        other for other in traced.once if holds(other, name) and traced.content(other) == content
    ]
    fit = [other for other in same if not any(holds(other, inside) for inside in without)]
    return min(fit, key=len, default=name)


def _classes(traced: TracedModel) -> list[str]:
    groups = _groups(
        traced,
        _class,
        lambda name: traced.on_trunk(name) and len(traced.once[name].shape) in (3, 4),
    )
    return _in_order(traced, _topmost(_without_stages(traced, groups, groups)))


def _contents(traced: TracedModel) -> list[str]:
    groups = _groups(
        traced, _content, lambda name: traced.on_trunk(name) and len(traced.once[name].shape) == 4
    )
    return _in_order(traced, _topmost(_without_stages(traced, groups, groups)))


def _anywhere(traced: TracedModel) -> list[str]:
    groups = _groups(traced, _class, lambda name: len(traced.once[name].shape) in (3, 4))
    lists = [
        key for key, names in groups.items() if any(traced.once[name].out is None for name in names)
    ]
    left = _without_stages(traced, groups, lists)
    every = [name for names in left.values() for name in names]
    return _in_order(
        traced,
        {
            key: names
            for key, names in left.items()
            if not any(_inside_any(name, every) for name in names)
        },
    )


def _convolutions(traced: TracedModel) -> list[str]:
    """For each convolution on the trunk, the last submodule without children that follows it before
    the map changes its shape.
    """
    ends: list[str] = []
    open_shape: tuple[int, ...] | None = None
    for name, call in traced.once.items():
        module = traced.module(name)
        if any(module.children()) or not traced.on_trunk(name):
            continue
        if isinstance(module, nn.Conv2d):
            if module.kernel_size == call.given[2:]:  # a linear layer in disguise
                break
            ends.append(name)
            open_shape = call.shape
        elif call.shape == open_shape:
            ends[-1] = name
        else:
            open_shape = None
    return ends


def _class(module: nn.Module) -> object:
    return None if type(module) in CONTAINERS else type(module)


def _content(module: nn.Module) -> object:
    return tuple(type(m) for m in module.modules()) if type(module) in CONTAINERS else None


Groups = Mapping[object, list[str]]
"""Submodules that may be blocks, by what makes them of one kind."""


def _groups(
    traced: TracedModel, kind: Callable[[nn.Module], object], fits: Callable[[str], bool]
) -> Groups:
    """Kinds that repeat, and whose submodules with layers all fit; one inside another of its kind
    does not count.
    """
    groups: dict[object, list[str]] = {}
    for name in traced.once:
        module = traced.module(name)
        if _has_layers(module) and (key := kind(module)) is not None:
            groups.setdefault(key, []).append(name)
    outer = {
        key: [name for name in names if not _inside_any(name, names)]
        for key, names in groups.items()
    }
    return {key: names for key, names in outer.items() if len(names) > 1 and all(map(fits, names))}


def _without_stages(traced: TracedModel, groups: Groups, among: Iterable[object]) -> Groups:
    """Without those kinds `among` them that are stages: made of other kinds."""
    made = {key for key in among if any(_made_of(traced, name, groups) for name in groups[key])}
    return {key: names for key, names in groups.items() if key not in made}


def _topmost(groups: Groups) -> Groups:
    """Without what lies inside another."""
    every = [name for names in groups.values() for name in names]
    return {
        key: [name for name in names if not _inside_any(name, every)]
        for key, names in groups.items()
    }


def _made_of(traced: TracedModel, name: str, groups: Groups) -> bool:
    """Whether two or more of one kind lie in `name`, and candidates hold most of its parameters."""
    inside = {
        key: [other for other in names if other != name and holds(name, other)]
        for key, names in groups.items()
    }
    if not any(len(names) > 1 for names in inside.values()):
        return False
    top = [other for names in inside.values() for other in names]
    held = sum(_size(traced.module(other)) for other in top if not _inside_any(other, top))
    return 2 * held > _size(traced.module(name))


def _without_transitions(traced: TracedModel, groups: Groups) -> Groups:
    """Without kinds that only lead from stage to stage: plain chains where others merge paths, or
    what always resizes and adds nothing.
    """
    chains = {
        key for key, names in groups.items() if not any(_merges(traced, name) for name in names)
    }
    kept = {key: names for key, names in groups.items() if key not in chains} or groups
    resizers = {key for key, names in kept.items() if all(_resizes(traced, name) for name in names)}
    return {key: names for key, names in kept.items() if key not in resizers} or kept


def _merges(traced: TracedModel, name: str) -> bool:
    call, trace = traced.once[name], traced.trace
    inside = range(call.first, call.last + 1)
    return any(
        trace.kinds[n] in ("add", "cat", "stack") and len(trace.sources[n]) > 1 for n in inside
    )


def _resizes(traced: TracedModel, name: str) -> bool:
    call = traced.once[name]
    return (
        bool(call.shape)
        and sorted(call.given[1:]) != sorted(call.shape[1:])
        and _branch(traced.trace, call) is None
    )


def _in_order(traced: TracedModel, groups: Groups) -> list[str]:
    """The blocks among them, as they return."""
    kept = _without_transitions(traced, {key: names for key, names in groups.items() if names})
    return sorted(
        (name for names in kept.values() for name in names), key=lambda name: traced.once[name].last
    )


def _branch_end(traced: TracedModel, block: str) -> str:
    """What ends the residual branch: back from the block's output to the addition, then along the
    operand that did more work.

    A layer scale or a stochastic depth between them is passed over. The block itself, if there is
    no such operand or module.
    """
    call, trace = traced.once[block], traced.trace
    operand = _branch(trace, call)
    while operand is not None and operand >= call.first:
        same = [
            n
            for n, c in traced.once.items()
            if c.out == operand and sorted(c.shape) == sorted(call.shape) and n != block
        ]
        layered = [
            n
            for n in same
            if holds(block, n)
            and _has_weights(traced.module(n))
            and not _only_scales(trace, traced.once[n])
        ]
        if layered:
            return min(layered, key=lambda n: n.count("."))
        operand = _only_source(trace, operand)
    return block


def _only_scales(trace: Trace, call: Call) -> bool:
    return all(
        trace.kinds[n] == "mul" or trace.kinds[n] in LAYOUT
        for n in range(call.first, call.last + 1)
    )


def _branch(trace: Trace, call: Call) -> int | None:
    """The operand with more weighted operations of the addition that made the block's output; None
    if it was none, or they tie.
    """
    n: int | None = call.out
    while n is not None and n >= call.first:
        operands = [source for source in trace.sources[n] if source in trace.live]
        if len(operands) == 2 and trace.kinds[n] == "add":
            first, second = (
                sum(trace.kinds[k] in WEIGHTED for k in trace.above([o], call.first))
                for o in operands
            )
            return None if first == second else operands[int(second > first)]
        n = _only_source(trace, n)
    return None


def _only_source(trace: Trace, n: int) -> int | None:
    return (
        trace.sources[n][0]
        if len(trace.sources[n]) == 1 and trace.kinds[n] not in WEIGHTED
        else None
    )


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
