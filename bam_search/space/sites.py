"""Sites, and the targets that name sets of them.

Names and numbers only: `bam_search.model.find_sites` finds them in a model.
"""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from bam_search.errors import UserError, nearest

STAGE_ENDS, BOTTLENECK, EVERY_BLOCK = "stage-ends", "bottleneck", "every-block"
TARGETS = (STAGE_ENDS, BOTTLENECK, EVERY_BLOCK)
"""The named sets of sites.

The ends of all stages, on the trunk; these without the last, which is the BAM paper's placement;
and the ends of the blocks' residual branches.
"""

CHANNELS_FIRST = {1: "NCL", 2: "NCHW", 3: "NCDHW"}
CHANNELS_LAST = {1: "NLC", 2: "NHWC", 3: "NDHWC"}
"""How an output holds a map of one, two or three dimensions: N is the batch."""
TOKENS = "N(HW)C"
"""Tokens (B, N, C), the last H * W of which are a map, row by row."""
_DIMS = {
    layout: dims for known in (CHANNELS_FIRST, CHANNELS_LAST) for dims, layout in known.items()
} | {TOKENS: 2}


class NoSuchSites(UserError):
    """A named set is empty in this model."""


@dataclass(frozen=True)
class Site:
    """A named submodule whose output is a feature map: where an attention module may go.

    `channels`, `height` and `width` are of its output for one image of the shape that was asked
    about; `layout` is how the output holds them: a value of CHANNELS_FIRST or CHANNELS_LAST, or
    TOKENS. A map of one dimension has its length as `width`, and height 1; one of three has a
    `depth` too. `extra_tokens` is how many tokens that are no position of the map come first, such
    as a class token. `stage` counts from 0 (None outside all stages), `block` is the name of the
    block that holds the site ("" for none). `roles` are the TARGETS that it belongs to:
    "stage-ends" for the end of a stage, on the trunk; "bottleneck" for one that another stage
    follows; "every-block" for the end of a block's residual branch, before the addition, or the
    output of a block that adds nothing. `runs_children` says that it runs over its own children,
    so that it must not find one more. `further` has the `sides` of its output for each map that it
    works on beside the first, a sample: those of further calls, of a part with several.
    """

    name: str
    channels: int
    height: int
    width: int
    layout: str = CHANNELS_FIRST[2]
    stage: int | None = None
    block: str = ""
    roles: tuple[str, ...] = ()
    depth: int = 1
    extra_tokens: int = 0
    runs_children: bool = False
    further: tuple[tuple[int, ...], ...] = ()

    @property
    def dims(self) -> int:
        """The number of dimensions of its map: 1, 2 or 3."""
        return _DIMS[self.layout]

    @property
    def sides(self) -> tuple[int, ...]:
        """The sizes of its map, as many as it has dimensions: (L,), (H, W) or (D, H, W)."""
        return (self.depth, self.height, self.width)[-self.dims :]

    @property
    def maps(self) -> tuple[tuple[int, ...], ...]:
        """The sides of all its maps, those of further calls too."""
        return (self.sides, *self.further)

    @property
    def side(self) -> int:
        """The shortest side of its map, of the smallest if there are several."""
        return min(itertools.chain(*self.maps))


@dataclass(frozen=True)
class Sites:
    """The sites of a model, in the order in which their outputs appear.

    `refused` has, by name, why each other submodule is no site. `blocks` are the names of all
    blocks, also of those that are no sites.
    """

    found: tuple[Site, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Site]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    @property
    def by_name(self) -> dict[str, Site]:
        """The sites by name, in order."""
        return {site.name: site for site in self.found}

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(site.name for site in self.found)

    def select(self, target: str) -> tuple[Site, ...]:
        """The sites that `target` names.

        A target is one of TARGETS, a glob (`layer3.*.bn3`), a regular expression between slashes
        (`/layer[34]/`, which must match the whole name), one name, or a list of these with commas.
        Raises UserError, with the reason or the nearest name, for a target that names nothing.
        """
        parts = _split(target)
        if len(parts) > 1:
            return tuple(site for part in parts for site in self.select(part))
        matching = self._matching(target)
        if not matching:
            raise self._nothing(target)
        return matching

    def _matching(self, target: str) -> tuple[Site, ...]:
        if target in TARGETS:
            return self._where(lambda site: target in site.roles)
        if is_regex(target):
            pattern = _compiled(target)
            return self._where(lambda site: pattern.fullmatch(site.name) is not None)
        # A name goes before a glob: names can have the characters of a glob in them.
        if target in self.names:
            return self._where(lambda site: site.name == target)
        return self._where(lambda site: fnmatchcase(site.name, target))

    def _where(self, is_meant: Callable[[Site], bool]) -> tuple[Site, ...]:
        return tuple(site for site in self.found if is_meant(site))

    def _nothing(self, target: str) -> UserError:
        if target in self.refused:
            return UserError(
                f"no attention can go to {target!r}: it {self.refused[target]}",
                nearest(target, self.names),
            )
        if target in TARGETS:
            return NoSuchSites(
                f"the model has no {target!r}: {self._why_none(target)}",
                "name sites; the command `sites` shows them",
            )
        return UserError(f"no site is named {target!r}", nearest(target, [*TARGETS, *self.names]))

    def _why_none(self, target: str) -> str:
        if target == "bottleneck" and any(STAGE_ENDS in site.roles for site in self.found):
            return "it has one stage, and a bottleneck lies between two"
        if not self.blocks:
            return "no repeated blocks were found in it"
        reasons = Counter(self.refused[name] for name in self.blocks if name in self.refused)
        if not reasons:
            return "it works at several resolutions at a time"
        ((reason, n),) = reasons.most_common(1)
        return f"{n} of its {len(self.blocks)} blocks are no sites, as each {reason}"


def _split(target: str) -> list[str]:
    """The targets of a list: apart at its commas, but for those within a regular expression."""
    return re.split(r",(?=(?:[^/]*/[^/]*/)*[^/]*$)", target)


def is_exact(target: str) -> bool:
    """Whether a target is a name: no named set, list, glob or regular expression."""
    if target in TARGETS or is_regex(target):
        return False
    return not any(sign in target for sign in ",*?[")


def is_regex(target: str) -> bool:
    """Whether a target is a regular expression: between slashes."""
    return len(target) > 1 and target.startswith("/") and target.endswith("/")


def _compiled(target: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # patterns that a later Python will read differently
            return re.compile(target[1:-1])
    except (re.error, FutureWarning, OverflowError, RecursionError) as error:
        raise UserError(
            f"{target} is no regular expression: {error}", "a glob such as layer3.*.bn3 may do"
        ) from None
