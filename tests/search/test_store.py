"""The study's folder: what goes in comes out, and a folder of another study is refused."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import pytest
from conftest import database, make_record
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from bam_search.errors import UserError
from bam_search.search.storage import StudyStorage
from bam_search.search.store import Store, archive, open_store, read_records
from bam_search.study.record import Record

OBJECTIVES = ("metric", "params_overhead")
IDENTITY = {
    "space": "small",
    "seed": 0,
    "recipe": {"lr": 0.1, "epochs": 2},
    "objectives": OBJECTIVES,
}


def test_records_survive_closing_and_come_in_order(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    late, early, failed = (
        make_record(2, 70.0, 1.0),
        make_record(0, 80.0, 0.0),
        make_record(1, None, 0.5, failure="Traceback: déjà vu"),
    )
    for record in (late, failed, early):
        store.add(record, [record.val_metric, record.params_overhead] if record.complete else [])  # type: ignore[list-item]
    store.add_final(
        2,
        1000,
        {"metric": 71.0, "standard_error": 1.5, "samples": 100, "seconds": 2.0, "micro_batches": 1},
    )
    store.add_latency(2, "latency_overhead", 12.5, (10.0, 15.0))
    store.add_latency(2, "deployed_latency_overhead", 72.0, (70.0, 75.0))
    again = open_store(tmp_path, IDENTITY, OBJECTIVES).records()
    assert list(again) == [0, 1, 2]
    tested = {
        "test_metrics": (71.0,),
        "test_standard_errors": (1.5,),
        "test_seeds": (1000,),
        "test_samples": 100,
        "test_seconds": 2.0,
        "test_micro_batches": 1,
    }
    times = {
        "latency_overhead": 12.5,
        "latency_interval": (10.0, 15.0),
        "deployed_latency_overhead": 72.0,
        "deployed_latency_interval": (70.0, 75.0),
    }
    assert list(again.values()) == [
        early,
        failed,
        replace(late, **tested, **times),
    ]
    assert read_records(tmp_path) == list(again.values())


def test_a_record_that_an_interruption_came_right_after_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record = open_store(tmp_path, IDENTITY, OBJECTIVES), make_record(0, 80.0, 1.5)
    store.begin(record, running())
    write = store._set_state

    def interrupted(*state: Any) -> None:
        write(*state)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_set_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.add(record, [80.0, 1.5])
    assert store.records() == {}
    store.add(record, [80.0, 1.5])  # as what has ended by then is kept
    assert store.records() == open_store(tmp_path, IDENTITY, OBJECTIVES).records() == {0: record}


def test_increments_of_latency_survive(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    assert store.increments() is None
    table = {"device": "a CPU", "added": {"latency_overhead": {"layer1": {"se": 2.5}}}}
    store.add_increments(table)
    assert open_store(tmp_path, IDENTITY, OBJECTIVES).increments() == table


def test_a_stopped_candidate_survives_with_its_rungs(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    stopped = make_record(
        0, None, 1.0, stopped="after 1 epoch: no", rung_epochs=(1,), rung_metrics=(93.5,)
    )
    control = make_record(
        1, 80.0, 1.0, control=True, rung_epochs=(1, 2), rung_metrics=(93.5, 90.25)
    )
    store.add(stopped, [])
    store.add(control, [80.0, 1.0])
    assert list(open_store(tmp_path, IDENTITY, OBJECTIVES).records().values()) == [stopped, control]
    study = optuna.load_study(study_name="study", storage=database(tmp_path / "study.db"))
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["PRUNED", "COMPLETE"]


def test_final_trainings_come_in_the_order_of_their_seeds_with_what_failed(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    store.add(make_record(0, 80.0, 0.0), [80.0, 0.0])
    store.add(make_record(10, 70.0, 1.0), [70.0, 1.0])
    done = {"standard_error": 1.5, "samples": 100, "seconds": 2.0}
    store.add_final(10, 10, {"metric": 73.0, "micro_batches": 2, "train_metric": 53.0, **done})
    store.add_final(10, 9, {"metric": 72.0, "micro_batches": 1, "train_metric": 52.0, **done})
    store.add_final(10, 11, {"failure": "Traceback: déjà vu"})
    store.add_final(0, 9, {"failure": "Traceback: nothing"})
    again = open_store(tmp_path, IDENTITY, OBJECTIVES)
    assert again.final_seeds() == {(10, 9), (10, 10), (10, 11), (0, 9)}
    first, second = again.records().values()
    assert (second.test_seeds, second.test_metrics) == (
        (9, 10),
        (72.0, 73.0),
    )
    assert second.train_metrics == (52.0, 53.0)
    assert (second.test_samples, second.test_seconds, second.test_micro_batches) == (100, 4.0, 2)
    assert second.test_failure == "Traceback: déjà vu"
    assert (first.test_seeds, first.test_metrics, first.test_seconds, first.test_failure) == (
        (),
        (),
        None,
        "Traceback: nothing",
    )


def test_the_fit_is_known_where_each_final_training_measured_it(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    store.add(make_record(0, 80.0, 0.0), [80.0, 0.0])
    done = {"standard_error": 1.5, "samples": 100, "seconds": 2.0, "micro_batches": 1}
    store.add_final(0, 9, {"metric": 72.0, **done})
    store.add_final(0, 10, {"metric": 72.0, "train_metric": 52.0, **done})
    (record,) = store.records().values()
    assert record.train_metrics == ()


def test_optuna_reads_the_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    record = make_record(0, 80.0, 1.5)
    store.add(record, [80.0, 1.5])
    study = optuna.load_study(study_name="study", storage=database(tmp_path / "study.db"))
    assert [trial.values for trial in study.best_trials] == [[80.0, 1.5]]
    assert study.metric_names == list(OBJECTIVES)
    assert study.trials[0].user_attrs["placement"] == record.placement


def running(text: str = "bam(r=16)") -> FrozenTrial:
    """A trial with attention at one site."""
    return optuna.create_trial(
        state=TrialState.RUNNING,
        params={"layer1": text},
        distributions={"layer1": CategoricalDistribution(("bam(r=16)", "bam(r=4)"))},
    )


def trials(folder: Path) -> list[FrozenTrial]:
    """What Optuna itself finds in a study's folder."""
    return optuna.load_study(study_name="study", storage=database(folder / "study.db")).trials


def test_a_trial_runs_from_its_candidate_s_beginning_to_its_end(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    whole, stopped = make_record(0, 80.0, 1.5), make_record(1, None, 1.0, stopped="no")
    failed = make_record(2, None, 1.0, failure="Traceback: déjà vu")
    times = [datetime.now()]
    for record in (whole, stopped, failed):
        store.begin(record, running())
        times.append(datetime.now())
    assert store.is_running(0)
    assert [trial.state.name for trial in trials(tmp_path)] == ["RUNNING"] * 3
    assert read_records(tmp_path) == []
    for record in (failed, whole, stopped):
        store.add(record, [80.0, 1.5] if record.complete else [])
        times.append(datetime.now())
    assert not store.is_running(0)
    found = trials(tmp_path)
    assert [trial.state.name for trial in found] == ["COMPLETE", "PRUNED", "FAIL"]
    assert [trial.values for trial in found] == [[80.0, 1.5], None, None]
    for number, (trial, ended) in enumerate(zip(found, (4, 5, 3), strict=True)):
        assert trial.params == {"layer1": "bam(r=16)"}
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert times[number] <= trial.datetime_start <= times[number + 1]
        assert times[ended] <= trial.datetime_complete <= times[ended + 1]
    assert read_records(tmp_path) == [whole, stopped, failed]


def test_a_candidate_that_was_cut_off_goes_on_in_its_trial(tmp_path: Path) -> None:
    record, other = make_record(0, 80.0, 1.5), make_record(1, 70.0, 1.5)
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    store.begin(record, running())
    store.begin(other, running())
    (before, _) = trials(tmp_path)
    store.leave()  # Ctrl-C
    assert [trial.state.name for trial in trials(tmp_path)] == ["WAITING"] * 2
    again = open_store(tmp_path, IDENTITY, OBJECTIVES)
    again.begin(record, running())
    # The driver is killed, and the next one has other ideas of candidate 1.
    again = open_store(tmp_path, IDENTITY, OBJECTIVES)
    assert [trial.state.name for trial in trials(tmp_path)] == ["WAITING"] * 2
    continued = datetime.now()
    again.begin(record, running())
    again.begin(replace(other, placement="layer1=bam(r=4)"), running("bam(r=4)"))
    found = trials(tmp_path)
    assert [trial.state.name for trial in found] == ["RUNNING", "FAIL", "RUNNING"]
    assert before.datetime_start is not None
    assert found[0].datetime_start is not None
    assert before.datetime_start < continued < found[0].datetime_start
    again.add(record, [80.0, 1.5])
    assert (trials(tmp_path)[0].number, trials(tmp_path)[0].state.name) == (0, "COMPLETE")
    assert read_records(tmp_path) == [record]


@pytest.mark.parametrize("record", [make_record(0, 80.0, 1.5), make_record(0, None, 1.0)])
def test_a_driver_that_dies_between_the_record_and_the_trial_s_end(
    tmp_path: Path, record: Record
) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    store.begin(record, running())
    killed = pytest.raises(KeyboardInterrupt)
    with killed, patch.object(Store, "_set_state", side_effect=KeyboardInterrupt):
        store.add(record, [80.0, 1.5])
    assert read_records(tmp_path) == [record]
    assert [trial.state.name for trial in trials(tmp_path)] == ["RUNNING"]
    assert open_store(tmp_path, IDENTITY, OBJECTIVES).records() == {0: record}
    (trial,) = trials(tmp_path)
    assert (trial.state.name, trial.values) == (
        ("COMPLETE", [80.0, 1.5]) if record.complete else ("PRUNED", None)
    )


def test_a_trial_that_somebody_asked_for_by_hand_is_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path, IDENTITY, OBJECTIVES)
    study = optuna.load_study(study_name="study", storage=database(tmp_path / "study.db"))
    study.ask()
    study.ask().set_user_attr("mine", 1)
    assert open_store(tmp_path, IDENTITY, OBJECTIVES).records() == {}
    assert [trial.state.name for trial in trials(tmp_path)] == ["RUNNING"] * 2


def test_a_study_that_was_run_differently_is_refused_with_the_differences(tmp_path: Path) -> None:
    open_store(tmp_path, IDENTITY, OBJECTIVES)
    changed = {**IDENTITY, "seed": 1, "recipe": {"lr": 0.2, "epochs": 2}}
    with pytest.raises(UserError) as caught:
        open_store(tmp_path, changed, OBJECTIVES)
    assert "recipe.lr: 0.1 there, 0.2 now" in caught.value.message
    assert "seed: 0 there, 1 now" in caught.value.message
    assert "epochs" not in caught.value.message
    assert json.loads((tmp_path / "study.json").read_text())["identity"]["seed"] == 0


COMPARISON = {**IDENTITY, "references": {"no attention": "none", "SE": "layer3=se"}}
"""The identity of a study whose references have the numbers 0 and 1."""


def with_references(*names: str, **files: str) -> dict[str, object]:
    """That identity with these references, and the hashes of these files of modules."""
    known = {**COMPARISON["references"], "ours": "layer3=ours", "theirs": "layer3=theirs"}  # type: ignore[dict-item]
    found = {**COMPARISON, "references": {name: known[name] for name in names}}
    return {**found, "module_files": files} if files else found


def test_a_comparison_takes_further_references(tmp_path: Path) -> None:
    def reference(number: int) -> Record:
        return make_record(number, 80.0, 1.5, origin="reference")

    open_store(tmp_path, COMPARISON, OBJECTIVES).add(reference(1), [80.0, 1.5])
    more = with_references("no attention", "SE", "ours", ours="a1")
    open_store(tmp_path, more, OBJECTIVES).add(reference(2), [80.0, 1.5])
    still_more = with_references("no attention", "SE", "ours", "theirs", ours="a1", theirs="b2")
    assert list(open_store(tmp_path, still_more, OBJECTIVES).records()) == [1, 2]
    with pytest.raises(UserError, match=r"references\.ours: 'layer3=ours' there, None now"):
        open_store(tmp_path, COMPARISON, OBJECTIVES)


@pytest.mark.parametrize(
    "now",
    [
        with_references("SE", "no attention", "ours"),
        with_references("no attention", "ours"),
        with_references("no attention"),
        {**with_references("no attention", "SE", "ours"), "seed": 1},
    ],
)
def test_further_references_come_after_all_others(tmp_path: Path, now: dict[str, object]) -> None:
    open_store(tmp_path, COMPARISON, OBJECTIVES)
    with pytest.raises(UserError, match="run differently"):
        open_store(tmp_path, now, OBJECTIVES)
    assert open_store(tmp_path, COMPARISON, OBJECTIVES).records() == {}


def test_the_file_of_a_known_module_may_not_change(tmp_path: Path) -> None:
    open_store(tmp_path, with_references("no attention", "ours", ours="a1"), OBJECTIVES)
    more = with_references("no attention", "ours", "theirs", ours="a2", theirs="b2")
    with pytest.raises(UserError, match=r"module_files\.ours: 'a1' there, 'a2' now") as caught:
        open_store(tmp_path, more, OBJECTIVES)
    assert "theirs" not in caught.value.message


@pytest.mark.parametrize("is_done", [True, False])
def test_a_study_that_has_searched_takes_no_further_references(
    tmp_path: Path, is_done: bool
) -> None:
    store = open_store(tmp_path, COMPARISON, OBJECTIVES)
    # A reference that does not fit the network leaves its number to the search.
    record = make_record(1 if is_done else 2, 80.0, 1.5)
    store.add(record, [80.0, 1.5]) if is_done else store.begin(record, running())
    more = with_references("no attention", "SE", "ours")
    with pytest.raises(UserError, match="has searched, so it takes no further references"):
        open_store(tmp_path, more, OBJECTIVES)
    assert set(open_store(tmp_path, COMPARISON, OBJECTIVES).records()) == (
        {1} if is_done else set()
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"identity": 3}'])
def test_a_damaged_folder_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        open_store(tmp_path, IDENTITY, OBJECTIVES)


def test_a_damaged_database_is_one_sentence(tmp_path: Path) -> None:
    open_store(tmp_path, IDENTITY, OBJECTIVES)
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"study\.db cannot be used"):
        open_store(tmp_path, IDENTITY, OBJECTIVES)


def test_a_database_without_its_study_json_is_known_all_the_same(tmp_path: Path) -> None:
    open_store(tmp_path, IDENTITY, OBJECTIVES).add(make_record(0, 80.0, 1.5), [80.0, 1.5])
    (tmp_path / "study.json").unlink()
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        open_store(tmp_path, {**IDENTITY, "seed": 1}, OBJECTIVES)
    assert list(open_store(tmp_path, IDENTITY, OBJECTIVES).records()) == [0]
    assert (tmp_path / "study.json").is_file()


@pytest.mark.parametrize("described", [False, True])
def test_a_report_without_its_trials_is_not_overwritten(tmp_path: Path, described: bool) -> None:
    folder = tmp_path / "report"
    open_store(folder, IDENTITY, OBJECTIVES)
    (folder / "records.csv").write_text("kept")
    (folder / "study.db").unlink()
    if not described:
        (folder / "study.json").unlink()
    with pytest.raises(UserError, match="holds a report, and not the trials"):
        open_store(folder, IDENTITY, OBJECTIVES)
    assert not (folder / "study.db").exists()
    for name in ("train", "checkpoints"):
        (folder / name).mkdir(exist_ok=True)
    for name in ("notes.csv", "candidate-3.pt", "study.db-wal", "lock"):
        (folder / name).write_text(name)
    (aside,) = archive(folder, StudyStorage.of(folder, None, ""))
    assert (Path(aside) / "records.csv").read_text() == "kept"
    # What is not the study's stays where it is.
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "notes.csv", "train"]
    assert open_store(folder, IDENTITY, OBJECTIVES).records() == {}


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        open_store(tmp_path / "file" / "folder", IDENTITY, OBJECTIVES)


def test_odd_folder_names_are_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "größe & 50 % ?x=1#y"
    open_store(folder, IDENTITY, OBJECTIVES).add(make_record(0, 80.0, 1.5), [80.0, 1.5])
    assert list(open_store(folder, IDENTITY, OBJECTIVES).records()) == [0]
    assert (folder / "study.db").is_file()


def test_the_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    theirs = optuna.create_study(storage=database(path), study_name="theirs")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    before = path.read_bytes()
    with pytest.raises(UserError, match="a database that bam_search did not create"):
        open_store(tmp_path, {"space": "small"}, OBJECTIVES)
    assert path.read_bytes() == before


def test_a_record_that_an_interruption_met_half_written_counts_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    record = make_record(0, 80.0, 1.5)
    store.begin(record, running())

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # After the record is in the database, and before its trial has ended.
        patched.setattr(Store, "_set_state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.add(record, [80.0, 1.5])
    assert not store.records()
    store.leave()
    assert store.records() == {0: record}
    again = open_store(tmp_path, IDENTITY, OBJECTIVES)
    assert again.records() == {0: record}
    (trial,) = optuna.load_study(study_name=None, storage=database(tmp_path / "study.db")).trials
    assert trial.state is optuna.trial.TrialState.COMPLETE
