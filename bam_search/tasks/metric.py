"""What a study measures on held-out samples. No torch, so that a report can ask it for words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is; records keep it as it is measured.

    `unit` follows the number, and is empty where there is none. A mean or a difference is shown
    with so many `decimals`, the value of a single training with one less. `chance` is the value of
    guessing, None where that is not known, and `best` that of a model without a mistake.
    `sample_sd` is the standard deviation of a sample's own value, at most; None where that is not
    known.
    """

    name: str
    unit: str = ""
    larger_is_better: bool = False
    decimals: int = 2
    chance: float | None = None
    best: float = 0.0
    sample_sd: float | None = None

    def minimised(self, value: float) -> float:
        """What a search minimises. The inverse is the same function."""
        return 0.0 - value if self.larger_is_better else value  # -0.0 would be shown as "-0.00"

    def skill(self, value: float) -> float:
        """How far a value is on the way from chance (0) to the best (1); 1 where chance is unknown.

        Values worse than chance are negative.
        """
        if self.chance is None:
            return 1.0
        return (value - self.chance) / (self.best - self.chance)

    @property
    def identity(self) -> dict[str, str | bool]:
        """What makes values comparable."""
        return {
            "name": self.name,
            "unit": self.unit,
            "larger_is_better": self.larger_is_better,
        }

    @property
    def direction(self) -> str:
        """'smaller is better', or 'larger is better'."""
        return f"{'larger' if self.larger_is_better else 'smaller'} is better"

    @property
    def title(self) -> str:
        """'top-1 error, %'; the name alone without a unit."""
        return ", ".join(filter(None, (self.name, self.unit)))

    @property
    def difference_unit(self) -> str:
        """The unit of a difference: 'points' between shares in percent."""
        return "points" if self.unit == "%" else self.unit

    def difference_title(self, name: str) -> str:
        """`name` with the unit of a difference: 'difference, points'."""
        return ", ".join(filter(None, (name, self.difference_unit)))

    def once(self, value: float) -> str:
        """The value of a single training: '81.2'."""
        return f"{value:.{max(self.decimals - 1, 0)}f}"

    def text(self, value: float) -> str:
        """A mean, or its spread: '81.63'."""
        return f"{value:.{self.decimals}f}"

    def signed(self, value: float) -> str:
        """A difference: '-0.61'."""
        return f"{value:+z.{self.decimals}f}"

    def range(self, low: float, high: float) -> str:
        """The ends of a difference's interval: '-1.02 to -0.20'."""
        return f"{self.signed(low)} to {self.signed(high)}"

    def with_unit(self, number: str) -> str:
        """'81.63 %'."""
        return " ".join(filter(None, (number, self.unit)))

    def with_difference_unit(self, number: str) -> str:
        """'-0.61 points'."""
        return " ".join(filter(None, (number, self.difference_unit)))


def binomial(percent: float, n: int) -> float:
    """The standard error, in points, of a share in percent of `n` samples."""
    share = percent / 100
    return 100 * float((share * (1 - share) / n) ** 0.5)
