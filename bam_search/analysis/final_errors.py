"""The final errors of a study: their noise, each mean, and differences paired by seed.

A final error is the test error of a training on all training images; finalists and ablations have
them. See `bam_search.analysis.statistics` for the model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bam_search.analysis.statistics import Difference, Mean, Noise, difference, mean, noise
from bam_search.study.record import Record


@dataclass(frozen=True)
class ComparedTo:
    """A record beside another: the difference of their test errors, paired by seed."""

    record: Record
    other: Record
    difference: Difference


@dataclass(frozen=True)
class FinalErrors:
    """The noise of all final errors together, and the mean of each tested record by its number."""

    noise: Noise | None
    means: Mapping[int, Mean]

    @classmethod
    def of(cls, records: Sequence[Record]) -> "FinalErrors":
        """The final errors of a study's records."""
        means = {record.number: mean(record.test_errors) for record in records if record.is_tested}
        return cls(noise(records), means)

    def mean(self, record: Record) -> Mean | None:
        """The mean test error of a record; None if it was not tested."""
        return self.means.get(record.number)

    def error(self, record: Record) -> float:
        """The mean test error of a complete record, or its validation error without a test."""
        test = self.mean(record)
        return record.objective("error") if test is None else test.mean

    def compare(self, record: Record, others: Iterable[Record]) -> tuple[ComparedTo, ...]:
        """The record beside each of `others` with which it has seeds in common."""
        compared = []
        for other in others:
            paired = difference(record, other, self.noise)
            if paired is not None:
                compared.append(ComparedTo(record, other, paired))
        return tuple(compared)
