"""The sites of a model.

Which submodules put out a feature map, which of them end stages and blocks, and why the other
submodules are no sites.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from bam_search.errors import UserError
from bam_search.model.layouts import UNREAD, Seen, site_of
from bam_search.model.maps import SHAPES
from bam_search.model.places import Followed, followed
from bam_search.model.structure import (
    Block,
    TracedModel,
    blocks,
    holds,
    outermost,
    stages,
    traced_model,
)
from bam_search.model.trace import BATCH, Call, Shape, Trace, trace
from bam_search.space.sites import (
    BOTTLENECK,
    EVERY_BLOCK,
    STAGE_ENDS,
    Site,
    Sites,
)

IMAGENET_SHAPE: Shape = (3, 224, 224)
"""The shape of an image where none is given: what most pretrained networks take."""


def find_sites(model: nn.Module, input_shape: Shape = IMAGENET_SHAPE) -> Sites:
    """The sites of `model`: the submodules that are called exactly once and return a feature map.

        >>> from torchvision.models import resnet18
        >>> from bam_search import find_sites
        >>> sites = find_sites(resnet18())
        >>> [(site.name, site.channels, site.side) for site in sites.select("bottleneck")]
        [('layer1', 64, 56), ('layer2', 128, 28), ('layer3', 256, 14)]
        >>> sites.refused["fc"]
        'returns vectors (B, C), not a feature map'

    The result also says of every other submodule why it is no site. `input_shape` is (C, H, W) of
    one image. The model is not changed. Attention that is already attached is ignored.

    A feature map is a 4-D tensor, (B, C, H, W) or (B, H, W, C), whose H and W grow with the
    image's. To check this, the model also runs on an image twice as high and three times as wide.
    If it cannot run on that image, H and W must divide the image's by one common factor instead.
    Tokens (B, N, C) are a feature map too if they are patches of the image, row by row, perhaps
    after a class token and the like.

    Models of sequences take `input_shape` = (C, L), and their maps are (B, C, L) or (B, L, C);
    those of volumes take (C, D, H, W), and their maps are 5-D.

    Raises UserError if the model cannot run on `input_shape`.
    """
    sides = len(input_shape) - 1
    if sides not in SHAPES or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise UserError(
            f"input_shape = {input_shape} is not (C, H, W), (C, L) or (C, D, H, W)",
            "for example (3, 224, 224)",
        )
    traced = traced_model(trace(model, input_shape))
    larger = _calls_on_larger_image(model, input_shape)
    seen = Seen(input_shape, larger, functools.cache(lambda: _followed(traced, input_shape)))
    sites: dict[str, Site] = {}
    refused = _not_called_exactly_once(traced)
    for name, call in traced.single_calls.items():
        found = site_of(call, traced.module(name), seen)
        if isinstance(found, Site):
            sites[name] = found
        else:
            refused[name] = found
    repeated = blocks(traced)
    attendable = [block for block in repeated if refused.get(block.name) != UNREAD]
    return Sites(
        tuple(_with_roles(traced, attendable, sites).values()),
        refused,
        tuple(block.name for block in repeated),
    )


def _with_roles(
    traced: TracedModel, found: Sequence[Block], sites: Mapping[str, Site]
) -> dict[str, Site]:
    """The sites with their stages, blocks and roles."""
    names = [block.name for block in found]
    mapped = [sites[name] for name in names if name in sites]
    sizes = {site.name: (site.height, site.width) for site in mapped}
    result = dict(sites)
    ends: dict[int | None, str] = {}
    for number, stage in enumerate(stages(found, sizes)):
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
    last = stage[-1].name
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
    calls = {name: traced.single_calls[name] for name in sites}
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
    end = block.branch_end if block.branch_end in sites else block.name
    if end in sites:
        end = ends.get(traced.producer(end), end)
        sites[end] = replace(sites[end], roles=(*sites[end].roles, EVERY_BLOCK))


def _not_called_exactly_once(traced: TracedModel) -> dict[str, str]:
    """The submodules that are called never or more than once, each with that reason."""
    reasons: dict[str, str] = {}
    for name, _ in traced.trace.model.named_modules():
        if not name or name in traced.single_calls:
            continue
        times = traced.trace.times[name]
        if times:
            reasons[name] = f"is called {times} times in one pass"
        else:
            reasons[name] = "is not called in a forward pass"
    return reasons


def _followed(traced: TracedModel, input_shape: Shape) -> Followed:
    """Where on the input comes from what the submodules return; nothing if the pass fails."""
    model = traced.trace.model
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    x = torch.zeros(BATCH, *input_shape, device=like.device, dtype=like.dtype)
    try:
        return followed(model, x, [name for name, call in traced.single_calls.items() if call.out])
    except Exception:  # a user's model can raise anything; its places are then not known
        return Followed({}, frozenset())


def _calls_on_larger_image(model: nn.Module, input_shape: Shape) -> dict[str, Call] | None:
    """The calls on an image of another size, by name; None if the model cannot run on it."""
    channels, *sides = input_shape
    try:
        larger: Trace = trace(model, (channels, *(n * side for n, side in enumerate(sides, 2))))
    except UserError:
        return None
    return {call.name: call for call in larger.calls}
