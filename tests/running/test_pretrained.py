"""A study that starts from pretrained weights: one process trains from them, or several."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_command

from bam_search import attach, load, run_study

NET = """
from torch import nn
from .layers import Block

class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 4)
        self.stage = nn.Sequential(Block(width), Block(width))
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.stage(self.stem(x)).mean((2, 3)))
"""
LAYERS = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.bn(self.conv(x))).relu()
"""
STUDY = """
question = "Does BAM help?"
space = "small"
trials = 2
random_baseline = false
[references]
"no attention" = "none"
"BAM" = "stage.0=bam(r=4,d=1)"
[data]
images = 200
validation = 100
[recipe]
epochs = 1
batch = 100
lr = 1e-6
augment = "none"
[finalists]
seeds = 1
most = 1
leave_one_out = false
[cpu]
[gpu]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study, a model and weights of it that answer one class, 7, whatever the image."""
    for name, text in {"net.py": NET, "layers.py": LAYERS, "study.toml": STUDY}.items():
        (tmp_path / name).write_text(text)
    net = load(f"{tmp_path / 'net.py'}:Net(width=8)").backbone(100)
    net.fc.bias.data[7] = 1e4
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}},
        tmp_path / "seven.pt",
    )
    net.fc.bias.data[7] = 0
    torch.save(net.state_dict(), tmp_path / "other.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("backbone", "workers"), [(0.1, 1), pytest.param("frozen", 2, marks=pytest.mark.slow)]
)
def test_all_trainings_start_from_the_weights(
    folder: Path, small_npz: Path, backbone: Any, workers: int
) -> None:
    start = {"weights": str(folder / "seven.pt"), "insertion": "identity", "backbone": backbone}
    result = run_study(
        folder / "study.toml",
        data=small_npz,
        device="cpu",
        out=folder / "out",
        overrides={
            "space": f"{folder / 'net.py'}:Net( width = 8 )",
            "workers": workers,
            "start": start,
        },
    )
    share = float(np.mean(np.load(small_npz)["y_test"] == 7))
    tested = [value for record in result.records for value in record.test_metrics]
    assert tested == pytest.approx([100 * (1 - share)] * len(tested))
    assert tested
    plain, attended = result.records
    assert plain.val_metric == attended.val_metric
    net = load(f"{folder / 'net.py'}:Net(width=8)").backbone(100)
    attach(net, attended.placement, (3, 32, 32), init="identity")
    assert attended.params == sum(parameter.numel() for parameter in net.parameters())


def test_a_study_is_not_continued_with_other_weights(
    folder: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space = ("--space", f"{folder / 'net.py'}:Net(width=8)", "--device", "cpu")
    args = ("run", "--study", folder / "study.toml", *space, "--data", small_npz)
    out = ("--out", folder / "out")
    for name, reason in {
        "missing.pt": "there is no file",
        "study.toml": "is no file of weights",
    }.items():
        assert run_command(monkeypatch, *args, *out, "--weights", folder / name) == 2
        assert reason in capsys.readouterr().err
    assert not (folder / "out").exists()
    assert run_command(monkeypatch, *args, *out, "--weights", folder / "seven.pt") == 0
    assert "the backbone starts from" in capsys.readouterr().err
    (folder / "seven.pt").rename(folder / "moved.pt")
    assert run_command(monkeypatch, *args, *out, "--weights", folder / "moved.pt") == 0
    assert "nothing is left to train" in capsys.readouterr().err
    for other in (("--weights", folder / "other.pt"), ()):
        assert run_command(monkeypatch, *args, *out, *other) == 2
        assert "start.weights" in capsys.readouterr().err
