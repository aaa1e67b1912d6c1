"""The final trainings of a study: their noise, each mean, and differences paired by seed.

A final training is one with a fresh seed, which is tested; finalists and ablations have them.
See `bam_search.analysis.statistics` for the model. Means and differences are of the metric as it is
measured; what is better depends on its direction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bam_search.analysis.statistics import Difference, Mean, Noise, difference, mean, noise
from bam_search.study.record import METRIC, Record


@dataclass(frozen=True)
class ComparedTo:
    """A record beside another: the difference of their final trainings, paired by seed."""

    record: Record
    other: Record
    difference: Difference

    @property
    def improvement(self) -> Difference:
        """How much better the record is: positive where it is better."""
        larger = self.record.larger_is_better
        return self.difference if larger else self.difference.turned

    @property
    def verdict(self) -> str:
        """How the record is: 'better', 'worse' or 'tie'.

        A tie is a difference whose interval has zero in it, or that has no interval.
        """
        low, high = self.improvement.low, self.improvement.high
        if low is None or high is None or low <= 0 <= high:
            return "tie"
        return "better" if low > 0 else "worse"


@dataclass(frozen=True)
class FinalMetrics:
    """The noise of all final trainings, and the mean of each tested record by its number."""

    noise: Noise | None
    means: Mapping[int, Mean]

    @classmethod
    def of(cls, records: Sequence[Record]) -> "FinalMetrics":
        """The final trainings of a study's records."""
        means = {record.number: mean(record.test_metrics) for record in records if record.is_tested}
        return cls(noise(records), means)

    def mean(self, record: Record) -> Mean | None:
        """The mean of a record's final trainings; None if it had none."""
        return self.means.get(record.number)

    def value(self, record: Record) -> float:
        """The mean of a complete record's final trainings, or its validation without any."""
        test = self.mean(record)
        return record.value(METRIC) if test is None else test.mean

    def objective(self, record: Record) -> float:
        """The same as a value to minimise."""
        return record.metric.minimised(self.value(record))

    def compare(self, record: Record, others: Iterable[Record]) -> tuple[ComparedTo, ...]:
        """The record beside each of `others` with which it has seeds in common."""
        compared = []
        for other in others:
            paired = difference(record, other, self.noise)
            if paired is not None:
                compared.append(ComparedTo(record, other, paired))
        return tuple(compared)
