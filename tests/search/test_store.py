"""The study's folder: what goes in comes out, and a folder of another study is refused."""

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from conftest import make_record

from bam_search.errors import UserError
from bam_search.search.store import open_store

OBJECTIVES = ("error", "params_overhead")
IDENTITY = {"space": "small", "seed": 0, "recipe": {"lr": 0.1, "epochs": 2}, "objectives": OBJECTIVES}


def test_records_survive_closing_and_come_in_order(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    late, early, failed = make_record(2, 70.0, 1.0), make_record(0, 80.0, 0.0), make_record(1, None, 0.5, failure="Traceback: déjà vu")
    for record in (late, failed, early):
        store.add(record, None, [record.val_error, record.params_overhead] if record.complete else [])  # type: ignore[list-item]
    store.add_final(2, {"test_error": 71.0, "test_images": 100})
    again = open_store(tmp_path, IDENTITY, OBJECTIVES).records()
    assert list(again) == [0, 1, 2]
    assert list(again.values()) == [early, failed, replace(late, test_error=71.0, test_images=100)]


def test_optuna_reads_the_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    record = make_record(0, 80.0, 1.5)
    store.add(record, optuna.create_trial(params={}, distributions={}, values=[80.0, 1.5]), [80.0, 1.5])
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.values for trial in study.best_trials] == [[80.0, 1.5]]
    assert study.metric_names == list(OBJECTIVES)
    assert study.trials[0].user_attrs["placement"] == record.placement


def test_a_study_that_was_run_differently_is_refused_with_the_differences(tmp_path: Path) -> None:
    open_store(tmp_path, IDENTITY, OBJECTIVES)
    changed = {**IDENTITY, "seed": 1, "recipe": {"lr": 0.2, "epochs": 2}}
    with pytest.raises(UserError) as caught:
        open_store(tmp_path, changed, OBJECTIVES)
    assert "recipe.lr: 0.1 there, 0.2 now" in caught.value.message
    assert "seed: 0 there, 1 now" in caught.value.message
    assert "epochs" not in caught.value.message
    assert json.loads((tmp_path / "study.json").read_text())["identity"]["seed"] == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"identity": 3}'])
def test_a_damaged_folder_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        open_store(tmp_path, IDENTITY, OBJECTIVES)


def test_a_damaged_or_lone_database_is_one_sentence(tmp_path: Path) -> None:
    open_store(tmp_path, IDENTITY, OBJECTIVES)
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"study\.db cannot be used"):
        open_store(tmp_path, IDENTITY, OBJECTIVES)
    (tmp_path / "study.json").unlink()
    with pytest.raises(UserError, match=r"without the study\.json"):
        open_store(tmp_path, IDENTITY, OBJECTIVES)


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        open_store(tmp_path / "file" / "folder", IDENTITY, OBJECTIVES)


def test_odd_folder_names_are_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "größe & 50 % ?x=1#y"
    open_store(folder, IDENTITY, OBJECTIVES).add(make_record(0, 80.0, 1.5), None, [80.0, 1.5])
    assert list(open_store(folder, IDENTITY, OBJECTIVES).records()) == [0]
    assert (folder / "study.db").is_file()
