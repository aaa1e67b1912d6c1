"""A task that no file of bam_search knows: a study of it runs to its page.

Its metric is better when larger, has no unit, lies between 0 and 1, and has a standard error of its
own.
"""

import json
import re
from pathlib import Path

import optuna
import pandas as pd
import pytest
from conftest import database, make_record, run_command

from bam_search import run_study
from bam_search.report.tables import records_csv

SIGNALS = Path(__file__).with_name("signals.py")
STUDY = """
question = "Where should SE go?"
task = "{task}"
space = "{task}"
trials = 6
startup = 2
seed = 4
objectives = ["metric", "params_overhead"]
references = {{ "no attention" = "none", "SE at both" = "one=se(r=4) two=se(r=4)" }}
data.validation = 0.2
recipe = {{ epochs = 5, batch = 20, precision = "fp32" }}
finalists = {{ seeds = 2, most = 2, extra = 0.0 }}
[cpu]
workers = {workers}
[gpu]
"""


def study(folder: Path, task: Path, workers: int = 1) -> Path:
    path = folder / "signals.toml"
    path.write_text(STUDY.format(task=task, workers=workers))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    return run_command(monkeypatch, "run", "--device", "cpu", *words)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_study_of_a_task_of_the_users_own_runs_to_its_page(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "--study", study(tmp_path, SIGNALS, workers), "--out", out) == 0
    said = capfd.readouterr()
    records = pd.read_csv(out / "records.csv", keep_default_na=False)
    assert set(records["data"]) == {"waves"}
    described = records[["metric_name", "unit", "larger_is_better", "decimals"]]
    assert described.drop_duplicates().values.tolist() == [["F1 of counts", "", True, 4]]
    assert records["val_metric"].between(0, 1).all()
    assert records["val_standard_error"].between(0.001, 0.2).all()
    identity = json.loads((out / "study.json").read_text())["identity"]
    assert identity["task"] == str(SIGNALS)
    assert len(identity["task_file"]) == 12
    assert identity["metric"] == {"name": "F1 of counts", "unit": "", "larger_is_better": True}
    check_words(said.out, said.err, (out / "index.html").read_text())
    assert run_command(monkeypatch, "report", out / "index.html", "--verify") == 0
    trials = optuna.load_study(study_name="study", storage=database(out / "study.db"))
    assert [direction.name for direction in trials.directions] == ["MAXIMIZE", "MINIMIZE"]
    best = max(trial.values[0] for trial in trials.trials)
    assert best == pytest.approx(records["val_metric"].max(), rel=1e-12)


def check_words(out: str, err: str, html: str) -> None:
    """The lines and the page say what was measured, with its sign and its scale."""
    assert re.search(r"val 0\.\d{3} \(SE 0\.\d{3}\)  params", err)
    assert re.search(r"test 0\.\d{4} ± 0\.\d{4} \(2\)  ", err)
    assert re.search(r"test F1 of counts 0\.\d{4}, ", out)
    page = " ".join(re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL).split())
    assert "counting waves, measured by F1 of counts: larger is better" in page
    assert "Positive is better" in page
    assert "Overhead and F1 of counts" in page
    assert "validation signals that were held out" in page
    for text in (out, err, page):
        assert not re.search(r"error, %|top-1|test error|\bpoints of\b|images?\b", text)
        assert not re.search(r"-0\.\d+ ± ", text)


@pytest.mark.slow
def test_the_same_study_from_python_recommends_the_largest_value(tmp_path: Path) -> None:
    result = run_study(study(tmp_path, SIGNALS), device="cpu", out=tmp_path / "out")
    assert result.recommendation is not None
    finals = result.findings.finals
    # With two seeds nothing is told, and what is recommended is the cheapest.
    tested = [record for record in result.records if record.is_tested]
    cheapest = min(record.macs_conv_fc for record in tested)
    assert result.recommendation.record.macs_conv_fc == cheapest
    rivals = [finals.expected(record) for record in tested if record.macs_conv_fc == cheapest]
    assert result.recommendation.expected == max(rivals)
    values = [record.val_metric or 0 for record in result.front]
    assert values == sorted(values)
    assert values[-1] == max(r.val_metric or 0 for r in result.records if r.is_main)
    assert len(values) > 1
    for compared in result.findings.comparisons.values():
        for one in compared:
            assert one.difference == one.improvement
            assert one.verdict == "unclear"  # of two seeds


@pytest.mark.slow
def test_studies_of_one_metric_are_compared_and_those_of_two_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, extra in zip(folders, ((), ("--seed", "0")), strict=True):
        path = study(tmp_path, SIGNALS)
        assert run(monkeypatch, "--study", path, "--out", folder, *extra) == 0
    capfd.readouterr()
    assert run_command(monkeypatch, "compare", *folders, "--out", tmp_path / "both") == 0
    out, err = capfd.readouterr()
    assert "F1 of counts" in out
    assert "seed (4 in first, 0 in second)" in err
    assert "Cost and F1 of counts" in (tmp_path / "both/index.html").read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "study.json").write_text((folders[0] / "study.json").read_text())
    (other / "records.csv").write_text(records_csv([make_record(0, 80.0, 0.0)]))
    assert run_command(monkeypatch, "compare", folders[0], other, "--out", tmp_path / "no") == 2
    assert (
        "the studies are not comparable: first measures F1 of counts (larger is better) "
        "and other measures top-1 error, % (smaller is better)"
    ) in capfd.readouterr().err


def test_a_value_that_is_no_number_is_a_failed_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "undefined_signals.py"
    task.write_text(SIGNALS.read_text().replace("float(f1(counts))", "float('nan')"))
    assert run(monkeypatch, "--study", study(tmp_path, task), "--out", tmp_path / "out") == 1
    assert "ValueError: measured nan" in capfd.readouterr().err


def test_a_recipe_key_that_the_task_has_no_use_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = study(tmp_path, SIGNALS)
    words = ("run", "--study", path, "--set", "recipe.augment=flip", "--dry-run")
    assert run_command(monkeypatch, *words) == 2
    assert "recipe.augment = 'flip' does nothing" in capfd.readouterr().err


def test_a_task_that_is_not_there_or_is_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty_task.py").write_text("def task():\n    return 3\n")
    for name, message in (
        ("clasification", "did you mean 'classification'?"),
        (tmp_path / "nothing.py", "there is no file"),
        (tmp_path / "empty_task.py", "returned int without"),
    ):
        words = ("run", "--study", "placement", "--set", f"task={name}", "--dry-run")
        assert run_command(monkeypatch, *words) == 2
        assert message in capfd.readouterr().err
