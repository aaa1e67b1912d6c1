"""A smoke run is small, leaves what was asked for, and is all that data standing in are worth."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bam_search.running.prepare import Request, resolve_run, worth
from bam_search.running.smoke import TESTED, with_few_tests
from bam_search.tasks.classification.images import Images
from bam_search.tasks.task import Dataset, Split


def request(study: str, source: Path | str, **flags: Any) -> Request:
    return Request(study, "cpu", (), {"data": {"source": str(source)}, **flags}, smoke=True)


def test_a_smoke_run_is_small_and_says_so(small_npz: Path) -> None:
    ready = resolve_run(request("placement", small_npz))
    study = ready.study
    assert (study.trials, study.recipe.epochs, study.data.validation) == (7, 1, 200)
    assert (study.data.images, study.finalists.seeds, study.random_baseline) == (600, 1, False)
    assert "its numbers say nothing" in ready.advice[0]
    assert not ready.fitted


def test_what_was_asked_for_stays(small_npz: Path) -> None:
    asked = request("placement", small_npz, trials=5, recipe={"epochs": 3})
    study = resolve_run(asked).study
    assert (study.trials, study.recipe.epochs, study.finalists.seeds) == (5, 3, 1)


def test_a_comparison_trains_its_references_only(small_npz: Path) -> None:
    study = resolve_run(request("se", small_npz)).study
    assert study.trials == len(study.references)


@pytest.mark.parametrize(
    ("source", "stands_in_for", "smoke"),
    [("auto", "CIFAR-100", True), ("generated", "CIFAR-100", False), ("auto", "", False)],
)
def test_data_that_stand_in_unasked_are_worth_a_smoke_run(
    small_npz: Path, source: str, stands_in_for: str, smoke: bool
) -> None:
    whole = replace(request("placement", small_npz), smoke=False)
    ready = resolve_run(whole)
    plan = replace(ready.study.data, source=source)
    ready = replace(ready, study=replace(ready.study, data=plan))
    data = Dataset("some", "", None, None, stands_in_for=stands_in_for)
    allowed = worth(whole, ready, data)
    assert allowed.smoke is smoke
    names = {True: "placement-generated-smoke", False: "placement"}
    assert (
        allowed.folder(replace(data, stands_in_for="CIFAR-100" if smoke else "")).name
        == (names[smoke])
    )


def test_few_samples_test_at_even_distances() -> None:
    samples = Images(np.zeros((2 * TESTED, 1, 1, 3), np.uint8), np.arange(2 * TESTED))
    split = Split(samples, samples, samples, samples)
    assert with_few_tests(split).test.y.tolist() == list(range(0, 2 * TESTED, 2))
    few = replace(split, test=samples.first(10))
    assert with_few_tests(few) is few
