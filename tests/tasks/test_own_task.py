"""A task that no file of bam_search knows: a study of it runs to its page."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import run_command

SIGNALS = Path(__file__).with_name("signals.py")
STUDY = """
question = "Where should SE go?"
task = "{task}"
space = "{task}"
trials = 4
startup = 2
objectives = ["error", "params_overhead"]
references = {{ "no attention" = "none", "SE at both" = "one=se(r=4) two=se(r=4)" }}
data.validation = 0.2
recipe = {{ epochs = 1, batch = 20, precision = "fp32" }}
finalists = {{ seeds = 2, most = 2, extra = 0.0 }}
[cpu]
workers = {workers}
[gpu]
"""


def study(folder: Path, task: Path, workers: int = 1) -> Path:
    path = folder / "signals.toml"
    path.write_text(STUDY.format(task=task, workers=workers))
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_of_a_task_of_the_users_own_runs_to_its_page(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("run", "--study", study(tmp_path, SIGNALS, workers), "--device", "cpu", "--out", out)
    assert run_command(monkeypatch, *words) == 0, capfd.readouterr().err
    records = pd.read_csv(out / "records.csv", keep_default_na=False)
    assert set(records["data"]) == {"waves"}
    assert all(records["val_error"].astype(float).between(0, 100))
    assert run_command(monkeypatch, "report", out / "index.html", "--verify") == 0
    assert "counting waves, measured by wrong counts" in (out / "index.html").read_text()
    identity = json.loads((out / "study.json").read_text())["identity"]
    assert identity["task"] == str(SIGNALS)
    assert len(identity["task_file"]) == 12


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("larger_is_better=False", "larger_is_better=True", "better when larger"),
        ('"wrong counts", "%"', '"wrong counts", "per mille"', "is in per mille"),
        ("standard_error=binomial", "standard_error=max", "is not binomial"),
    ],
)
def test_a_metric_that_would_be_taken_for_another_is_refused(
    before: str,
    after: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    task = tmp_path / "other_signals.py"
    task.write_text(SIGNALS.read_text().replace(before, after))
    assert run_command(monkeypatch, "run", "--study", study(tmp_path, task), "--dry-run") == 2
    assert message in capfd.readouterr().err


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
