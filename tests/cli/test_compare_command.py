"""`compare`, as a user calls it: on folders of reports, and on what is none."""

import json
from pathlib import Path

import pytest
from conftest import make_record, run_command

from bam_search.report.tables import records_csv


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of reports and of what is none, in the working directory.

    `one` and `two` are reports, and `deep/one` is one of another seed. `empty` has no finished
    candidate, `old` has records of another version, `broken` a broken study.json; `other` is empty.
    """
    monkeypatch.chdir(tmp_path)
    for name, seed, error in (
        ("one", 0, 80.0),
        ("two", 0, 70.0),
        ("deep/one", 1, 60.0),
        ("empty", 0, None),
        ("old", 0, 80.0),
    ):
        folder = Path(name)
        folder.mkdir(parents=True)
        params = 1000 if error == 80.0 else 2000
        record = make_record(0, error, 0.0, params=params)
        (folder / "records.csv").write_text(records_csv([record]))
        identity = {"space": "small", "seed": seed, "data": {}, "recipe": {}}
        (folder / "study.json").write_text(json.dumps({"identity": identity}))
    Path("old/records.csv").write_text("number\n0\n")
    Path("other").mkdir()
    Path("broken").mkdir()
    Path("broken/study.json").write_text("[]")


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> tuple[int, str, str]:
    code = run_command(monkeypatch, "compare", *args)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.usefixtures("reports")
def test_two_reports_become_one_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, "one", "two")
    assert (code, err) == (0, "")
    assert out.startswith("report: reports/compare/index.html\nthe joint front of 2 candidates\n")
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["one", "two"]
    assert "The joint front" in Path("reports/compare/index.html").read_text()


@pytest.mark.usefixtures("reports")
def test_other_seeds_are_warned_of_and_folders_of_one_name_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, "one", "deep/one", "--out", "page")
    assert code == 0
    difference = "seed (0 in one, 1 in deep/one)"
    assert err == (
        "warning: The values of these studies are not comparable, "
        f"as they differ in: {difference}\n"
    )
    assert difference in Path("page/index.html").read_text()


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to compare with 0 folders"),
        (["one"], "nothing to compare with 1 folder\n"),
        (["one", "two", "./one"], "one is named twice"),
        (["one", "tow"], "there is no folder 'tow'"),
        (["one", "other"], "other is not the folder of a report"),
        (["one", "broken"], "broken is not the folder of a report"),
        (["one", "old"], "records.csv is not the records.csv of a report of this version"),
        (["one", "empty"], "empty has no finished candidate"),
        (["one", "two", "--out", "one"], "one holds a study of its own"),
        (["one", "two", "--out", "empty"], "empty holds a study of its own"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    code, out, err = run(monkeypatch, capsys, *args)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("reports").exists()
    assert not Path("one/index.html").exists()
