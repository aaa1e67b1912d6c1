"""Where labels of points go in a figure, so that none hides a point, a line or another label."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DIRECTIONS = (0, 180, -35, 35, -145, 145, -90, 90, -60, 60, -120, 120)
"""Degrees from a point to its label, clockwise from the right, the first ones first."""
DISTANCES = (11, 20, 32, 46, 62, 80)
"""From a point to its label, in pixels."""
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
    options = [_options(one, obstacles, frame) for one in wanted]
    chosen = [min(one, key=lambda option: option[0])[1] for one in options]
    for _ in range(SWEEPS):
        for i, own in enumerate(options):
            others = [(box, ON_LABEL) for j, box in enumerate(chosen) if j != i]
            chosen[i] = min(own, key=lambda option: option[0] + _on(option[1], others))[1]
    return [_placed(one, box) for one, box in zip(wanted, chosen, strict=True)]


def _options(
    wanted: Wanted, obstacles: Sequence[tuple[Box, float]], frame: Box
) -> list[tuple[float, Box]]:
    """Each place that a label may have, with what it costs; other labels are not looked at."""
    options = []
    for order, (distance, box) in enumerate(_boxes(wanted)):
        outside = 1 - box.shared(frame) / box.area
        cost = distance / 20 + order / 100 + OUTSIDE * outside
        options.append((cost + _on(box, obstacles), box))
    return options


def _boxes(wanted: Wanted) -> Iterator[tuple[float, Box]]:
    """Yield the boxes around a point, and how far away they are."""
    for distance in DISTANCES:
        for degrees in DIRECTIONS:
            x = wanted.x + distance * math.cos(math.radians(degrees))
            y = wanted.y + distance * math.sin(math.radians(degrees))
            # The box begins at (x, y) and lies away from the point.
            along = 0.5 * (1 - math.cos(math.radians(degrees)))
            left = x - wanted.width * (round(along) if abs(along - 0.5) > 0.1 else 0.5)
            lift = 0.5 * (1 - math.sin(math.radians(degrees)))
            top = y - wanted.height * lift
            yield distance, Box(left, top, left + wanted.width, top + wanted.height)


def _on(box: Box, others: Sequence[tuple[Box, float]]) -> float:
    """What it costs that a box lies on others, by the shares of it that do."""
    return sum(cost * box.shared(other) for other, cost in others) / box.area


def _placed(wanted: Wanted, box: Box) -> Placed:
    x = min(max(wanted.x, box.left), box.right)
    y = min(max(wanted.y, box.top), box.bottom)
    is_far = math.hypot(x - wanted.x, y - wanted.y) > NEAR
    anchor = "start" if box.left >= wanted.x else "end" if box.right <= wanted.x else "middle"
    return Placed(box, anchor, (x, y) if is_far else None)
