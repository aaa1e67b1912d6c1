"""How far the trainings of a study can be believed.

Near chance, placements are compared before they have learnt anything: then there are no verdicts.
Short trainings end while they still gain much: their verdicts hold for trainings of this length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.study.record import WARM_START, Record, main_records
from bam_search.tasks.metric import Metric

NEAR_CHANCE = 0.9
"""The share of the way from the best value to chance beyond which nothing was learnt."""
SEED_DEVIATIONS = 2
"""A last epoch that gains more than so many standard deviations between seeds ends too early."""


@dataclass(frozen=True)
class Believability:
    """What speaks against the trainings; nothing does where both are false.

    Attributes:
        value: the validation without attention.
        near_chance: whether that is close to the value of guessing.
        last_gain: how much its last epoch gained, positive where it became better; None where it is
            not known.
        seed_sd: the standard deviation between seeds; None where it is not known.
    """

    value: float
    near_chance: bool
    last_gain: float | None
    seed_sd: float | None

    @property
    def short(self) -> bool:
        """Whether trainings end while they gain more than seeds differ."""
        if self.last_gain is None or self.seed_sd is None:
            return False
        return self.last_gain > SEED_DEVIATIONS * self.seed_sd


def believability(records: Sequence[Record], metric: Metric) -> Believability | None:
    """How far the trainings can be believed, by that without attention; None if there is none."""
    complete = [record for record in main_records(records) if record.complete]
    none = next((record for record in complete if not record.has_attention), None)
    if none is None or none.val_metric is None:
        return None
    return Believability(
        none.val_metric,
        metric.skill(none.val_metric) < 1 - NEAR_CHANCE,
        _last_gain(none, metric),
        _seed_sd(records),
    )


def _last_gain(record: Record, metric: Metric) -> float | None:
    """What the last epoch gained; after one epoch, what it gained over chance.

    None of a training that started from a trained backbone: finalists train otherwise.
    """
    if record.scoring == WARM_START:
        return None
    values = record.epoch_metrics
    if len(values) > 1:
        return metric.minimised(values[-2]) - metric.minimised(values[-1])
    if record.epochs > 1 or metric.chance is None or record.val_metric is None:
        return None
    return metric.minimised(metric.chance) - metric.minimised(record.val_metric)


def _seed_sd(records: Sequence[Record]) -> float | None:
    """The standard deviation between the seeds of a placement, from all with several."""
    groups = [np.array(r.test_metrics) for r in records if len(r.test_metrics) > 1]
    if not groups:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return float((squares / sum(len(group) - 1 for group in groups)) ** 0.5)
