"""`export`: what it writes works without the report, and a difference is not passed over."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_command
from studied import FAILED, RECORDS, written

from bam_search.model.attach import attach
from bam_search.model.build import backbone
from bam_search.space.placement import Placement
from bam_search.space.search_space import load_space

REPORT = Path(__file__).parents[2] / "reports" / "2026-11-27-placement-cpu"
BOTTLENECK = 1
"""The number of the reference candidate with BAM at the bottlenecks: layer1=bam layer2=bam."""


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
def test_all_that_is_written_is_the_candidate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = backbone(load_space("small"), seed=5)
    attach(net, "bottleneck=bam", (3, 32, 32))
    torch.save(net.state_dict(), tmp_path / "trained.pt")
    out = tmp_path / "some where"
    args = ("--candidate", BOTTLENECK, "--out", out, "--weights", tmp_path / "trained.pt")
    formats = ("--format", "pt2", "--format", "onnx")
    assert run_command(monkeypatch, "export", REPORT, *args, *formats) == 0
    written = {path.name for path in out.iterdir() if path.is_file()}
    written.discard("model.onnx.data")  # the weights, where the exporter writes them apart
    assert written == {"placement.json", "model.py", "model.pt2", "model.onnx"}
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert Placement.from_json((out / "placement.json").read_text()).text == "layer1=bam layer2=bam"
    done = subprocess.run(
        [sys.executable, out / "model.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "322,140 parameters\n"
    x = torch.rand(3, 3, 32, 32)  # another batch than the one it was exported with
    torch.testing.assert_close(
        torch.export.load(out / "model.pt2").module()(x), net.eval()(x), rtol=1e-4, atol=1e-4
    )


def test_without_a_candidate_the_recommended_one_is_exported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    written(tmp_path, RECORDS)  # an ablation, by the name that the run and the report give it
    shutil.copy(REPORT / "study.json", tmp_path)
    assert run_command(monkeypatch, "export", tmp_path) == 0
    placement = tmp_path / "candidate-A2001" / "placement.json"
    assert Placement.from_json(placement.read_text()).text == "layer1=bam"
    written(tmp_path, [FAILED])
    assert run_command(monkeypatch, "export", tmp_path) == 2
    assert f"the report in {tmp_path} recommends nothing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["3", "#3", "SE in every block"])
def test_a_candidate_has_the_name_that_the_page_gives_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    shutil.copytree(REPORT, tmp_path / "report")
    assert run_command(monkeypatch, "export", tmp_path / "report", "--candidate", name) == 0
    assert (tmp_path / "report" / "candidate-3" / "placement.json").is_file()


@pytest.mark.parametrize(
    ("folder", "args", "message"),
    [
        (REPORT, ["--candidate", "99"], "has no candidate '99'"),
        (REPORT.parent, ["--candidate", "0"], "records.csv cannot be read"),
        (
            REPORT,
            ["--candidate", "0", "--weights", "nowhere.pt"],
            "there is no file 'nowhere.pt'",
        ),
        (
            REPORT,
            ["--candidate", "0", "--weights", str(REPORT / "study.json")],
            "study.json is no file of weights",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    folder: Path,
    args: list[str],
    message: str,
) -> None:
    assert run_command(monkeypatch, "export", folder, *args, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_space_may_be_a_file_whose_space_has_another_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(REPORT, tmp_path / "report")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom bam_search.space.search_space import load_space\n\n"
        "def space():\n    return replace(load_space('small'), name='another')\n"
    )
    study = (tmp_path / "report" / "study.json").read_text()
    (tmp_path / "report" / "study.json").write_text(
        study.replace('"space": "small"', '"space": "mine.py"')
    )
    monkeypatch.chdir(tmp_path)
    assert run_command(monkeypatch, "export", "report", "--candidate", BOTTLENECK) == 0
    assert "equal outputs" in capsys.readouterr().out


def test_what_a_record_says_of_its_metric_is_not_executed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(REPORT, tmp_path / "report")
    records = tmp_path / "report" / "records.csv"
    attack = 'error\\"""\nraise SystemExit("executed")\n"""'
    cell = '"' + attack.replace('"', '""') + '"'
    records.write_text(records.read_text().replace("top-1 error", cell))
    args = ("--candidate", BOTTLENECK, "--out", tmp_path / "out")
    assert run_command(monkeypatch, "export", tmp_path / "report", *args) == 0
    module = ast.parse((tmp_path / "out" / "model.py").read_text())
    assert attack in (ast.get_docstring(module, clean=False) or "")
    assert not any(isinstance(statement, ast.Raise) for statement in module.body)


def test_a_damaged_report_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(REPORT, tmp_path / "report")
    (tmp_path / "report" / "records.csv").write_text("number,placement\n1,layer1=bam\n")
    assert run_command(monkeypatch, "export", tmp_path / "report", "--candidate", 1) == 2
    assert "is not the records.csv of a report of this version" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").write_text("a file")
    assert run_command(monkeypatch, "export", REPORT, "--out", tmp_path / "there") == 2
    assert "cannot be a folder: File exists" in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "a file"
