"""`sites`: every submodule is listed once, with its site and cost or the reason against it."""

import json
from pathlib import Path

import pytest
from conftest import run_command

from bam_search.cli.main import parse_shape


def test_the_table_names_every_submodule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "sites", "small") == 0
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines()}
    stage_end = "layer1 32 16x16 0 stage-ends bottleneck 451 35,456"
    assert lines["layer1"].split() == stage_end.split()
    in_block = "layer1.0.bn2 32 16x16 0 layer1.0 every-block 451 35,456"
    assert lines["layer1.0.bn2"].split() == in_block.split()
    assert lines["layer1.0.relu"].endswith("is called 2 times in one pass")
    assert lines["fc"].endswith("returns vectors (B, C), not a feature map")
    assert "3 BasicBlock" in err
    assert "stages end at: layer1, layer2, layer3" in err


def test_costs_and_reasons_depend_on_the_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = "sites torchvision:resnet18 --input 3x32x32 --target /layer[14]/ --json"
    assert run_command(monkeypatch, *args.split()) == 0
    first, last = json.loads(capsys.readouterr().out)
    assert (first["name"], first["height"]) == ("layer1", 8)
    assert (first["bam_params"], first["why_not"]) == (1429, "")
    assert (last["name"], last["bam_params"]) == ("layer4", None)
    assert "dilation 4 is more than the map's side, 1" in last["why_not"]


def test_costs_are_of_all_calls_of_a_shared_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "twice.py"
    path.write_text(
        "from bam_search import load\nfrom torch import nn\nclass Twice(nn.Module):\n"
        "    def __init__(self, n):\n        super().__init__()\n"
        "        self.net = load('small').backbone(n)\n"
        "    def forward(self, x):\n        return self.net(x) + self.net(x.flip(3))\n"
    )
    command = f"sites {path}:Twice --target net.layer1 --json"
    assert run_command(monkeypatch, *command.split()) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["bam_params"], row["bam_macs_conv_fc"]) == (451, 2 * 35_456)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing"], "there is no 'nothing'"),
        (["small", "--input", "3"], "--input '3' is not CxHxW"),
        (["small", "--input", "3x3²x32"], "--input '3x3²x32' is not CxHxW"),
        (["small", "--input", "1x32x32"], "cannot run on images of shape (1, 32, 32)"),
        (["small", "--target", "layer9"], "no site is named 'layer9'"),
        (["small", "--target", "/(/"], "is no regular expression"),
    ],
)
def test_a_mistake_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    assert run_command(monkeypatch, "sites", *args) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


@pytest.mark.parametrize(
    ("text", "shape"),
    [("3x32x48", (3, 32, 48)), ("1x16000", (1, 16000)), ("1x8X8x8", (1, 8, 8, 8))],
)
def test_the_input_may_be_a_sequence_or_a_volume(text: str, shape: tuple[int, ...]) -> None:
    assert parse_shape(text) == shape
