"""How data are read: at which size, what becomes of unreadable samples, who is told how far it is.

Imports nothing of bam_search.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

Size = Literal["auto"] | int | tuple[int, int]
"""The working size: (H, W), one side for both, or "auto"."""


class Progress(Protocol):
    """Whom reading tells how far it is."""

    def __call__(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """The context of `total` steps; gives what is called with each number of steps done."""
        ...


@contextlib.contextmanager
def silent(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Tell nobody."""
    del title, total
    yield lambda _steps: None


@dataclass(frozen=True)
class Reading:
    """How data are read.

    "auto" keeps the size of arrays, and of pictures that all have one size of at most `largest`
    pixels a side; pictures of other sizes get the median of their shorter sides, at most `largest`.
    An unreadable sample is an error, or is left out with `skip_unreadable`.
    """

    size: Size = "auto"
    largest: int = 64
    skip_unreadable: bool = False
    progress: Progress = silent
