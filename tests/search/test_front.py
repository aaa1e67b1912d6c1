"""The front against its definition, written out."""

import numpy as np
from conftest import make_record
from hypothesis import given
from hypothesis import strategies as st

from bam_search.search.front import front, nondominated

rows = st.integers(1, 3).flatmap(lambda m: st.lists(st.tuples(*[st.integers(0, 4)] * m), min_size=1, max_size=20))


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(rows)
def test_nondominated_is_its_definition(values: list[tuple[int, ...]]) -> None:
    expected = [not any(dominates(other, row) for other in values) for row in values]
    assert nondominated(np.array(values)).tolist() == expected


def test_front_leaves_out_the_failed_and_sorts_by_cost() -> None:
    points = [(80.0, 0.0), (70.0, 2.0), (75.0, 1.0), (76.0, 1.5), (None, 0.0)]
    records = [make_record(number, *point) for number, point in enumerate(points)]
    assert [r.number for r in front(records, ("error", "params_overhead"))] == [0, 2, 1]
    assert front([records[4]], ("error", "params_overhead")) == []
