"""The lengths of a search's trainings."""

import pytest

from bam_search.search.scoring import SCORINGS


@pytest.mark.parametrize(("full", "warm"), [(1, 1), (2, 1), (3, 2), (10, 5)])
def test_a_warm_start_is_half_as_long(full: int, warm: int) -> None:
    assert SCORINGS["scratch"].epochs(full) == full
    assert SCORINGS["warm_start"].epochs(full) == warm
