"""Where labels of points go in a figure, so that none hides a point, a line or another label."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

DIRECTIONS = (0, 180, -35, 35, -145, 145, -90, 90, -60, 60, -120, 120)
"""Degrees from a point to its label, clockwise from the right, the first ones first."""
DISTANCES = (11, 20, 32, 46, 62, 80)
"""From a point to its label, in pixels."""
PLACES = tuple(itertools.product(DISTANCES, DIRECTIONS))
"""Where a label may be."""
NEARNESS = np.array([distance / 20 + i / 100 for i, (distance, _) in enumerate(PLACES)])
"""What each place costs by itself."""
NEAR = 21
"""A label that is farther away than this gets a line to its point."""
SWEEPS = 4
"""How often each label may move again, the others being where they are."""
ON_LABEL, ON_MARK, ON_BAR, ON_LINE, OUTSIDE = 80.0, 60.0, 20.0, 6.0, 400.0
"""What it costs that all of a label lies there; a distance of 20 pixels costs 1."""


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: "Box") -> float:
        """The area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Wanted:
    """A label of this size for the point at x, y."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Placed:
    """A label's box, the side of it that is next to its point, and the end of the line to it.

    `anchor` is SVG's text-anchor: "start" where the label lies to the right of its point.
    """

    box: Box
    anchor: str
    line_end: tuple[float, float] | None


def place(
    wanted: Sequence[Wanted], obstacles: Sequence[tuple[Box, float]], frame: Box
) -> list[Placed]:
    """A place for each label, in their order; `frame` is what they may not leave.

    An obstacle comes with what it costs to lie on it.
    """
    walls, limits = _edges([box for box, _ in obstacles]), _edges([frame])
    weights = np.array([cost for _, cost in obstacles])
    options = [_options(one) for one in wanted]
    costs = [
        NEARNESS + _shares(own, walls) @ weights + OUTSIDE * (1 - _shares(own, limits)[:, 0])
        for own in options
    ]
    chosen = [own[cost.argmin()] for own, cost in zip(options, costs, strict=True)]
    for _ in range(SWEEPS):
        for i, own in enumerate(options):
            others = np.array(chosen[:i] + chosen[i + 1 :]).reshape(-1, 4)
            chosen[i] = own[(costs[i] + ON_LABEL * _shares(own, others).sum(axis=1)).argmin()]
    boxes = [Box(*edges.tolist()) for edges in chosen]
    return [_placed(one, box) for one, box in zip(wanted, boxes, strict=True)]


def _edges(boxes: Sequence[Box]) -> np.ndarray:
    """Boxes as rows of left, top, right and bottom."""
    return np.array([astuple(box) for box in boxes]).reshape(-1, 4)


def _options(wanted: Wanted) -> np.ndarray:
    """The edges of a label's box at each of PLACES."""
    return np.array([_at(wanted, distance, math.radians(degrees)) for distance, degrees in PLACES])


def _at(wanted: Wanted, distance: float, angle: float) -> tuple[float, float, float, float]:
    """The edges of the box that begins so far from the point, and lies away from it."""
    x = wanted.x + distance * math.cos(angle)
    y = wanted.y + distance * math.sin(angle)
    along, lift = 0.5 * (1 - math.cos(angle)), 0.5 * (1 - math.sin(angle))
    left = x - wanted.width * (round(along) if abs(along - 0.5) > 0.1 else 0.5)
    top = y - wanted.height * lift
    return left, top, left + wanted.width, top + wanted.height


def _shares(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of each box that lies on each of the others, by the edges of both."""
    nearest = np.maximum(boxes[:, None, :2], others[None, :, :2])
    farthest = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    areas = np.maximum(farthest - nearest, 0).prod(axis=2)
    shares: np.ndarray = areas / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    return shares


def _placed(wanted: Wanted, box: Box) -> Placed:
    x = min(max(wanted.x, box.left), box.right)
    y = min(max(wanted.y, box.top), box.bottom)
    is_far = math.hypot(x - wanted.x, y - wanted.y) > NEAR
    anchor = "start" if box.left >= wanted.x else "end" if box.right <= wanted.x else "middle"
    return Placed(box, anchor, (x, y) if is_far else None)
