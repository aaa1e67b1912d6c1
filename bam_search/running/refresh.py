"""When the page of a running study is written again: seldom enough to cost little."""

import time
from collections.abc import Callable

LEAST = 20.0
"""Seconds that at least pass between two pages."""
SHARE = 0.02
"""The share of the time that writing may take."""


class Refresh:
    """Calls a function again, at intervals that follow from how long it takes."""

    def __init__(
        self, work: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work = work
        self._clock = clock
        self._next = clock() + LEAST

    def __call__(self) -> None:
        """Do the work, if it is time for it."""
        started = self._clock()
        if started < self._next:
            return
        self._work()
        ended = self._clock()
        self._next = ended + max(LEAST, (ended - started) / SHARE)
