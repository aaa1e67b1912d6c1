"""`report`: a study's page made anew, finished or running; a page checked.

It needs no torch, as no command that only looks at studies does.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_record, run_command
from studied import OBJECTIVES, RECORDS, measured, written

from bam_search.search.lock import locked
from bam_search.search.store import Store, open_store
from bam_search.study.record import Record


def add(store: Store, records: list[Record]) -> None:
    for record in records:
        values = [record.objective(key) for key in OBJECTIVES] if record.complete else []
        store.add(record, values)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A study with one finished candidate, and a page made before there was any."""
    store = open_store(tmp_path / "study", {"space": "small"}, OBJECTIVES)
    written(store.folder, [])
    add(store, [make_record(1, 80.0, 1.0)])
    return store


def test_the_page_of_a_running_study_is_made_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = store.folder / "index.html"
    assert "layer1=bam" not in page.read_text()
    assert run_command(monkeypatch, "report", store.folder) == 0
    assert "layer1=bam" in page.read_text()
    assert capsys.readouterr().out == f"report: {page}\n"
    assert run_command(monkeypatch, "report", store.folder, "--plotlyjs", "cdn") == 0
    assert len(page.read_text()) < 200_000
    assert run_command(monkeypatch, "report", store.folder, "--verify") == 0


def test_a_page_says_that_its_study_runs_and_then_how_it_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = store.folder / "index.html"
    with locked(store.folder, "run --study tiny") as status:
        status.tell(stage="search", done=12, total=40)
        assert run_command(monkeypatch, "report", store.folder) == 0
        assert '<p class="state">Running, 12 of 40 (search), at ' in page.read_text()
        status.tell(ended="failed: the disk is full")
    assert run_command(monkeypatch, "report", store.folder) == 0
    assert "Failed: the disk is full, 12 of 40 (search)" in page.read_text()


def test_watching_writes_again_when_there_is_something_new(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            add(store, [make_record(2, 70.0, 2.0, **measured(71.0))])
        if len(slept) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert run_command(monkeypatch, "report", store.folder, "--watch", 5) == 130
    assert slept == [5] * 4
    assert capsys.readouterr().out == f"report: {store.folder / 'index.html'}\n2 candidates\n"
    assert "layer2=bam" in (store.folder / "index.html").read_text()


def test_a_page_that_was_changed_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = written(tmp_path, RECORDS)
    assert run_command(monkeypatch, "report", page, "--verify") == 0
    assert "follows from the 12 records" in capsys.readouterr().out
    page.write_text(page.read_text().replace("<td>72.20</td>", "<td>62.20</td>"))
    assert run_command(monkeypatch, "report", page, "--verify") == 1
    said = capsys.readouterr()
    assert said.out.startswith("'The finalists': ")
    assert "62.20" in said.out
    assert "does not follow from its own records" in said.err


def test_a_page_is_made_again_from_its_own_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, copy = written(tmp_path, RECORDS), tmp_path / "copy.html"
    text = page.read_text()
    assert run_command(monkeypatch, "report", page, "--out", copy, "--plotlyjs", "cdn") == 0
    assert capsys.readouterr().out == f"report: {copy}\n"
    assert page.read_text() == text
    assert len(copy.read_text()) < 200_000
    assert run_command(monkeypatch, "report", copy) == 0
    assert copy.read_text() == text


def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, RECORDS)
    for words, said in (
        ((tmp_path,), "holds no study.db"),
        ((tmp_path, "--out", "x"), "--out goes with a page"),
        ((tmp_path / "index.html", "--watch", 5), "--watch goes with a study's folder"),
        ((tmp_path / "index.html", "--out", tmp_path / "no" / "x"), "cannot be written"),
        ((tmp_path / "nowhere",), "cannot be read"),
        ((tmp_path / "nowhere", "--verify"), "cannot be read"),
        ((tmp_path / "records.csv", "--verify"), "is not the page of a report"),
    ):
        assert run_command(monkeypatch, "report", *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "hint:" in error
        assert "Traceback" not in error


WITHOUT_TRIALS = (
    "list",
    "compare study other",
    "report study --verify",
    "report other/index.html --plotlyjs cdn --out page.html",
)
WITH_TRIALS = ("status study", "status study --json", "report study")
RUN_EACH_AND_NAME_WHAT_IS_IMPORTED = """
import sys
from bam_search.cli.main import main
for command in sys.argv[1:]:
    sys.argv = ["bam_search", *command.split()]
    try:
        main()
    except SystemExit as done:
        assert not done.code, command
    print(">", [n for n in ("torch", "torchvision", "fvcore", "optuna") if n in sys.modules])
"""


def test_commands_that_only_look_at_studies_import_no_torch(store: Store) -> None:
    written(store.folder, list(store.records().values()))
    shutil.copytree(store.folder, store.folder.with_name("other"))
    code = RUN_EACH_AND_NAME_WHAT_IS_IMPORTED
    done = subprocess.run(
        [sys.executable, "-c", code, *WITHOUT_TRIALS, *WITH_TRIALS],
        cwd=store.folder.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    imported = [line for line in done.stdout.splitlines() if line.startswith(">")]
    expected = ["> []"] * len(WITHOUT_TRIALS) + ["> ['optuna']"] * len(WITH_TRIALS)
    assert imported == expected
