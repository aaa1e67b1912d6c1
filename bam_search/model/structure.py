"""A model's blocks and stages, read off one traced forward pass.

They are found by repetition and by resolution, never by name. The *trunk* is the set of operations
that every path from the image to the output passes through. A *block* is a submodule of a class
that comes up again and again and whose outputs all lie on the trunk; a *stage* is a run of blocks
whose maps have one size. A model that hands its work to a part of it, which it calls several times
or which returns several maps, is read in that part.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from bam_search.model.maps import CONVOLUTIONS
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

OUTPUT_OPS = LAYOUT_OPS | {"sigmoid", "tanh", "_softmax", "_log_softmax", "pixel_shuffle"}
"""Operations between a layer and the output that it makes; resizing may be another."""

UPSAMPLING = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Block:
    """A block, what puts out its map, and what ends its residual branch: submodules by name.

    Both are the block itself, as a rule. But `output` is a submodule in it if the block returns
    several tensors, and the dense block if it is a dense layer; `branch_end` is a submodule in it
    if it adds a branch.
    """

    name: str
    output: str
    branch_end: str


@dataclass(frozen=True)
class TracedModel:
    """The trace of a model or of a part of it, and the calls of what was called once in it.

    `single_calls` has the calls of these submodules by name, in the order in which they returned.
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
        return self.computed(self.single_calls[name].out)

    def computed(self, n: int | None) -> int | None:
        """The operation whose values operation n has, looking through layout changes."""
        while n is not None and self.trace.kinds[n] in LAYOUT_OPS:
            n = self.trace.sources[n][0]
        return n


def traced_model(trace: Trace) -> TracedModel:
    """The traced model of `trace`."""
    single_calls = {call.name: call for call in trace.calls if trace.times[call.name] == 1}
    return TracedModel(trace, single_calls)


def shared_parts(traced: TracedModel) -> tuple[TracedModel, ...]:
    """The parts of a model that it calls several times, such as the backbone of a Siamese one.

    Each is read in its first call, as if it were the model. What is called once in each of its
    calls was called once in it.
    """
    calls = traced.trace.calls_of
    inside: dict[str, list[str]] = {}
    for name in calls:
        part = next((outer for outer in _prefixes(name) if _once_in_each(calls, outer, name)), None)
        if part is not None and len(calls[name]) > 1:
            inside.setdefault(part, []).append(name)
    return tuple(_part(traced, calls[part][0], names) for part, names in inside.items())


def feature_extractor(traced: TracedModel) -> TracedModel | None:
    """The outermost submodule that the image goes into first and that returns several maps.

    It is read as if it were the model: what comes after, such as a detector's heads, is left out.
    None if there is no such submodule.
    """
    trace = traced.trace
    dimensions = len(trace.shapes[0])
    for name in sorted(traced.single_calls, key=lambda name: name.count(".")):
        call = traced.single_calls[name]
        maps = [n for n in {*call.outs} if len(trace.shapes[n]) == dimensions]
        if len(maps) > 1 and not trace.work(range(call.first)):
            return _part(traced, call, [n for n in traced.single_calls if holds(name, n)])
    return None


def blocks_of_parts(
    parts: Iterable[TracedModel],
) -> tuple[TracedModel, tuple[Block, ...]]:
    """The part whose blocks count, and these blocks.

    It is the first that has blocks, unless another has blocks with more than twice its parameters.
    """
    found = [(part, *_block_names(part)) for part in parts]
    part, names, _ = found[_first_of_size([size for *_, size in found])]
    return part, _blocks(part, names)


def _block_names(traced: TracedModel) -> tuple[list[str], int]:
    """The names of the blocks, in order, and how many parameters they have.

    Three ways to find blocks are tried in turn: submodules of repeated classes on the trunk; the
    same for containers of repeated content; submodules of repeated classes wherever they are, for
    networks without a trunk (NASNet) or whose blocks return several tensors. The first that finds
    blocks counts, unless another finds blocks with more than twice its parameters. Where there are
    none, or where they hold few of them, the convolutions on the trunk are the blocks, each with
    the normalisation and activation after it (VGG).
    """
    ways = (_repeated_classes, _repeated_containers, _repeated_classes_anywhere)
    tried = [(names, _parameters(traced, names)) for names in (find(traced) for find in ways)]
    candidates = [(names, size) for names, size in tried if len(names) > 1] or [([], 0)]
    names, size = candidates[_first_of_size([size for _, size in candidates])]
    convolutions = _convolution_blocks(traced)
    outside = [end for end in convolutions if not any(holds(name, end) for name in names)]
    larger = _parameters(traced, convolutions.values())
    if larger > 2 * size and 2 * len(outside) > len(convolutions) > 1:
        return list(convolutions), larger
    return names, size


def _blocks(traced: TracedModel, names: Sequence[str]) -> tuple[Block, ...]:
    """The blocks of these names.

    Dense blocks give way to their layers (DenseNet). The layer that makes the output is no block.
    """
    layers = [_dense_layers(traced, name) for name in names]
    if names and all(layers):
        dense = zip(names, layers, strict=True)
        return tuple(Block(layer, name, layer) for name, inside in dense for layer in inside)
    return tuple(
        Block(name, _output(traced, name), _branch_end(traced, name))
        for name in names
        if not _makes_output(traced, name)
    )


def stages(
    traced: TracedModel, found: Sequence[Block], sizes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[Block, ...], ...]:
    """The blocks of each stage; `sizes` has (height, width) of those that put out a map, by output.

    Where sizes grow again (U-Net), each stage is a run of blocks of one size. Empty if they grow
    and not every block works on what the one before it made: such a network works at several
    resolutions at a time (HRNet).
    """
    mapped = [block for block in found if block.output in sizes]
    resolutions = [sizes[block.output] for block in mapped]
    shrinks = sorted(resolutions, reverse=True) == resolutions
    pairs = itertools.pairwise(block.output for block in mapped)
    if not shrinks and not all(_follows(traced, before, after) for before, after in pairs):
        return ()
    runs = itertools.groupby(mapped, lambda block: sizes[block.output])
    return tuple(tuple(run) for _, run in runs)


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
    left = _without_wrappers(traced, _without_stages(traced, groups, groups))
    return _in_order(traced, _topmost(left))


def _repeated_containers(traced: TracedModel) -> list[str]:
    """Containers of repeated content on the trunk."""

    def fits(name: str) -> bool:
        return traced.on_trunk(name) and traced.dimensions(name) == len(traced.trace.shapes[0])

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


def _prefixes(name: str) -> list[str]:
    """The names of what holds a submodule, from the outside: a, a.b for a.b.c."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _once_in_each(calls: Mapping[str, Sequence[Call]], outer: str, inner: str) -> bool:
    """Whether each call of `outer` holds exactly one call of `inner`, and none is elsewhere."""
    outside, inside = calls.get(outer, ()), calls[inner]
    if len(outside) != len(inside):
        return False
    return all(around.holds(call) for around, call in zip(outside, inside, strict=True))


def _part(traced: TracedModel, call: Call, names: Iterable[str]) -> TracedModel:
    """One call of a submodule as a model of its own; `names` are called once in it."""
    trace = traced.trace.within(call)
    known = {*names}
    return TracedModel(trace, {inner.name: inner for inner in trace.calls if inner.name in known})


def _first_of_size(sizes: Sequence[int]) -> int:
    """The number of the first size that is not zero, and at least half the largest."""
    return next((n for n, size in enumerate(sizes) if size and 2 * size >= max(sizes)), 0)


def _parameters(traced: TracedModel, names: Iterable[str]) -> int:
    return sum(_size(traced.module(name)) for name in names)


def _follows(traced: TracedModel, before: str, after: str) -> bool:
    """Whether the output of one submodule depends on that of another."""
    start, end = traced.single_calls[before].out, traced.single_calls[after].out
    if start is None or end is None:
        return False
    return start in traced.trace.above([end], down_to=start)


def _any_without_result(traced: TracedModel, names: Iterable[str]) -> bool:
    return any(traced.single_calls[name].out is None for name in names)


def _convolution_blocks(traced: TracedModel) -> dict[str, str]:
    """The convolutions on the trunk, each by the last submodule that still returns its map.

    That is the last one without children that follows it before the map changes its shape.
    """
    found: dict[str, str] = {}
    end = ""
    open_shape: tuple[int, ...] | None = None
    for name, call in traced.single_calls.items():
        module = traced.module(name)
        if any(module.children()) or not traced.on_trunk(name):
            continue
        if isinstance(module, (*CONVOLUTIONS.values(), *UPSAMPLING)):
            if module.kernel_size == call.given[2:] and {*call.shape[2:]} == {1}:
                break  # a linear layer in disguise
            found[name] = name
            end, open_shape = name, call.shape
        elif call.shape == open_shape:
            found[name] = found.pop(end)
            end = name
        else:
            open_shape = None
    return _without_upsampling(traced, found)


def _without_upsampling(traced: TracedModel, found: Mapping[str, str]) -> dict[str, str]:
    """The convolutions, without transposed ones that only make the map that the next one takes."""
    following = [*found.values(), None][1:]
    return {
        end: name
        for (end, name), after in zip(found.items(), following, strict=True)
        if after is None or not _prepares(traced, name, after)
    }


def _prepares(traced: TracedModel, name: str, after: str) -> bool:
    if not isinstance(traced.module(name), UPSAMPLING):
        return False
    if isinstance(traced.module(after), UPSAMPLING) or _makes_output(traced, after):
        return False
    return traced.single_calls[name].shape[2:] == traced.single_calls[after].shape[2:]


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


def _without_wrappers(traced: TracedModel, groups: Groups) -> Groups:
    """The groups without kinds that only resize around a block: the `Up` of a U-Net.

    Each of the kind changes the size, and holds one of a kind that does not always do so.
    """

    def resizes(name: str) -> bool:
        call = traced.single_calls[name]
        return call.given[2:] != call.shape[2:]

    resizing = {key for key, names in groups.items() if all(map(resizes, names))}
    keeping = _all_names({key: names for key, names in groups.items() if key not in resizing})
    wrappers = {
        key
        for key in resizing
        if all(any(holds(name, inner) for inner in keeping) for name in groups[key])
    }
    return {key: names for key, names in groups.items() if key not in wrappers}


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
    inside = _operations(call)
    joins = [n for n in inside if trace.kinds[n] in ("add", "cat", "stack")]
    return any(len(trace.sources[n]) > 1 for n in joins)


def _resizes(traced: TracedModel, name: str) -> bool:
    """Whether the submodule changes the shape of its map, and adds nothing."""
    call = traced.single_calls[name]
    if not call.shape or sorted(call.given[1:]) == sorted(call.shape[1:]):
        return False
    return _branch(traced.trace, call) is None


def _in_order(traced: TracedModel, groups: Groups) -> list[str]:
    """The blocks among the groups, in the order in which they return.

    An encoder's and its decoder's are told from transitions apart.
    """
    ends = {name: traced.single_calls[name].last for name in _all_names(groups)}
    names: list[str] = []
    for decoding in (False, True):
        way = {
            key: [name for name in kind if (ends[name] > traced.trace.turn) == decoding]
            for key, kind in groups.items()
        }
        nonempty = {key: kind for key, kind in way.items() if kind}
        names += _all_names(_without_transitions(traced, nonempty))
    return sorted(names, key=lambda name: ends[name])


def _output(traced: TracedModel, block: str) -> str:
    """What puts out the block's map: itself, or the outermost submodule that made its first."""
    call = traced.single_calls[block]
    if call.out is not None or not call.outs:
        return block
    made = traced.computed(call.outs[0])
    inside = [name for name in traced.single_calls if name != block and holds(block, name)]
    same = [name for name in inside if traced.producer(name) == made]
    return min(same, key=lambda name: name.count("."), default=block)


def _makes_output(traced: TracedModel, block: str) -> bool:
    """Whether the block is one layer, and nothing but its map is put out."""
    call, trace = traced.single_calls[block], traced.trace
    if trace.work(_operations(call)) > 1:
        return False
    return any(call.out in _values_of(trace, result) for result in trace.results)


def _values_of(trace: Trace, result: int) -> list[int]:
    """An output, and the operations back to the layer that made it; none if none made it alone."""
    passed = [result]
    while trace.kinds[passed[-1]] in OUTPUT_OPS or "upsample" in trace.kinds[passed[-1]]:
        passed.append(trace.sources[passed[-1]][0])
    return passed if trace.kinds[passed[-1]] in WEIGHTED else []


def _dense_layers(traced: TracedModel, block: str) -> list[str]:
    """The layers of a dense block; none if it is another block.

    Each of them reads what the block got and what all layers before it made.
    """
    inside = [name for name in traced.single_calls if name != block and holds(block, name)]
    kinds: dict[object, list[str]] = {}
    for name in inside:
        module = traced.module(name)
        if _has_layers(module) and traced.single_calls[name].out is not None:
            kinds.setdefault(_class_key(module), []).append(name)
    for key, names in kinds.items():
        layers = _outside(names, names)
        most = 2 * _parameters(traced, layers) > _size(traced.module(block))
        if key and len(layers) > 1 and most and _densely_connected(traced, block, layers):
            return layers
    return []


def _densely_connected(traced: TracedModel, block: str, layers: Sequence[str]) -> bool:
    """Whether each layer reads all before it and what the block got, and the block returns all."""
    trace, around = traced.trace, traced.single_calls[block]
    calls = [traced.single_calls[name] for name in layers]
    makers = {n: number for number, call in enumerate(calls) for n in _operations(call)}
    expected: set[int | None] = {None}
    for number, call in enumerate(calls):
        read = {source for n in _operations(call) for source in trace.sources[n]}
        outside = [n for n in read if makers.get(n) != number]
        if _joined(trace, outside, makers, around.first) != expected:
            return False
        expected.add(number)
    return _joined(trace, around.outs, makers, around.first) == expected


def _joined(
    trace: Trace, ends: Iterable[int], makers: Mapping[int, int], entry: int
) -> set[int | None]:
    """What is concatenated in `ends`: numbers of layers, by the operations that these made.

    None stands for what is from before operation `entry`, -1 for what something else made.
    """
    found: set[int | None] = set()
    waiting = list(ends)
    while waiting:
        n = waiting.pop()
        if n >= entry and n not in makers and trace.kinds[n] in {"cat", *LAYOUT_OPS}:
            waiting.extend(trace.sources[n])
        else:
            found.add(None if n < entry else makers.get(n, -1))
    return found


def _operations(call: Call) -> range:
    """The operations that ran in a call."""
    return range(call.first, call.last + 1)


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
    n = call.out if call.out is not None else next(iter(call.outs), None)
    while n is not None and n >= call.first:
        operands = [source for source in trace.sources[n] if source in trace.live]
        if len(operands) == 2 and trace.kinds[n] == "add":
            left, right = operands
            left_work, right_work = (trace.work(trace.above([n], call.first)) for n in operands)
            if left_work == right_work:
                return None
            return left if left_work > right_work else right
        n = _only_source(trace, n)
    return None


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
