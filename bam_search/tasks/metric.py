"""What a study measures on held-out samples. No torch, so that a report can ask it for words."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is, as records keep it.

    `unit` follows the number, and is empty where there is none. `standard_error(value, n)` is the
    standard error of one value that was measured on `n` samples, in the same unit; it does not
    include the spread between training seeds.
    """

    name: str
    unit: str
    larger_is_better: bool
    standard_error: Callable[[float, int], float]

    def minimised(self, value: float) -> float:
        """What a search minimises. The inverse is the same function."""
        return -value if self.larger_is_better else value


def binomial(percent: float, n: int) -> float:
    """The standard error, in points, of a share in percent of `n` samples."""
    share = percent / 100
    return 100 * float((share * (1 - share) / n) ** 0.5)
