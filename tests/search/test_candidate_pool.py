"""The candidate pool.

Costs add up, limits hold, and random placements are spread over the number of sites.
"""

import math
from collections import Counter

import numpy as np
import pytest
from invented import PLAN, SITES, TINY

from bam_search.model.attach import resolve
from bam_search.score.cost import COUNTS
from bam_search.search.candidate_pool import CandidatePool
from bam_search.space.placement import Choice
from bam_search.space.search_space import ChoiceSpace


def pool(
    limits: tuple[float, float] = (math.inf, math.inf),
    choice_space: ChoiceSpace = PLAN.choice_space,
) -> CandidatePool:
    """A candidate pool with real overheads: parameters, and all operators' MACs."""

    def added(site: str, choice: Choice) -> list[float]:
        more = PLAN.costs.added(site, choice)
        return [
            100 * getattr(more, key) / getattr(PLAN.costs.base, key)
            for key in (COUNTS[0], COUNTS[2])
        ]

    return CandidatePool.of(choice_space, added, limits, 1)


def test_overheads_are_those_of_the_built_placement() -> None:
    found = pool()
    vectors = found.some(50, np.random.default_rng(0))
    for vector, (params, macs) in zip(vectors, found.overheads(vectors), strict=True):
        cost = PLAN.costs.cost(resolve(found.encoder.placement(vector), SITES))
        assert params == pytest.approx(100 * (cost.params / PLAN.costs.base.params - 1))
        assert macs == pytest.approx(100 * (cost.macs / PLAN.costs.base.macs - 1))


def test_within_is_below_each_limit() -> None:
    free, tight = pool(), pool((1.0, 2.0))
    vectors = free.some(300, np.random.default_rng(1))
    overheads = free.overheads(vectors)
    expected = (overheads[:, 0] <= 1) & (overheads[:, 1] <= 2)
    assert 10 < expected.sum() < 290
    assert tight.within(vectors).tolist() == expected.tolist()
    assert free.within(vectors).all()


def test_a_spread_placement_is_within_the_limits_and_the_same_for_its_seed() -> None:
    found = pool((1.0, 2.0))
    sizes = Counter()
    for seed in range(200):
        placement = found.spread(seed)
        assert placement == found.spread(seed)
        vector = found.encoder.vector(placement)
        assert vector is not None
        assert found.within(vector[None])[0]
        sizes[len(placement.choices)] += 1
    assert len(sizes) >= 4
    assert sizes[0] == 0
    assert len(pool((1e-6, 1e-6)).spread(0).choices) == 0


def test_without_limits_the_number_of_sites_is_uniform() -> None:
    found = pool()
    sizes = Counter(len(found.spread(seed).choices) for seed in range(300))
    assert set(sizes) == {1, 2, 3, 4, 5, 6}
    assert min(sizes.values()) > 25
    drawn = Counter((found.some(600, np.random.default_rng(0)) > 0).sum(1).tolist())
    assert set(drawn) == {1, 2, 3, 4, 5, 6}
    assert min(drawn.values()) > 60


def test_everything_is_every_placement_once() -> None:
    found = pool(choice_space=TINY)
    everything = found.everything()
    assert len(everything) == len({vector.tobytes() for vector in everything}) == TINY.size == 9
    assert everything[0].tolist() == [0, 0]


def test_neighbours_differ_at_one_site_at_most() -> None:
    found, rng = pool(), np.random.default_rng(2)
    centres = found.some(3, rng)
    before = centres.copy()
    near = found.near(centres, 200, rng)
    distances = (near[:, None] != centres[None]).sum(2).min(1)
    assert set(distances.tolist()) == {0, 1}
    assert (centres == before).all()
    assert len({vector.tobytes() for vector in near}) > 50
    assert found.overheads(near).shape == (200, 2)  # all of them are in the choice space


def test_what_is_not_possible_at_a_site_is_not_proposed() -> None:
    def added(_site: str, choice: Choice) -> list[float]:
        return [math.inf if dict(choice.options)["r"] == 4 else 1.0]

    found = CandidatePool.of(TINY, added, [5.0], 1)
    assert not any("r=4" in found.spread(seed).text for seed in range(50))
    assert found.within(found.everything()).sum() == 4
