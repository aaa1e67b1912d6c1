"""The sites of a model: which submodules put out a feature map, which of them end stages and
blocks, and why the others are none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from bam_search.errors import UserError
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
    CHANNELS_LAST,
    EVERY_BLOCK,
    MAP,
    STAGE_ENDS,
    Site,
    Sites,
)

IMAGE: Shape = (3, 224, 224)
"""The shape of an image where none is given: what most pretrained networks take."""


def find_sites(model: nn.Module, input_shape: Shape = IMAGE) -> Sites:
    """Every submodule that is called once and returns a feature map, and the reason for each that
    is no site.

    `input_shape` is (C, H, W) of one image. Attention that is attached already is looked past; the
    model is not changed. A feature map is a 4-D tensor, (B, C, H, W) or (B, H, W, C), whose H and W
    follow the image's: seen in a second pass on a larger image of another aspect, or, for a model
    that takes one size only, by dividing the image's. Raises UserError if the model cannot run.
    """
    if len(input_shape) != 3 or not all(isinstance(side, int) and side > 0 for side in input_shape):
        raise UserError(
            f"input_shape = {input_shape} is not (C, H, W)", "for example (3, 224, 224)"
        )
    traced = traced_model(trace(model, input_shape))
    larger = _shapes_on_larger(model, input_shape)
    sites: dict[str, Site] = {}
    refused = _uncalled(traced)
    for name, call in traced.once.items():
        layout = _layout(call, larger, input_shape, traced.module(name))
        if layout in (MAP, CHANNELS_LAST):
            sites[name] = _site(call, layout)
        else:
            refused[name] = layout
    found = blocks(traced)
    return Sites(
        tuple(_with_roles(traced, found, sites).values()),
        refused,
        tuple(block.name for block in found),
    )


def _with_roles(
    traced: TracedModel, found: Sequence[Block], sites: Mapping[str, Site]
) -> dict[str, Site]:
    sizes = {b.name: (sites[b.name].height, sites[b.name].width) for b in found if b.name in sites}
    result = dict(sites)
    names = [block.name for block in found]
    ends: dict[int | None, str] = {}
    for number, stage in enumerate(stages(found, sizes)):
        elsewhere = [name for name in names if name not in {block.name for block in stage}]
        end = outermost(traced, stage[-1].name, elsewhere)
        end = end if end in sites else stage[-1].name
        ends[traced.content(end)] = end
        result[end] = replace(
            result[end], roles=(STAGE_ENDS, *([BOTTLENECK] if stage[-1] != found[-1] else []))
        )
        first, last = traced.once[stage[0].name].first, traced.once[stage[-1].name].last
        result |= {
            n: replace(s, stage=number)
            for n, s in result.items()
            if first <= traced.once[n].first and traced.once[n].last <= last
        }
    for block in found:
        _mark(traced, block, ends, result)
    return result


def _mark(
    traced: TracedModel, block: Block, ends: Mapping[int | None, str], sites: dict[str, Site]
) -> None:
    """Give the block's sites its name, and the role to the end of its branch; where that is a
    stage's end, to the stage's end.
    """
    for name in sites:
        if holds(block.name, name):
            sites[name] = replace(sites[name], block=block.name)
    end = block.branch_end if block.branch_end in sites else block.name
    if end in sites:
        end = ends.get(traced.content(end), end)
        sites[end] = replace(sites[end], roles=(*sites[end].roles, EVERY_BLOCK))


def _site(call: Call, layout: str) -> Site:
    _, *sides = call.shape
    channels, height, width = sides if layout == MAP else (sides[2], sides[0], sides[1])
    return Site(call.name, channels, height, width, layout)


def _uncalled(traced: TracedModel) -> dict[str, str]:
    times = traced.trace.times
    names = [
        name for name, _ in traced.trace.model.named_modules() if name and name not in traced.once
    ]
    return {
        name: f"is called {times[name]} times in one pass"
        if times[name]
        else "is not called in a forward pass"
        for name in names
    }


def _layout(call: Call, larger: Mapping[str, Call] | None, image: Shape, module: nn.Module) -> str:
    """MAP, CHANNELS_LAST, or the reason why the output is no feature map."""
    if call.out is None:
        return (
            f"returns a {call.returned}"
            if call.returned != "Tensor"
            else "returns a tensor that does not depend on the image"
        )
    if len(call.shape) != 4:
        kind = {2: "vectors (B, C)", 3: "tokens (B, N, C)"}.get(
            len(call.shape), f"a {len(call.shape)}-D tensor"
        )
        return f"returns {kind}, not a feature map"
    if call.shape[0] != BATCH:
        return f"folds something else into the batch: {call.shape[0]} for {BATCH} images"
    if larger is None:
        return _layout_by_division(call.shape, image, module)
    return (
        _layout_by_growth(call.shape, larger[call.name].shape)
        if call.name in larger
        else "is not called on every image"
    )


def _layout_by_growth(small: tuple[int, ...], large: tuple[int, ...]) -> str:
    """Whose sides follow an image that became twice as high and three times as wide."""
    growth = [after / before for before, after in zip(small[1:], large[1:], strict=True)]
    if growth[0] == 1 < growth[1] < growth[2]:
        return MAP
    if growth[2] == 1 < growth[0] < growth[1]:
        return CHANNELS_LAST
    return "returns a 4-D tensor whose size does not follow the image's"


def _layout_by_division(shape: tuple[int, ...], image: Shape, module: nn.Module) -> str:
    _, height, width = image
    fits = {
        layout: 1 < h <= height and height % h == 0 and width % w == 0 and height // h == width // w
        for layout, (h, w) in {MAP: shape[2:], CHANNELS_LAST: shape[1:3]}.items()
    }
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):  # these know their layout
        fits[CHANNELS_LAST] = False
    possible = [layout for layout, fit in fits.items() if fit]
    if len(possible) == 1:
        return possible[0]
    if possible:
        return f"returns {tuple(shape)}, which may be channels first or last: the model takes one size of image only"
    return "returns a 4-D tensor whose size does not divide the image's"


def _shapes_on_larger(model: nn.Module, input_shape: Shape) -> dict[str, Call] | None:
    channels, height, width = input_shape
    try:
        larger: Trace = trace(model, (channels, 2 * height, 3 * width))
    except UserError:
        return None
    return {call.name: call for call in larger.calls}
