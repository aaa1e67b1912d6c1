"""How well latencies were predicted before training: beside what was measured of what is tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bam_search.analysis.statistics import Mean, rank_correlation
from bam_search.study.record import LATENCIES, OBJECTIVES, Record


@dataclass(frozen=True)
class Prediction:
    """How well an overhead in time was predicted, of `n` placements with attention.

    `error` is the median distance to the measured overhead, in percent points, and `typical` the
    median overhead that was measured; `agreement` is Kendall's tau of the two, None of too few.
    """

    key: str
    n: int
    error: float
    typical: float
    agreement: Mean | None


def predictions(records: Sequence[Record]) -> tuple[Prediction, ...]:
    """How well each latency was predicted that was both predicted and measured of any record."""
    with_attention = [record for record in records if record.has_attention]
    found = (_prediction(with_attention, key) for key in LATENCIES)
    return tuple(one for one in found if one is not None)


def _prediction(records: Sequence[Record], key: str) -> Prediction | None:
    pairs = [(getattr(record, OBJECTIVES[key]), getattr(record, key)) for record in records]
    both = [
        (predicted, measured) for predicted, measured in pairs if None not in (predicted, measured)
    ]
    if not both:
        return None
    predicted, measured = zip(*both, strict=True)
    return Prediction(
        key,
        len(both),
        median(abs(one - other) for one, other in both),
        median(measured),
        rank_correlation(predicted, measured),
    )
