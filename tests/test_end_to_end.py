"""A real study with real, tiny trainings, as a user runs it.

It runs to the end, is interrupted and continued, fails, and runs on generated images.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from conftest import run_command
from held import OWN_NET, held_space

from bam_search.report.verify import verify
from bam_search.search.lock import locked
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.words import counted

TINY = [
    "--device",
    "cpu",
    "--epochs",
    "1",
    "--set",
    "data.images=400",
    "--set",
    "data.validation=100",
    "--set",
    "recipe.batch=50",
]
PLAINLY = [
    "--set",
    "finalists.seeds=1",
    "--set",
    "random_baseline=false",
    "--set",
    "finalists.leave_one_out=false",
]


PLAIN = """
question = "Does it run?"
references = { plain = "none" }
[gpu]
space = "{space}"
[cpu]
space = "{space}"
"""


EVERYTHING = """
question = "Does all of it run together?"
references = { everywhere = "every-block=bam(r=4,d=1) stage-ends=bam(r=4,d=1)" }
sampler = "additive"
trials = 8
startup = 4
workers = 1
random_baseline = true
rungs = { epochs = [1], margin = 0.0, control = 0.0 }
finalists = { seeds = 2, most = 3, extra = 0.1, leave_one_out = true }
[gpu]
space = "mine.py:MyNet"
[cpu]
space = "mine.py:MyNet"
"""


def command(
    data: Path | str,
    *args: object,
    study: Path | str = "placement",
    plainly: Sequence[str] = PLAINLY,
) -> list[str]:
    return [
        sys.executable,
        "-m",
        "bam_search",
        "run",
        "--study",
        str(study),
        "--data",
        str(data),
        *TINY,
        *plainly,
        *map(str, args),
    ]


def here(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int = 0,
) -> tuple[str, str]:
    """Run a command in this process; return what it wrote to stdout and stderr.

    This process has imported everything already, so it is fast.
    """
    monkeypatch.setattr(signal, "signal", lambda *_args: None)
    found = run_command(monkeypatch, *arguments[3:])
    out, err = capsys.readouterr()
    assert found == code, err
    return out, err


MINE = f"""{OWN_NET}

def two_outputs(num_classes):
    class Two(MyNet):
        def forward(self, x):
            return super().forward(x), x
    return Two(num_classes)
"""


def test_a_model_of_the_users_own_is_searched_without_touching_the_package(
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.py").write_text(MINE)
    words = command(small_npz, "--space", "elsewhere/mine.py:MyNet", "--trials", 6, "--workers", 1)
    _, err = here(words, monkeypatch, capsys)
    first, second, third = err.splitlines()[:3]
    assert re.fullmatch(r"placement: the \w+ variant runs on .*; data: .*", first)
    assert second == "measuring how fast this device trains ..."
    assert re.fullmatch(r"about [\d.]+ (s|min) in all", third)
    records = table(tmp_path / "reports" / "placement")
    assert list(records["placement"][:4]) == [
        "none",
        "one=bam",
        "one.norm=bam two.norm=bam",
        "one.norm=se two.norm=se",
    ]
    assert len(set(records["id"])) == 6
    assert (records["val_metric"].astype(float) > 0).all()

    _, err = here(
        command(small_npz, "--space", "elsewhere/mine.py:two_outputs", "--out", "other"),
        monkeypatch,
        capsys,
        code=2,
    )
    assert "returns tuple for 2 samples" in err
    assert not (tmp_path / "other").exists()

    assert run_command(monkeypatch, "export", "reports/placement", "--candidate", 5) == 0
    assert "equal outputs" in capsys.readouterr().out


def plain_study(folder: Path, space: str) -> Path:
    """A study file of the user's own, with one reference."""
    path = folder / "plain.toml"
    path.write_text(PLAIN.replace("{space}", space))
    return path


def table(folder: Path, name: str = "records.csv") -> pd.DataFrame:
    return pd.read_csv(folder / name, keep_default_na=False)


def test_a_study_is_stopped_continued_extended_and_reported(
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("reports/placement")
    space = ("--space", held_space(tmp_path))
    whole = command(small_npz, *space, "--trials", 8, "--workers", 2)
    Path("hold").touch()
    process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(6)]
    assert run_command(monkeypatch, "status", folder) == 0
    said = capsys.readouterr().out
    assert f"running as process {process.pid} on " in said
    assert re.search(r"^search: \d+ of \d+ done; about .+ left in all$", said, re.M)
    assert run_command(monkeypatch, "stop", folder) == 0
    assert (
        f"stopped process {process.pid}; the same command continues: python -m bam_search run"
        in capsys.readouterr().out
    )
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert lines[0].startswith("placement: the cpu variant runs on ")
    assert "data: cifar100, " in lines[0]
    assert "interrupted by SIGTERM; finished candidates are kept" in rest
    assert "Traceback" not in rest
    assert out == ""
    before = table(folder)
    assert 2 <= len(before) <= 4
    Path("hold").unlink()
    assert run_command(monkeypatch, "stop", folder) == 2
    assert run_command(monkeypatch, "status", folder) == 0
    assert (
        "interrupted by SIGTERM\nto continue: python -m bam_search run" in capsys.readouterr().out
    )

    # One worker goes on, in this process, where two have begun.
    out, err = here([*whole, "--workers", "1"], monkeypatch, capsys)
    assert f"continuing in reports/placement: {len(before)} of 8 candidates are finished" in err
    after = table(folder)
    assert list(after["number"]) == list(range(8))
    kept = after[after["number"].isin(before["number"])].reset_index(drop=True)
    # Finished candidates were not trained again: even their seconds are the same.
    columns = ["number", "placement", "val_metric", "train_losses", "seconds"]
    pd.testing.assert_frame_equal(before[columns], kept[columns])
    assert list(after["name"][:4]) == [
        "no attention",
        "BAM at the bottlenecks",
        "BAM in every block",
        "SE in every block",
    ]
    assert set(after["data"]) == {"cifar100"}
    assert [len(json.loads(errors)) for errors in after["test_metrics"][:4]] == [1] * 4
    timed = after["latency_overhead"] != ""
    assert list(timed) == list(after["test_metrics"] != "[]")
    assert all(low <= high for low, high in map(json.loads, after["latency_interval"][timed]))
    assert set(after["origin"]) == {"reference", "search"}
    assert set(table(folder, "front.csv")["number"]) <= set(after["number"])
    assert out.startswith("report: reports/placement/index.html")
    assert "plotly" in (folder / "index.html").read_text()
    assert not verify(folder / "index.html").wrong

    with locked(folder, "run --study it"):
        _, second = here(whole, monkeypatch, capsys, code=2)
    assert f"error: reports/placement is driven by process {os.getpid()} on " in second
    assert second.splitlines()[-2].endswith(": run --study it")
    _, again = here(whole, monkeypatch, capsys)
    assert not re.search(r"^\[", again, re.M)
    assert "\nnothing is left to train\n" in again
    assert table(folder).equals(after)
    assert run_command(monkeypatch, "status", folder, "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["runs"], status["process"]["ended"], status["candidates"]) == (
        False,
        "finished",
        {"reference": 4, "search": 4},
    )

    # One worker trains the same candidates as two did, and without an interruption.
    one_worker = command(small_npz, *space, "--trials", 5, "--workers", 1, "--out", "one")
    here(one_worker, monkeypatch, capsys)
    same = ["placement", "params", "macs", "val_samples", "epoch_metrics", "train_losses"]
    one = table(Path("one"))
    pd.testing.assert_frame_equal(one[same], after[:5][same])
    assert set(before["number"]) & set(one["number"])

    # Another question is never mixed in; both ways out are open.
    other = [*one_worker, "--set", "recipe.lr=0.2"]
    _, refused = here(other, monkeypatch, capsys, code=2)
    assert "recipe.lr: 0.1 there, 0.2 now" in refused
    assert "--name" in refused
    out, err = here([*other, "--force-new"], monkeypatch, capsys)
    aside = [
        path
        for path in Path().glob("one-before-*")
        if f"the study that was there is now {path.resolve()}" in err
    ]
    assert len(table(aside[0])) == len(table(Path("one"))) == 5


@pytest.mark.slow
def test_rungs_random_arm_several_seeds_and_leaving_out_together(
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "all.toml").write_text(EVERYTHING)
    monkeypatch.chdir(tmp_path)
    arguments = command(
        small_npz, "--epochs", 2, "--set", "data.images=500", study="all.toml", plainly=()
    )
    out, _ = here(arguments, monkeypatch, capsys)
    folder = tmp_path / "reports" / "all"
    records = table(folder)
    own, drawn, without = (
        records[records["origin"].isin(kinds)]
        for kinds in (["reference", "search"], ["random"], ["ablation"])
    )
    assert list(own["number"]) == list(range(8))

    # Every candidate has its short training; who was stopped has no long one.
    assert [len(json.loads(errors)) for errors in own["rung_metrics"]] == [1] * 8
    assert ((own["stopped"] != "") == (own["val_metric"] == "")).all()
    spent, stopped = (
        sum(1 + 2 * (error != "") for error in own["val_metric"][1:]),
        sum(own["stopped"] != ""),
    )

    # The random baseline has the same cost, and no rungs.
    assert len(drawn) == -(-spent // 2) - 4
    assert set(drawn["rung_metrics"]) == {"[]"}
    assert (drawn["val_metric"] != "").all()

    # The reference is the most expensive, and with two seeds nothing is told: the cheapest of
    # the expected front is recommended, and trained without each of its sites.
    tested = records[records["test_metrics"] != "[]"]
    assert {tuple(json.loads(seeds)[:2]) for seeds in tested["test_seeds"]} == {
        (1_000_003, 1_000_004)
    }
    assert {len(json.loads(errors)) for errors in tested["test_metrics"]} <= {2, 3}
    assert {0, *without["number"]} <= set(tested["number"])
    assert len(set(without["name"].str.extract(r"^#(\w+) without ")[0])) <= 1
    found = re.search(
        r"^Recommended, as the cheapest .*: (.*) \((.*)\), test top-1 error", out, re.M
    )
    assert found
    assert found[1] in set(tested["placement"])
    assert re.search(r"^  cannot be told from everywhere.*: .*, n = [23]\)$", out, re.M)
    assert set(table(folder, "front.csv")["origin"]) <= {"reference", "search"}

    html = (folder / "index.html").read_text()
    assert not verify(folder / "index.html").wrong
    for heading in (
        "The finalists",
        "Against the references",
        "Where attention helps",
        "What stopping early did",
    ):
        assert f"<h2>{heading}</h2>" in html
    assert f"Rungs stopped {counted(stopped, 'candidate')}: the search took " in html

    _, err = here(arguments, monkeypatch, capsys)  # once more: nothing is left to train
    assert "continuing in reports/all: 8 of 8 candidates are finished" in err
    assert not re.search(r"^\[", err, re.M)
    assert table(folder).equals(records)


def test_generated_images_are_said_to_be_no_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "bam_search.tasks.classification.cifar100.generate_images",
        lambda: generate_images(600, 300),
    )
    out, err = here(
        command("generated", "--trials", 2, study=plain_study(tmp_path, "small")),
        monkeypatch,
        capsys,
    )
    folder = Path("reports/plain-generated")
    assert "NOT CIFAR-100" in err.splitlines()[1]
    assert "NOT CIFAR-100" in out
    assert "NOT CIFAR-100" in (folder / "index.html").read_text().split("The answer")[0]
    assert set(table(folder)["data"]) == {"generated images, NOT CIFAR-100"}
    described = json.loads((folder / "study.json").read_text())
    assert described["identity"]["data"]["name"] == "generated images, NOT CIFAR-100"
    assert described["source"] == "generated"  # where `train` and `maps` look for the data


def test_when_every_candidate_fails_the_study_says_so(
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    space = tmp_path / "broken.py"
    space.write_text(
        "import torch\nfrom torch import nn\n"
        "from bam_search.space.search_space import SearchSpace\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.layer1 = nn.Sequential(nn.Sequential(nn.Conv2d(3, 100, 3)))\n"
        "    def forward(self, x):\n"
        "        if self.training and torch.is_grad_enabled():\n"
        "            raise RuntimeError('deliberate')\n"
        "        return self.layer1(x).mean((2, 3))\n\n"
        "def space():\n    return SearchSpace('broken', lambda classes: Net(), sites=('layer1',))\n"
    )
    _, err = here(
        command(small_npz, "--trials", 2, study=plain_study(tmp_path, str(space))),
        monkeypatch,
        capsys,
        code=1,
    )
    assert "no candidate could be trained; the first failed with: RuntimeError: deliberate" in err
    assert "Traceback" not in err
    assert "RuntimeError: deliberate" in (tmp_path / "reports" / "plain" / "index.html").read_text()


@pytest.mark.slow
def test_a_small_net_learns_the_real_cifar100(
    tmp_path: Path,
    real_cifar: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    images = ("--set", "data.images='all'", "--set", "data.validation=0.1")
    options = ("--trials", 1, "--workers", 1, "--epochs", 20, *images)
    here(command(real_cifar, *options, study=plain_study(tmp_path, "small")), monkeypatch, capsys)
    # 2,000 images are few; chance is 99 %.
    assert json.loads(table(Path("reports/plain"))["test_metrics"][0])[0] < 93
