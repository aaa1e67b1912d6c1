"""How the search scores a candidate: by a training from scratch, or from a trained backbone.

Finalists always train from scratch, or from what the study's trainings start from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from bam_search.study.record import SCRATCH, WARM_START


@dataclass(frozen=True)
class Scoring:
    """The lengths of the trainings of a search, as multiples of a finalist's epochs.

    `candidate` is that of a candidate, with a learning-rate decay of its own. `backbone` is that of
    the backbone without attention, which is trained once; every candidate, the bare backbone among
    them, starts from its weights. 0: each starts from the seed's.
    """

    candidate: Fraction
    backbone: int = 0

    def epochs(self, full: int) -> int:
        """The epochs of a candidate where a finalist has so many."""
        return ceil(self.candidate * full)


SCORINGS: Mapping[str, Scoring] = {
    SCRATCH: Scoring(candidate=Fraction(1)),
    WARM_START: Scoring(candidate=Fraction(1, 2), backbone=2),
}
"""By name, the default first.

A warm start costs half of a training and ranks placements better than a whole one from scratch, by
the loss better than by the metric (`benchmarks/rungs.py`).
"""
