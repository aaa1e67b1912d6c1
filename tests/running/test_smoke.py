"""A smoke run is small, leaves what was asked for, and is all that data standing in are worth."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_command
from held import tiny_study

from bam_search.config import known
from bam_search.errors import UserError
from bam_search.running.prepare import Request, RunOptions, one_per_space, resolve_run, worth
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


def test_what_goes_with_what_was_asked_for_follows(small_npz: Path) -> None:
    asked = request("placement", small_npz, finalists={"seeds": 20}, rungs={"epochs": [1]})
    study = resolve_run(asked).study
    assert (study.finalists.seeds, study.finalists.most, study.recipe.epochs) == (20, 20, 2)


def test_a_comparison_trains_its_references_only(small_npz: Path) -> None:
    study = resolve_run(request("se", small_npz)).study
    assert study.trials == len(study.references)


@pytest.mark.parametrize("study", known("studies", ".toml"))
def test_each_study_that_ships_can_be_smoke_run_without_its_data(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Request(study, "cpu", (), {}, smoke=True)
    ready = resolve_run(one_per_space(asked)[0])
    folder = asked.study_on(asked.found_device).data.source
    if "/" in folder:
        assert ready.study.data.source == "generated"
        note = f"{folder} is not there, so this smoke run takes generated data; --data names yours"
        assert note in ready.opening_lines(None)
        larger = one_per_space(replace(asked, flags={"data": {"size": 96}}))[0]
        assert resolve_run(larger).study.data.size == 96
        with pytest.raises(UserError, match=f"{folder}.* no such file or folder"):
            resolve_run(one_per_space(replace(asked, smoke=False))[0])
        own = {"data": {"source": "nowhere/photos"}}
        with pytest.raises(UserError, match=r"nowhere/photos.* no such file or folder"):
            resolve_run(one_per_space(replace(asked, flags=own))[0])


@pytest.mark.parametrize(
    ("source", "stands_in_for", "smoke"),
    [("auto", "CIFAR-100", True), ("generated", "CIFAR-100", False), ("auto", "", False)],
)
def test_data_that_stand_in_unasked_are_worth_a_smoke_run(
    small_npz: Path, source: str, stands_in_for: str, smoke: bool
) -> None:
    options = RunOptions(budget=3600)
    whole = replace(request("placement", small_npz), smoke=False, options=options)
    ready = resolve_run(whole)
    plan = replace(ready.study.data, source=source)
    ready = replace(ready, study=replace(ready.study, data=plan))
    data = Dataset("some", "", None, None, stands_in_for=stands_in_for)
    allowed = worth(whole, ready, data)
    assert (allowed.smoke, allowed.options.budget) == (smoke, None if smoke else 3600)
    names = {True: "placement-generated-smoke", False: "placement"}
    assert (
        allowed.folder(replace(data, stands_in_for="CIFAR-100" if smoke else "")).name
        == (names[smoke])
    )


def test_a_smoke_run_takes_no_budget(small_npz: Path) -> None:
    with pytest.raises(UserError, match="has a budget of 60 min"):
        replace(request("placement", small_npz), smoke=True, options=RunOptions(budget=3600))


def test_few_samples_test_at_even_distances() -> None:
    samples = Images(np.zeros((2 * TESTED, 1, 1, 3), np.uint8), np.arange(2 * TESTED))
    split = Split(samples, samples, samples, samples)
    assert with_few_tests(split).test.y.tolist() == list(range(0, 2 * TESTED, 2))
    few = replace(split, test=samples.first(10))
    assert with_few_tests(few) is few


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--out", "there"), 2)])
def test_another_smoke_run_sets_the_one_before_aside(
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    study = tiny_study(tmp_path)
    command = ("run", "--study", study, "--smoke", "--device", "cpu", "--data", small_npz, *words)
    assert run_command(monkeypatch, *command) == 0
    assert run_command(monkeypatch, *command, "--set", "recipe.lr=0.05") == code
    said = capsys.readouterr().err
    assert ("the study that was there is now" in said) == (code == 0)
