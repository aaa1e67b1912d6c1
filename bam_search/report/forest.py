"""Small forest plots: a difference and its interval beside zero, all of a table on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass

from bam_search.analysis.effects import Effect
from bam_search.analysis.statistics import Difference
from bam_search.report.front_figure import tick_texts, ticks

WIDTH = 130
"""Pixels of a plot."""


@dataclass(frozen=True)
class Forest:
    """A plot in pixels: zero, the mean, and the ends of its interval if it has one.

    `kind` is 'better', 'worse', or 'unclear', which is grey.
    """

    zero: float
    mean: float
    low: float | None
    high: float | None
    kind: str


@dataclass(frozen=True)
class Scale:
    """From the least to the greatest value of a table; pixels of a value."""

    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[Difference | Effect]) -> "Scale":
        """The scale of all means, intervals and zero, with a margin."""
        ends = [0.0]
        for value in values:
            ends += [end for end in (value.mean, value.low, value.high) if end is not None]
        margin = 0.04 * (max(ends) - min(ends)) or 1.0
        return cls(min(ends) - margin, max(ends) + margin)

    def at(self, value: float) -> float:
        """Where a value is, in pixels from the left."""
        return round(WIDTH * (value - self.least) / (self.most - self.least), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """A few round numbers, and where they are."""
        values = ticks(self.least, self.most, 5)
        return list(zip(map(self.at, values), tick_texts(values, "+"), strict=True))


def forest(scale: Scale, value: Difference | Effect, kind: str) -> Forest:
    """The plot of a value on this scale."""
    low, high = (None if end is None else scale.at(end) for end in (value.low, value.high))
    return Forest(scale.at(0), scale.at(value.mean), low, high, kind)
