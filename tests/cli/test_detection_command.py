"""Detection from the command line: a study on generated pictures, and what comes of candidates."""

import json
from pathlib import Path

import pytest
from conftest import run_command

from bam_search.report.tables import read_records

STUDY = """
question = "Does BAM help this detector?"
task = "detection"
space = "fcos_small"
trials = 2
workers = 2
random_baseline = false
finalists = { seeds = 1, extra = 0.0 }
data = { images = 16, validation = 8 }

[recipe]
epochs = 1
batch = 8
optimizer = "adamw"
lr = 2e-3
weight_decay = 0.01

[references]
"no attention" = "none"
"BAM" = "backbone.body.layer3=bam"

[cpu]
[gpu]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study of two references on generated pictures."""
    out = tmp_path_factory.mktemp("detection")
    (out / "mine.toml").write_text(STUDY)
    args = ("--study", out / "mine.toml", "--data", "generated", "--device", "cpu")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run_command(monkeypatch, "run", *args, "--out", out / "report") == 0
    return out / "report"


@pytest.mark.slow
def test_a_study_of_detectors_speaks_of_precision(folder: Path) -> None:
    records = read_records(folder)
    assert [record.metric.name for record in records] == ["mAP", "mAP"]
    assert all(record.complete and len(record.test_metrics) == 1 for record in records)
    assert all("mAP50, %" in record.val_further for record in records)
    page = (folder / "index.html").read_text()
    assert "neck" in page
    assert "mean test mAP, %" in page
    assert "mean test top-1" not in page
    identity = json.loads((folder / "study.json").read_text())["identity"]
    assert identity["task"] == "detection"
    assert not identity["recipe"]["cuda_graph"]


@pytest.mark.slow
def test_a_candidate_is_trained_shown_and_exported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, maps, out = (folder / name for name in ("m.pt", "maps.html", "exported"))
    assert run_command(monkeypatch, "train", folder, "--candidate", 1, "--out", weights) == 0
    assert "% test mAP after 1 epoch" in capsys.readouterr().out
    shown = ("--candidate", 1, "--weights", weights)
    assert run_command(monkeypatch, "maps", folder, *shown, "--out", maps) == 0
    assert "backbone.body.layer3" in maps.read_text()
    assert run_command(monkeypatch, "export", folder, *shown, "--out", out) == 0
    assert "equal outputs" in capsys.readouterr().out
    assert run_command(monkeypatch, "export", folder, *shown, "--format", "onnx") == 2
    assert "a detector cannot be written as onnx" in capsys.readouterr().err


def test_count_tells_what_the_parts_of_a_detector_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--space", "fcos_small", "--placement", "none")
    assert run_command(monkeypatch, "count", *args) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[1] for line in lines if line.startswith("fcos_small")]
    assert names == ["backbone", "neck", "head", "none"]


def test_a_study_of_detectors_on_pictures_without_boxes_ends_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    args = ("--study", "detection", "--data", "photos", "--device", "cpu")
    assert run_command(monkeypatch, "run", *args) == 2
    assert "--data 'photos' has no annotated pictures" in capsys.readouterr().err
