"""The sites and the counts of the spaces that ship.

Each backbone is traced once in a process, which takes seconds; ONE_PROCESS keeps tests that ask for
the same ones in the same process.
"""

from functools import cache

import pytest
from conftest import without_values

from bam_search.model.build import sites_of
from bam_search.score.cost_table import CostTable, cost_table
from bam_search.space.search_space import load_space
from bam_search.space.sites import Sites

ONE_PROCESS = pytest.mark.xdist_group("counted")


@cache
def sites(space: str) -> Sites:
    return sites_of(without_values(load_space(space)))


@cache
def costs(space: str) -> CostTable:
    """The counts of a study's candidates, which `test_formula.py` compares with fvcore's."""
    return cost_table(without_values(load_space(space)), sites(space))
