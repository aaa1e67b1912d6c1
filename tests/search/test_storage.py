"""A study in a shared database means the same as one in its folder.

Two studies of one name are kept apart.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_record
from invented import PLAN, Shuffled, memory_store, study, train

from bam_search.errors import RunError, UserError
from bam_search.search.storage import StudyStorage
from bam_search.search.store import Store, archive, open_store, read_records

OBJECTIVES = ("metric", "params_overhead", "macs_conv_fc_overhead")
IDENTITY = {"space": "small", "seed": 0}


@pytest.fixture(params=["embedded", "sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if request.param == "embedded":
        return None
    return (
        f"sqlite:///{tmp_path / 'shared.db'}"
        if request.param == "sqlite"
        else str(request.getfixturevalue("postgresql"))
    )


@pytest.fixture
def study_storage(
    storage: str | None, tmp_path: Path, request: pytest.FixtureRequest
) -> StudyStorage:
    return StudyStorage.of(tmp_path / "study", storage, request.node.name)


@pytest.fixture
def store(study_storage: StudyStorage, tmp_path: Path) -> Store:
    return open_store(tmp_path / "study", IDENTITY, OBJECTIVES, study_storage)


def test_what_goes_in_comes_out(store: Store, study_storage: StudyStorage, tmp_path: Path) -> None:
    store.add(make_record(0, 80.0, 0.0), [80.0, 0.0, 0.0])
    store.add(make_record(1, None, 0.5, failure="Traceback: déjà vu"), [])
    store.add_final(
        0,
        1000,
        {"metric": 71.0, "standard_error": 1.5, "samples": 100, "seconds": 2.0, "micro_batches": 1},
    )
    store.add_latency(0, "latency_overhead", 12.5, (10.0, 15.0))
    again = open_store(tmp_path / "study", IDENTITY, OBJECTIVES, study_storage)
    assert again.records() == store.records()
    assert again.final_seeds() == {(0, 1000)}
    assert read_records(tmp_path / "study") == list(store.records().values())
    assert (tmp_path / "study" / "study.db").exists() == study_storage.embedded


def test_an_interrupted_study_ends_like_an_uninterrupted_one(
    store: Store, study_storage: StudyStorage, tmp_path: Path
) -> None:
    context = study(12, 3)
    expected = train(context, memory_store(context), Shuffled())
    with pytest.raises(KeyboardInterrupt):
        train(context, store, Shuffled(9, order=3))
    done = len(store.records())
    pool = Shuffled(order=4)
    assert (
        train(context, open_store(tmp_path / "study", IDENTITY, OBJECTIVES, study_storage), pool)
        == expected
    )
    assert 0 < done < 12
    assert sum(not job.final for job in pool.ran) == 12 - done
    assert set(PLAN.references) <= {record.name for record in expected.values()}


@pytest.mark.usefixtures("store")
def test_a_study_that_was_run_differently_is_refused_wherever_it_lies(
    study_storage: StudyStorage, tmp_path: Path
) -> None:
    # A shared database remembers without the folder.
    for folder in ("study", "elsewhere") if not study_storage.embedded else ("study",):
        with pytest.raises(UserError) as caught:
            open_store(tmp_path / folder, {**IDENTITY, "seed": 1}, OBJECTIVES, study_storage)
        assert "seed: 0 there, 1 now" in caught.value.message
        assert "--force-new" in caught.value.hint
        assert "--name" in caught.value.hint


def test_a_folder_whose_trials_are_elsewhere_is_not_begun_anew(
    store: Store, study_storage: StudyStorage, tmp_path: Path
) -> None:
    store.describe({}, "")
    other = StudyStorage.of(
        tmp_path / "study",
        None if not study_storage.embedded else f"sqlite:///{tmp_path / 'other.db'}",
        "it",
    )
    with pytest.raises(UserError, match=r"storage\.url: "):
        open_store(tmp_path / "study", IDENTITY, OBJECTIVES, other)


def test_a_study_set_aside_is_whole_under_its_new_name(
    store: Store, study_storage: StudyStorage, tmp_path: Path
) -> None:
    store.add(make_record(0, 80.0, 0.0), [80.0, 0.0, 0.0])
    moved = archive(tmp_path / "study", study_storage)
    assert len(moved) == (1 if study_storage.embedded else 2)
    assert (
        open_store(tmp_path / "study", {**IDENTITY, "seed": 1}, OBJECTIVES, study_storage).records()
        == {}
    )
    if study_storage.embedded:
        assert list(read_records(Path(moved[0]))) == list(store.records().values())
    else:
        kept = replace(study_storage, name=moved[0].split(" in ")[0]).open()
        assert [json.loads(trial.user_attrs["record"])["number"] for trial in kept.trials] == [0]


def test_two_drivers_of_one_study_in_postgresql_are_kept_apart(
    postgresql: str, tmp_path: Path
) -> None:
    one, same, other = (
        StudyStorage.of(tmp_path, postgresql, name) for name in ("drives", "drives", "other")
    )
    with one.reserved():
        with pytest.raises(UserError, match="is driven by another process"), same.reserved():
            raise AssertionError("two drivers")
        with other.reserved():
            pass
    with same.reserved():
        pass


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@host/db", "postgresql://me@host/db?password=secret"]
)
def test_a_password_is_refused_as_commands_are_written_down(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="has a password in it") as caught:
        StudyStorage.of(tmp_path, url, "it")
    assert "secret" not in str(caught.value)


def test_a_shared_study_whose_maker_died_half_way_is_made_anew(
    postgresql: str, tmp_path: Path
) -> None:
    study_storage = StudyStorage.of(tmp_path, postgresql, "half")
    study_storage.create(OBJECTIVES, (), {})  # dies before it says of what study it is
    assert open_store(tmp_path, IDENTITY, OBJECTIVES, study_storage).records() == {}
    assert open_store(tmp_path, IDENTITY, OBJECTIVES, study_storage).records() == {}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is no URL of a database"),
        ("postgresql://", "cannot be used|is no URL"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be used: .*refused"),
        ("oracle://host/db", "needs the database's Python package"),
        ("nosuch://host/db", "cannot be used"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_sentence(
    tmp_path: Path, url: str, message: str
) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(UserError, match=message):
        open_store(tmp_path, IDENTITY, OBJECTIVES, StudyStorage.of(tmp_path, url, "it"))


def test_a_database_that_goes_away_is_a_breakdown(tmp_path: Path) -> None:
    store = open_store(tmp_path, IDENTITY, OBJECTIVES)
    store.add(make_record(0, 80.0, 0.0), [80.0, 0.0, 0.0])
    (tmp_path / "study.db").write_bytes(b"no database any more" * 1000)
    with pytest.raises(RunError, match="cannot be written"):
        store.add(make_record(1, 80.0, 0.0), [80.0, 0.0, 0.0])
    assert list(store.records()) == [0]
