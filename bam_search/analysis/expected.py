"""What the model of effects expects of placements that nobody has trained.

For each tested placement with attention: which placement it expects to be best among all that add
no more to a cost, and how much better. Effects and costs of sites add up, so the best one is found
without a list of all placements, exactly while there are fewer than STATES ways to spend.

The only library is numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.analysis.effects import SiteModel
from bam_search.analysis.statistics import LEVEL, central_interval
from bam_search.space.placement import Placement
from bam_search.study.record import Record

Added = Mapping[str, Sequence[tuple[int, int] | None]]
"""Of each site, what each of its choices adds: parameters and MACs (conv + fc).

Choices are in the order of `ChoiceSpace.choices`; None is for one that is not possible.
"""
STATES = 5000
"""So many ways to spend are kept from site to site; more are thinned, evenly."""


@dataclass(frozen=True)
class Expected:
    """The placement of least expected value among those with no more MACs than `beside`.

    `difference` is what it is expected to change beside that, in the metric as it is measured, with
    its interval; `chance` that of being better. `params` and `macs` are what it adds. `record` is
    the placement's own, if it has been trained.
    """

    beside: Record
    placement: Placement
    params: int
    macs: int
    difference: float
    low: float
    high: float
    chance: float
    record: Record | None


def expected_best(
    model: SiteModel,
    noise: float,
    added: Added,
    beside: Sequence[Record],
    records: Sequence[Record],
) -> tuple[Expected, ...]:
    """The best placement to expect at no more MACs than each of `beside` that has attention.

    Those with attention that the choice space does not have are left out, and so are those beside
    which the model expects nothing better: they are its best, or no attention is. `noise` is the
    standard deviation of final trainings: what the model misses beyond that is the placements' own,
    and makes intervals wider.
    """
    own = float(np.sqrt(max(0.0, model.effects.error**2 - noise**2)))
    found = []
    for record in beside:
        vector = model.encoder.vector(record.parsed_placement)
        if record.has_attention and vector is not None:
            _, limit = _added(added, model, vector)
            best = _best(model, added, limit)
            if best.any() and not np.array_equal(best, vector):
                found.append(_expected(model, own, added, best, (record, vector), records))
    return tuple(found)


def _expected(
    model: SiteModel,
    own: float,
    added: Added,
    best: np.ndarray,
    other: tuple[Record, np.ndarray],
    records: Sequence[Record],
) -> Expected:
    """`best` beside another record, which comes with its choice numbers."""
    record, vector = other
    placement = model.encoder.choice_space.shortened(model.encoder.placement(best))
    by_model = model.changes(best) - model.changes(vector)
    apart = own * np.random.default_rng(0).standard_normal(len(by_model))
    sign = -1.0 if model.larger_is_better else 1.0  # the model is of what is minimised
    params, macs = _added(added, model, best)
    return Expected(
        record,
        placement,
        params,
        macs,
        sign * float(by_model.mean()),
        *central_interval(sign * (by_model + apart), LEVEL),
        float((by_model + apart < 0).mean()),
        _trained(model, best, records),
    )


def _trained(model: SiteModel, vector: np.ndarray, records: Sequence[Record]) -> Record | None:
    """The record of the placement with these choice numbers: one that was tested, if there is."""
    same = [record for record in records if _has(model, record, vector)]
    return max(same, key=lambda record: record.is_tested, default=None)


def _has(model: SiteModel, record: Record, vector: np.ndarray) -> bool:
    """Whether the record was trained, with these choice numbers."""
    if not (record.is_tested or record.complete) or record.readable_placement is None:
        return False
    of_record = model.encoder.vector(record.readable_placement)
    return of_record is not None and bool((of_record == vector).all())


def _added(added: Added, model: SiteModel, vector: np.ndarray) -> tuple[int, int]:
    """The parameters and MACs that the placement with these choice numbers adds."""
    sites = zip(model.encoder.sites, vector, strict=True)
    chosen = [one for site, j in sites if j and (one := added[site][j - 1])]
    return sum(params for params, _ in chosen), sum(macs for _, macs in chosen)


def _best(model: SiteModel, added: Added, limit: int) -> np.ndarray:
    """The (sites,) choice numbers of least expected value, with at most `limit` more MACs.

    After each site only those ways to choose are kept that no cheaper one is as good as: the rest
    of the sites adds the same to both.
    """
    spent, values = np.zeros(1), np.zeros(1)
    chosen = np.zeros((1, 0), dtype=np.int64)
    for site, at in zip(model.encoder.sites, model.alone, strict=True):
        costs = np.array([0.0, *(one[1] if one else np.inf for one in added[site])])
        gains = np.array([0.0, *at.mean(axis=1)])
        all_spent = (spent[:, None] + costs).ravel()
        all_values = (values[:, None] + gains).ravel()
        kept = _front(all_spent, all_values, limit)
        before, j = np.divmod(kept, len(costs))
        chosen = np.concatenate([chosen[before], j[:, None]], axis=1)
        spent, values = all_spent[kept], all_values[kept]
    return np.asarray(chosen[-1])


def _front(spent: np.ndarray, values: np.ndarray, limit: int) -> np.ndarray:
    """Which are within the limit and better than all that spend no more, the cheapest first."""
    order = np.lexsort((values, spent))
    order = order[spent[order] <= limit]
    least = np.minimum.accumulate(values[order])
    is_better = np.append(True, least[1:] < least[:-1])
    front = order[is_better]
    if len(front) > STATES:
        front = front[np.linspace(0, len(front) - 1, STATES).round().astype(int)]
    return front
