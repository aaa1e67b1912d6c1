"""How a tensor holds a map, and how attention gets it as (B, C, H, W).

A map is channels-first or channels-last, of one, two or three dimensions; or it is the tokens
(B, N, C) of an image, whose last H * W are its patches, row by row.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from bam_search.errors import UserError
from bam_search.model.maps import BATCH_NORMS, CONVOLUTIONS, channels_first, channels_last
from bam_search.model.places import Followed, grid_of_tokens, is_grid
from bam_search.model.trace import Call, Shape
from bam_search.space.sites import CHANNELS_FIRST, CHANNELS_LAST, TOKENS, Site


class ChannelsLast(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): `inner` on the map as (B, C, H, W).

    Maps of other `dims` likewise.
    """

    def __init__(self, inner: nn.Module, dims: int = 2) -> None:
        super().__init__()
        self.inner, self.dims = inner, dims

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(self.inner(channels_first(x, self.dims)), self.dims)


class Tokens(nn.Module):
    """(B, N, C) -> (B, N, C): `inner` on the last tokens as a map (B, C, H, W).

    The first `extra` tokens stay as they are. H and W are `sides`, or those of the same ratio that
    the number of tokens leaves: so images of other sizes may have other numbers of tokens. Raises
    UserError for a number that no such map has.
    """

    def __init__(self, inner: nn.Module, sides: tuple[int, int], extra: int = 0) -> None:
        super().__init__()
        self.inner, self.sides, self.extra = inner, sides, extra

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(_to_map(x, self.extra, self.sides))
        patches = channels_last(y, 2).flatten(1, 2)
        return torch.cat([x[:, : self.extra], patches], 1) if self.extra else patches


UNREAD = "returns tokens of which only those beside the patches are read: none would see attention"
"""Why the last block of a transformer is no site whose head reads the class token alone."""

ADAPTERS = (ChannelsLast, Tokens)
"""What stands between a site and its attention where the site's output is not channels-first."""


def adapted(attention: nn.Module, site: Site) -> nn.Module:
    """`attention`, which takes channels-first maps, for the layout of a site's output."""
    if site.layout == TOKENS:
        return Tokens(attention, (site.height, site.width), site.extra_tokens)
    if site.layout in CHANNELS_LAST.values():
        return ChannelsLast(attention, site.dims)
    return attention


def within_adapter(attention: nn.Module) -> nn.Module:
    """What takes the channels-first map: `attention`, or the module that an adapter holds."""
    return attention.inner if isinstance(attention, ADAPTERS) else attention


@torch.fx.wrap  # a graph drawn by fx asks for the number of tokens when it runs
def _to_map(x: Tensor, extra: int, sides: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, H, W), a view, of all but the first `extra` tokens."""
    grid = _grid(x.shape[1] - extra, sides)
    return channels_first(x[:, extra:].unflatten(1, grid), 2)


def _grid(patches: int, sides: tuple[int, int]) -> tuple[int, int]:
    height, width = sides
    if patches == height * width:
        return sides
    ratio = Fraction(height, width)
    times = math.isqrt(patches // (ratio.numerator * ratio.denominator))
    grid = times * ratio.numerator, times * ratio.denominator
    if not times or grid[0] * grid[1] != patches:
        raise UserError(
            f"{patches} tokens are no grid of {height} to {width}, as attention was attached to",
            "images of one shape only, or attach to a model for this one",
        )
    return grid


@dataclass(frozen=True)
class Seen:
    """What tells maps from other tensors.

    `images` is the shape of the inputs, (B, C, H, W), `larger` has the calls on larger ones by
    name, None if the model takes none. `followed` says, when it is asked, where on the input the
    outputs come from.
    """

    images: Shape
    larger: Mapping[str, Call] | None
    followed: Callable[[], Followed]

    @property
    def shape(self) -> Shape:
        """The shape of one input."""
        return self.images[1:]

    @property
    def dims(self) -> int:
        """The number of dimensions of a map."""
        return len(self.shape) - 1

    @property
    def word(self) -> str:
        """What one input is called."""
        return "image" if self.dims == 2 else "input"


def site_of(call: Call, module: nn.Module, seen: Seen) -> Site | str:
    """The site that a call of `module` is, or the reason why its output is no feature map."""
    if call.out is None:
        if call.returned != "Tensor":
            return f"returns a {call.returned}"
        return f"returns a tensor that does not depend on the {seen.word}"
    dimensions = len(call.shape)
    is_tokens = dimensions == 3 and seen.dims == 2
    if dimensions != seen.dims + 2 and not is_tokens:
        kinds = {2: "vectors (B, C)", 3: "tokens (B, N, C)"}
        kind = kinds.get(dimensions, f"a {dimensions}-D tensor")
        return f"returns {kind}, not a feature map"
    batch = seen.images[0]
    if call.shape[0] != batch:
        return f"folds something else into the batch: {call.shape[0]} for {batch} {seen.word}s"
    if is_tokens:
        return _site_of_tokens(call, seen)
    layout = _layout(call, module, seen)
    return _site(call, layout) if layout in _LAYOUTS else layout


_LAYOUTS = frozenset({*CHANNELS_FIRST.values(), *CHANNELS_LAST.values()})


def _site(call: Call, layout: str) -> Site:
    _, *sizes = call.shape
    if layout in CHANNELS_LAST.values():
        sizes = [sizes[-1], *sizes[:-1]]
    channels, *sides = sizes
    depth, height, width = (*[1] * (3 - len(sides)), *sides)
    return Site(call.name, channels, height, width, layout, depth=depth)


def sides_in(shape: Shape, site: Site) -> tuple[int, ...] | None:
    """The sides of the map in an output of this shape, held as the site's; None if there is none.

    A part that is called several times may work on maps of several sizes.
    """
    is_tokens = site.layout == TOKENS
    if len(shape) != (3 if is_tokens else site.dims + 2):
        return None
    is_last = is_tokens or site.layout in CHANNELS_LAST.values()
    channels, sides = (shape[-1], shape[1:-1]) if is_last else (shape[1], shape[2:])
    if channels != site.channels:
        return None
    if not is_tokens:
        return sides
    with contextlib.suppress(UserError):
        return _grid(sides[0] - site.extra_tokens, (site.height, site.width))
    return None


def _site_of_tokens(call: Call, seen: Seen) -> Site | str:
    followed = seen.followed()
    places = followed.places.get(call.name)
    if places is None:
        return "returns tokens (B, N, C), and which is where on the image is not known"
    of_one_image = tuple(place[0].mean(-1) for place in places)
    found = grid_of_tokens(of_one_image)
    if found is None:
        return "returns tokens (B, N, C) that are not the patches of the image, row by row"
    if call.name not in followed.read:
        return UNREAD
    (height, width), extra = found
    return Site(call.name, call.shape[2], height, width, TOKENS, extra_tokens=extra)


def _layout(call: Call, module: nn.Module, seen: Seen) -> str:
    """The layout, or the reason why the output is no feature map."""
    if seen.larger is None:
        return _layout_by_division(call, module, seen)
    if call.name not in seen.larger:
        return f"is not called on every {seen.word}"
    return _layout_by_growth(call.shape, seen.larger[call.name].shape, seen)


def _layout_by_growth(small: Shape, large: Shape, seen: Seen) -> str:
    """The layout whose sides follow an input whose sides grew to twice, three and four times."""
    not_following = f"returns a {len(small)}-D tensor whose size does not follow the {seen.word}'s"
    if len(large) != len(small):
        return not_following
    growth = [after / before for before, after in zip(small[1:], large[1:], strict=True)]
    if growth[0] == 1 and _ascend([1, *growth[1:]]):
        return CHANNELS_FIRST[seen.dims]
    if growth[-1] == 1 and _ascend([1, *growth[:-1]]):
        return CHANNELS_LAST[seen.dims]
    return not_following


def _ascend(numbers: list[float]) -> bool:
    return all(one < other for one, other in itertools.pairwise(numbers))


def _layout_by_division(call: Call, module: nn.Module, seen: Seen) -> str:
    """The layout whose sides divide the input's by one number."""
    sides, always_first = seen.shape[1:], (CONVOLUTIONS[seen.dims], BATCH_NORMS[seen.dims])
    possible = []
    if _divides(call.shape[2:], sides):
        possible.append(CHANNELS_FIRST[seen.dims])
    if _divides(call.shape[1:-1], sides) and not isinstance(module, always_first):
        possible.append(CHANNELS_LAST[seen.dims])
    if not possible:
        return f"returns a {len(call.shape)}-D tensor whose size does not divide the {seen.word}'s"
    return possible[0] if len(possible) == 1 else _layout_by_places(call, seen)


def _layout_by_places(call: Call, seen: Seen) -> str:
    """The layout of an output whose sizes fit both."""
    places = seen.followed().places.get(call.name, ())
    if places and is_grid(tuple(place[0].mean(0) for place in places)):
        return CHANNELS_FIRST[seen.dims]
    if places and is_grid(tuple(place[0].mean(-1) for place in places)):
        return CHANNELS_LAST[seen.dims]
    return (
        f"returns {tuple(call.shape)}, which may be channels first or last: "
        f"the model takes one size of {seen.word} only"
    )


def _divides(sides: tuple[int, ...], of_input: tuple[int, ...]) -> bool:
    """Whether each is the same part of the input's."""
    parts = {Fraction(side, whole) for side, whole in zip(sides, of_input, strict=True)}
    (part, *others) = parts
    return not others and part.numerator == 1 and min(sides) > 1
