"""The time of a run: how much is left of it, for what it is enough, and when the search ends.

A forecast says how long each phase takes at a speed that was measured before; what trainings have
taken since corrects it. The clock decides how many trainings there are, never which.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bam_search.running.forecast import Forecast
from bam_search.search.finalists import FinalsTime
from bam_search.search.study import Study
from bam_search.search.workload import ABLATIONS, FINALISTS, RANDOM_BASELINE, first_phase
from bam_search.study.record import Record, main_records

CLOSING = 0.01
"""The share of a run's time that the page and the end of the processes take."""


@dataclass(frozen=True)
class Clock:
    """When a run should end, in the seconds of `time.monotonic`; infinite if it need not.

    With `fills` it should not end before, either.
    """

    ends: float = math.inf
    fills: bool = False

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.ends - time.monotonic()


@dataclass(frozen=True)
class Timing:
    """The clock of a run, and the forecast of its study; None where none can be made."""

    clock: Clock
    study: Study
    expected: Forecast | None

    def search_is_over(
        self, records: Sequence[Record], finalists: Callable[[], Sequence[Record]]
    ) -> bool:
        """Whether the time that is left is needed for the first seeds of the finalists.

        `finalists` gives those that there would be now. It fits a model, so it is called only
        where there is a clock.
        """
        if self.expected is None or self.clock.ends == math.inf:
            return False
        seeds = self.study.finalists.seeds
        trainings = sum(max(0, seeds - len(record.test_metrics)) for record in finalists())
        first = first_phase(self.study)
        needed = self._each(first, records) * self._stretch(first)  # those that are under way
        needed += self.finals(trainings, records)
        needed += self._others((RANDOM_BASELINE, ABLATIONS), records) + self.expected.latency
        return self.clock.left < needed

    def finals(self, trainings: int, records: Sequence[Record]) -> float:
        """Seconds of so many final trainings."""
        at_once = self.expected.calibration.at_once if self.expected else 1
        return math.ceil(trainings / at_once) * self._each(FINALISTS, records)

    def fitting(self, records: Sequence[Record]) -> int:
        """How many final trainings fit into the time that is left."""
        each = self.finals(1, records)
        if not each or self.expected is None:
            return 0
        left = max(0.0, self.clock.left - self._others((ABLATIONS,), records))
        return int(left / each) * self.expected.calibration.at_once

    def for_finals(self, records: Callable[[], Sequence[Record]]) -> FinalsTime:
        """What the clock allows of further seeds, at the pace of the records so far."""

        def fits(trainings: int) -> bool:
            needed = self.finals(trainings, records()) + self._others((ABLATIONS,), records())
            return needed <= self.clock.left

        return FinalsTime(fits, self.clock.fills)

    def left(self, phase: str, done: int, total: int, records: Sequence[Record]) -> float | None:
        """Seconds to the end of the run, after `done` of `total` trainings of a phase.

        None: it is not known. A run that should use all of its time ends with the clock.
        """
        if self.clock.fills:
            return max(0.0, self.clock.left)
        if self.expected is None:
            return None
        names = [of.name for of, _ in self.expected.phases]
        later = names[names.index(phase) + 1 :] if phase in names else []
        trained = sum(self._each(name, records) * self._to_come(name, records) for name in later)
        trained += self._each(phase, records) * (total - done)
        left = trained / self.expected.calibration.at_once
        left += self.expected.latency * (FINALISTS in later)  # it comes before their trainings
        return min(left, max(0.0, self.clock.left))

    def _others(self, phases: Sequence[str], records: Sequence[Record]) -> float:
        """Seconds for these phases beside the finals, and for the page.

        Ablations that an extended study has may be of another recommendation, so they do not count.
        """
        if self.expected is None:
            return 0.0
        known = [record for record in records if not record.is_ablation]
        trained = sum(self._to_come(name, known) * self._each(name, records) for name in phases)
        at_once = self.expected.calibration.at_once
        return trained / at_once + CLOSING * self.expected.seconds

    def _each(self, phase: str, records: Sequence[Record]) -> float:
        """Seconds of one training of a phase, at the pace of the records."""
        return self._forecast_of_one(phase) * self._pace(records)

    def _to_come(self, phase: str, records: Sequence[Record]) -> int:
        """How many trainings of a phase after the search an extended study has not had yet."""
        return max(0, self._trainings(phase) - _trained(phase, records))

    def _trainings(self, phase: str) -> int:
        assert self.expected is not None
        return sum(of.trainings for of, _ in self.expected.phases if of.name == phase)

    def _forecast_of_one(self, phase: str) -> float:
        """What the forecast says of one training of a phase; 0 for a phase that it has not."""
        if self.expected is None:
            return 0.0
        at_once = self.expected.calibration.at_once
        of_one = {of.name: seconds * at_once / of.trainings for of, seconds in self.expected.phases}
        return of_one.get(phase, 0.0)

    def _stretch(self, phase: str) -> float:
        """How much longer one training takes by the clock as others share its device.

        All of a phase together take no longer for it.
        """
        if self.expected is None:
            return 1.0
        beside = min(self.study.workers, self._trainings(phase))
        return max(1.0, beside / self.expected.calibration.at_once)

    def _pace(self, records: Sequence[Record]) -> float:
        """How much longer trainings took so far than the forecast said; 1 before any."""
        searched = [r.seconds for r in main_records(records) if r.complete and r.seconds]
        tested = [r for r in records if r.is_tested and r.test_seconds]
        finals = sum(len(r.test_metrics) for r in tested)
        first = first_phase(self.study)
        expected = len(searched) * self._forecast_of_one(first)
        expected += finals * self._forecast_of_one(FINALISTS)
        taken = sum(searched) / self._stretch(first)
        taken += sum(r.test_seconds or 0 for r in tested) / self._stretch(FINALISTS)
        return taken / expected if taken and expected else 1.0


def _trained(phase: str, records: Sequence[Record]) -> int:
    """How many trainings of a phase after the search there are: of a study that was extended."""
    if phase == RANDOM_BASELINE:
        return sum(record.is_random for record in records)
    of_phase = [record for record in records if record.is_ablation == (phase == ABLATIONS)]
    return sum(len(record.test_metrics) for record in of_phase)
