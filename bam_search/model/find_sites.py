"""The sites of a model.

Which submodules put out a feature map, which of them end stages and blocks, and why the other
submodules are no sites.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.arguments import Arguments
from bam_search.model.layouts import UNREAD, Seen, sides_in, site_of
from bam_search.model.maps import SHAPES
from bam_search.model.places import Followed, followed
from bam_search.model.structure import (
    Block,
    TracedModel,
    blocks_of_parts,
    feature_extractor,
    holds,
    outermost,
    shared_parts,
    stages,
    traced_model,
)
from bam_search.model.trace import (
    Call,
    Shape,
    Trace,
    image_arguments,
    trace,
    trace_without_values,
)
from bam_search.space.sites import (
    BOTTLENECK,
    EVERY_BLOCK,
    STAGE_ENDS,
    Site,
    Sites,
)

IMAGENET_SHAPE: Shape = (3, 224, 224)
"""The shape of an image where none is given: what most pretrained networks take."""


def find_sites(
    model: nn.Module,
    input_shape: Shape = IMAGENET_SHAPE,
    *,
    example_inputs: object = None,
) -> Sites:
    """The sites of `model`: the submodules that are called exactly once and return a feature map.

        >>> from torchvision.models import resnet18
        >>> from bam_search import find_sites
        >>> sites = find_sites(resnet18())
        >>> [(site.name, site.channels, site.side) for site in sites.select("bottleneck")]
        [('layer1', 64, 56), ('layer2', 128, 28), ('layer3', 256, 14)]
        >>> sites.refused["fc"]
        'returns vectors (B, C), not a feature map'

    The result also says of every other submodule why it is no site. The model is not changed.
    Attention that is already attached is ignored.

    A feature map is a 4-D tensor, (B, C, H, W) or (B, H, W, C), whose H and W grow with the
    image's. To check this, the model also runs on an image twice as high and three times as wide.
    If it cannot run on that image, H and W must divide the image's by one common factor instead. Of
    a model that resizes its images (a detector), the parts run on larger maps by themselves.
    Tokens (B, N, C) are a feature map too if they are patches of the image, row by row, perhaps
    after a class token and the like.

    Models of sequences take `input_shape` = (C, L), and their maps are (B, C, L) or (B, L, C);
    those of volumes take (C, D, H, W), and their maps are 5-D.

    A part that the model calls several times (the backbone of a Siamese one) has the sites that it
    would have by itself; attention runs in each of its calls. A site's shape is that in the first.

    Args:
        model: any module.
        input_shape: (C, H, W) of one image.
        example_inputs: what the model is called with, if that is not one batch of images: a tuple
            of positional arguments, or a mapping of keyword ones. Tensors may be nested in them;
            those of shape (B, C, H, W) with floating-point numbers are the images.

    Raises:
        UserError: the model cannot run on `input_shape` or `example_inputs`.
    """
    arguments = _arguments(model, input_shape, example_inputs)
    traced = traced_model(trace(model, arguments))
    larger = _calls_on_larger_image(model, traced.trace, arguments)
    where = functools.cache(lambda: _followed(traced.trace, arguments))
    parts = shared_parts(traced)
    sites: dict[str, Site] = {}
    refused = _not_called_exactly_once(traced, parts)
    for name, call, image in _by_time((traced, *parts)):
        found = site_of(call, traced.module(name), Seen(image, larger, where))
        if isinstance(found, Site) and name in traced.trace.children_run_outside:
            found = "has children that something else runs over"
        elif isinstance(found, Site):
            found = _in_all_calls(found, traced)
        if isinstance(found, Site):
            sites[name] = found
        else:
            refused[name] = found
    extractor = feature_extractor(traced)
    part, repeated = blocks_of_parts((traced, *parts, *([extractor] if extractor else [])))
    attendable = [block for block in repeated if refused.get(block.output) != UNREAD]
    return Sites(
        tuple(_with_roles(part, attendable, sites).values()),
        refused,
        tuple(block.name for block in repeated),
    )


def _arguments(model: nn.Module, input_shape: Shape, example_inputs: object) -> Arguments:
    """What the model is called with. Raises UserError if it is nothing of the kind."""
    if example_inputs is not None:
        return Arguments.of(example_inputs)
    sides = len(input_shape) - 1
    if sides not in SHAPES or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise UserError(
            f"input_shape = {input_shape} is not (C, H, W), (C, L) or (C, D, H, W)",
            "for example (3, 224, 224)",
        )
    return image_arguments(model, input_shape)


def _by_time(
    parts: Iterable[TracedModel],
) -> list[tuple[str, Call, tuple[int, ...]]]:
    """The submodules that are called once in the model or in a part, in the order of returning.

    Each has its name, its call, and the shape of the images that the model or the part gets.
    """
    found = [
        (name, call, part.trace.shapes[0])
        for part in parts
        for name, call in part.single_calls.items()
    ]
    return sorted(found, key=lambda item: item[1].ended)


def _with_roles(
    traced: TracedModel, found: Sequence[Block], sites: Mapping[str, Site]
) -> dict[str, Site]:
    """The sites with their stages, blocks and roles."""
    names = [block.name for block in found]
    mapped = [sites[block.output] for block in found if block.output in sites]
    sizes = {site.name: site.sides for site in mapped}
    result = dict(sites)
    ends: dict[int | None, str] = {}
    for number, stage in enumerate(stages(traced, found, sizes)):
        end = _stage_end(traced, stage, names, sites)
        ends[traced.producer(end)] = end
        is_last = stage[-1] == found[-1]
        roles = (STAGE_ENDS,) if is_last else (STAGE_ENDS, BOTTLENECK)
        result[end] = replace(result[end], roles=roles)
        # The end may begin before the first block: a stage that begins with a downsampling.
        for name in {*_called_within(traced, stage, result), end}:
            result[name] = replace(result[name], stage=number)
    for block in found:
        _assign_block(traced, block, ends, result)
    return result


def _stage_end(
    traced: TracedModel, stage: Sequence[Block], names: Sequence[str], sites: Mapping[str, Site]
) -> str:
    """The outermost site that returns what the stage's last block returns."""
    last = stage[-1].output
    inside = {block.name for block in stage}
    elsewhere = [name for name in names if name not in inside]
    end = outermost(traced, last, elsewhere)
    return end if end in sites else last


def _called_within(
    traced: TracedModel, stage: Sequence[Block], sites: Mapping[str, Site]
) -> list[str]:
    """The sites whose calls lie between the first and the last block of a stage."""
    first = traced.single_calls[stage[0].name].first
    last = traced.single_calls[stage[-1].name].last
    calls = {name: call for name, call in traced.single_calls.items() if name in sites}
    return [name for name, call in calls.items() if first <= call.first and call.last <= last]


def _assign_block(
    traced: TracedModel, block: Block, ends: Mapping[int | None, str], sites: dict[str, Site]
) -> None:
    """Set `block` on the sites inside the block, and give the end of its branch "every-block".

    Where the end of the branch returns what a stage's end returns, the stage's end gets the role.
    """
    for name in sites:
        if holds(block.name, name):
            sites[name] = replace(sites[name], block=block.name)
    end = block.branch_end if block.branch_end in sites else block.output
    if end in sites:
        end = ends.get(traced.producer(end), end)
        sites[end] = replace(sites[end], roles=(*sites[end].roles, EVERY_BLOCK))


def _in_all_calls(site: Site, traced: TracedModel) -> Site | str:
    """The site with what is known of its further calls and of its children, or why it is none."""
    trace = traced.trace
    images, *_ = trace.shapes[0]
    sides: list[tuple[int, ...]] = []
    for call in trace.calls_of[site.name]:
        found = sides_in(call.shape, site)
        if found is None:
            return f"returns {call.shape} in one of its calls, which is no such map"
        # A call with the parts of each image as one batch counts as one for each part.
        sides += [found] * max(1, call.shape[0] // images)
    runs_children = site.name in trace.run_children
    return replace(site, runs_children=runs_children, further=tuple(sides[1:]))


def _not_called_exactly_once(traced: TracedModel, parts: Sequence[TracedModel]) -> dict[str, str]:
    """The submodules that are called never or more than once, each with that reason.

    Those of a shared part that are called once in each of its calls are not among them. A second
    name of a submodule is no submodule either.
    """
    names = {module: name for name, module in traced.trace.model.named_modules()}
    once = {name for part in (traced, *parts) for name in part.single_calls}
    reasons: dict[str, str] = {}
    for module, name in names.items():
        times = traced.trace.times[name]
        if name and name not in once:
            often = f"is called {times} times in one pass"
            reasons[name] = often if times else "is not called in a forward pass"
        for child_name, child in module._modules.items():
            alias = f"{name}.{child_name}".lstrip(".")
            if child is not None and names[child] != alias:
                reasons |= _aliases(alias, names[child], names.values())
    return reasons


def _aliases(alias: str, name: str, names: Iterable[str]) -> dict[str, str]:
    """The reasons against the other name of a submodule, and the names of what is in it."""
    inside = [inner for inner in names if name and holds(name, inner)]
    return {
        alias + inner.removeprefix(name): f"is the same submodule as {inner!r}" for inner in inside
    }


def _followed(trace: Trace, arguments: Arguments) -> Followed:
    """Where on the input comes from what the submodules return; nothing if the pass fails."""
    weights = next(trace.model.parameters(), torch.empty(0))
    try:
        names = [name for name, calls in trace.calls_of.items() if calls[0].out]
        return followed(trace.model, arguments.on(weights.device.type), names)
    except Exception:  # a user's model can raise anything; its places are then not known
        return Followed({}, frozenset())


def _calls_on_larger_image(
    model: nn.Module, small: Trace, arguments: Arguments
) -> dict[str, Call] | None:
    """The first calls on an image of another size, by name; None if the model cannot run on it."""
    if small.resizes_images:
        return _calls_on_larger_maps(small)
    try:
        larger = trace(model, arguments.larger(), probing=False)
    except UserError:
        return None
    return {name: first for name, (first, *_) in larger.calls_of.items()}


def _calls_on_larger_maps(small: Trace) -> dict[str, Call]:
    """The calls of the outermost submodules that run by themselves on a larger map, and inside."""
    found: dict[str, Call] = {}
    for name in sorted(small.calls_of, key=lambda name: name.count(".")):
        arguments = small.calls_of[name][0].arguments
        if name in found or not arguments.images:
            continue
        alone = _Alone(small.model.get_submodule(name))
        larger = trace_without_values(alone, arguments.on("meta").larger())
        for call in larger.calls if larger else ():
            found.setdefault(name + call.name.removeprefix("module"), call)
    return found


class _Alone(nn.Module):
    """A model that consists of one submodule."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)
