"""A job in, a result out; a crash is a result."""

import pytest

from bam_search.model.build import sites_of
from bam_search.score.data import Dataset, Images, split
from bam_search.score.device import choose
from bam_search.score.evaluate import Job, Task, evaluate
from bam_search.score.generated import generate
from bam_search.score.recipe import Recipe
from bam_search.space.search_space import load_space


@pytest.fixture(scope="module")
def task() -> Task:
    x, y, x_test, y_test = generate(1000, 300)
    parts = split(Dataset("generated", "", Images(x, y), Images(x_test, y_test)), None, 0.1, seed=0)
    return Task("small", sites_of(load_space("small")), parts, Recipe(epochs=2, batch=100), choose("cpu"), threads=1)


def test_search_measures_validation_and_final_measures_test(task: Task) -> None:
    searched, final = evaluate(task, Job("layer1=bam", 0)), evaluate(task, Job("layer1=bam", 0, final=True))
    assert searched.score is not None
    assert final.score is not None
    assert searched.score.images == 100
    assert final.score.images == 300
    assert [epoch.error is None for epoch in searched.score.per_epoch] == [False, False]
    assert [epoch.error is None for epoch in final.score.per_epoch] == [True, True]
    assert searched.score.error == searched.score.per_epoch[-1].error


def test_a_crash_is_a_result_with_its_traceback(task: Task) -> None:
    result = evaluate(task, Job("layer9=bam", 0))
    assert result.score is None
    assert "no site is named 'layer9'" in result.failure
    assert "Traceback" in result.failure
