"""The sites of a model.

Which submodules put out a feature map, which of them end stages and blocks, and why the other
submodules are no sites.
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

    Raises UserError if the model cannot run on `input_shape`.
    """
    if len(input_shape) != 3 or not all(isinstance(side, int) and side > 0 for side in input_shape):
        raise UserError(
            f"input_shape = {input_shape} is not (C, H, W)", "for example (3, 224, 224)"
        )
    traced = traced_model(trace(model, input_shape))
    larger = _calls_on_larger_image(model, input_shape)
    sites: dict[str, Site] = {}
    refused = _not_called_exactly_once(traced)
    for name, call in traced.single_calls.items():
        layout = _layout(call, larger, input_shape, traced.module(name))
        if layout not in (MAP, CHANNELS_LAST):
            refused[name] = layout
        elif name in traced.trace.children_run_outside:
            refused[name] = "has children that something else runs over"
        else:
            runs_children = name in traced.trace.run_children
            sites[name] = replace(_site(call, layout), runs_children=runs_children)
    found = blocks(traced)
    return Sites(
        tuple(_with_roles(traced, found, sites).values()),
        refused,
        tuple(block.name for block in found),
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


def _site(call: Call, layout: str) -> Site:
    _, *sides = call.shape
    channels, height, width = sides if layout == MAP else (sides[2], sides[0], sides[1])
    return Site(call.name, channels, height, width, layout)


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


def _layout(
    call: Call, larger: Mapping[str, Call] | None, image_shape: Shape, module: nn.Module
) -> str:
    """MAP, CHANNELS_LAST, or the reason why the output is no feature map."""
    if call.out is None:
        if call.returned != "Tensor":
            return f"returns a {call.returned}"
        return "returns a tensor that does not depend on the image"
    dimensions = len(call.shape)
    if dimensions != 4:
        kinds = {2: "vectors (B, C)", 3: "tokens (B, N, C)"}
        kind = kinds.get(dimensions, f"a {dimensions}-D tensor")
        return f"returns {kind}, not a feature map"
    if call.shape[0] != BATCH:
        return f"folds something else into the batch: {call.shape[0]} for {BATCH} images"
    if larger is None:
        return _layout_by_division(call.shape, image_shape, module)
    if call.name not in larger:
        return "is not called on every image"
    return _layout_by_growth(call.shape, larger[call.name].shape)


def _layout_by_growth(small: tuple[int, ...], large: tuple[int, ...]) -> str:
    """The layout in which H and W follow an image that became twice as high and thrice as wide."""
    not_following = "returns a 4-D tensor whose size does not follow the image's"
    if len(large) != len(small):
        return not_following
    first, second, third = (
        after / before for before, after in zip(small[1:], large[1:], strict=True)
    )
    if first == 1 and 1 < second < third:
        return MAP
    if third == 1 and 1 < first < second:
        return CHANNELS_LAST
    return not_following


def _layout_by_division(shape: tuple[int, ...], image_shape: Shape, module: nn.Module) -> str:
    """The layout in which H and W divide the image's by one number."""
    _, height, width = image_shape
    possible = []
    if _divides(shape[2:], height, width):
        possible.append(MAP)
    always_channels_first = isinstance(module, (nn.Conv2d, nn.BatchNorm2d))
    if _divides(shape[1:3], height, width) and not always_channels_first:
        possible.append(CHANNELS_LAST)
    if len(possible) == 1:
        return possible[0]
    if possible:
        return (
            f"returns {tuple(shape)}, which may be channels first or last: "
            "the model takes one size of image only"
        )
    return "returns a 4-D tensor whose size does not divide the image's"


def _divides(sides: tuple[int, ...], height: int, width: int) -> bool:
    h, w = sides
    if not 1 < h <= height:
        return False
    return height % h == 0 and width % w == 0 and height // h == width // w


def _calls_on_larger_image(model: nn.Module, input_shape: Shape) -> dict[str, Call] | None:
    """The calls on an image of another size, by name; None if the model cannot run on it."""
    channels, height, width = input_shape
    try:
        larger: Trace = trace(model, (channels, 2 * height, 3 * width), probing=False)
    except UserError:
        return None
    return {call.name: call for call in larger.calls}
