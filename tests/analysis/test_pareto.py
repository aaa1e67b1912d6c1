"""The front against its definition, written out."""

import numpy as np
import pytest
from conftest import make_record
from hypothesis import given
from hypothesis import strategies as st

from bam_search.analysis.pareto import (
    hypervolume,
    hypervolume_improvements,
    nondominated,
    pareto_front,
)

rows = st.integers(1, 3).flatmap(
    lambda m: st.lists(st.tuples(*[st.integers(0, 4)] * m), min_size=1, max_size=20)
)


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(rows)
def test_nondominated_is_its_definition(values: list[tuple[int, ...]]) -> None:
    expected = [not any(dominates(other, row) for other in values) for row in values]
    assert nondominated(np.array(values)).tolist() == expected


def test_front_leaves_out_the_failed_and_sorts_by_cost() -> None:
    points = [(80.0, 0.0), (70.0, 2.0), (75.0, 1.0), (76.0, 1.5), (None, 0.0)]
    records = [make_record(number, *point) for number, point in enumerate(points)]
    assert [r.number for r in pareto_front(records, ("metric", "params_overhead"))] == [0, 2, 1]
    assert pareto_front([records[4]], ("metric", "params_overhead")) == []


def test_the_hypervolume_of_hand_made_boxes() -> None:
    worst = np.array([10.0, 10.0])
    assert hypervolume(np.array([[4.0, 7.0]]), worst) == 6 * 3
    # Two boxes that overlap in 3 x 3, of 6 x 3 and 3 x 6; what is beaten or beyond the worst point
    # adds nothing.
    assert hypervolume(np.array([[4.0, 7.0], [7.0, 4.0]]), worst) == 18 + 18 - 9
    assert (
        hypervolume(
            np.array([[4.0, 7.0], [7.0, 4.0], [8.0, 8.0], [7.0, 4.0], [1.0, 10.0], [0.0, 11.0]]),
            worst,
        )
        == 27
    )
    assert hypervolume(np.zeros((0, 2)), worst) == 0
    assert hypervolume(np.array([[10.0, 0.0]]), worst) == 0
    assert hypervolume(np.array([[3.0], [5.0]]), np.array([10.0])) == 7
    # In three dimensions: two cubes of side 2 that share a cube of side 1, and one inside.
    cube = np.array([[1.0, 1.0, 2.0], [2.0, 2.0, 1.0], [2.0, 2.0, 2.0]])
    assert hypervolume(cube, np.array([3.0, 3.0, 3.0])) == 2 * 2 * 1 + 1 * 1 * 2 - 1


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_the_hypervolume_is_what_random_points_find(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    for n in (1, 5, 20):
        values, worst = rng.random((n, dimensions)), np.full(dimensions, 0.9)
        points = rng.random((50_000, dimensions)) * 0.9
        share = (values[None] <= points[:, None]).all(2).any(1).mean()
        assert hypervolume(values, worst) == pytest.approx(
            share * 0.9**dimensions, abs=4 * 0.5 * 0.9**dimensions / 50_000**0.5
        )


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_the_hypervolume_of_whole_numbers_is_a_count_of_cells(
    values: list[tuple[int, int, int]],
) -> None:
    cells = np.array(np.meshgrid(*[range(4)] * 3)).reshape(3, -1).T
    covered = (np.array(values)[None] <= cells[:, None]).all(2).any(1)
    assert hypervolume(np.array(values, dtype=float), np.full(3, 4.0)) == covered.sum()


@pytest.mark.parametrize("dimensions", [2, 3, 4])
@pytest.mark.parametrize("digits", [1, 6])
def test_a_gain_is_the_difference_of_two_hypervolumes(dimensions: int, digits: int) -> None:
    rng = np.random.default_rng(dimensions)
    for n in (1, 5, 20):
        points, others = (
            rng.random((n, dimensions)).round(digits),
            rng.random((30, dimensions)).round(digits),
        )
        found, worst = points[nondominated(points)], np.full(dimensions, 1.1)
        expected = [
            hypervolume(np.vstack([found, other]), worst) - hypervolume(found, worst)
            for other in others
        ]
        assert hypervolume_improvements(found, others, worst) == pytest.approx(expected, abs=1e-12)
