"""`count` and `list`, as a user calls them."""

import json
from pathlib import Path

import pytest
from conftest import run_command

from bam_search.cli.catalogue import attention_modules
from bam_search.config import known
from bam_search.model.attention import ATTENTION, defaults
from bam_search.space.placement import Choice
from bam_search.space.search_space import space_names


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> tuple[int, str, str]:
    code = run_command(monkeypatch, *args)
    out, err = capsys.readouterr()
    return code, out, err


def test_json_has_the_schema(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = "count --space resnet50 --placement bottleneck --module bam(r=16,d=4) --json"
    code, out, err = run(monkeypatch, capsys, *args.split())
    assert (code, err) == (0, "")
    row = json.loads(out)
    assert row["schema"] == 1
    assert row["space"] == "resnet50"
    assert row["placement"] == "layer1=bam layer2=bam layer3=bam"
    assert row["params"] == 24_070_487
    assert row["macs_conv_fc"] == 1_249_456_128
    assert row["uncounted"] == []
    assert row["base"]["params"] == 23_705_252
    assert row["overhead"]["params"] == pytest.approx(100 * (24_070_487 / 23_705_252 - 1))
    assert row["macs"] == sum(row["by_operator"].values())
    counts = {"params", "macs", "macs_conv_fc", "activations"}
    assert set(row["overhead"]) == counts
    assert set(row["base"]) == counts


def test_the_table_shows_the_papers_four_and_the_audit_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "count", "--space", "small", "--audit")
    assert code == 0
    for part in (
        "none",
        "bottleneck=bam",
        "every-block=bam",
        "every-block=se",
        "322,140",
        "operators without a count, taken as 0 MACs: none",
    ):
        assert part in out


def test_placements_as_text_and_several_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = "layer1=bam layer2.0.bn2=se(r=8)"
    spaces = ("--space", "resnet18", "--space", "small")
    placements = ("--placement", mixed, "--placement", "none")
    code, out, _ = run(monkeypatch, capsys, "count", *spaces, *placements, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [(row["space"], row["placement"]) for row in rows] == [
        ("resnet18", mixed),
        ("resnet18", "none"),
        ("small", mixed),
        ("small", "none"),
    ]
    assert rows[1]["overhead"] == {"params": 0, "macs": 0, "macs_conv_fc": 0, "activations": 0}


def test_the_gate_of_an_identity_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["count", "--space", "small", "--placement", "bottleneck=bam", "--audit", "--json"]
    rows = []
    for more in ([], ["--insertion", "identity"]):
        code, out, _ = run(monkeypatch, capsys, *args, *more)
        assert code == 0
        rows.append(json.loads(out))
    assert rows[1]["params"] == rows[0]["params"] + 2
    assert rows[1]["macs"] > rows[0]["macs"]


def test_latency_is_a_ratio_with_an_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = "count --space small --placement stage-ends --latency --batch 8 --device cpu --json"
    code, out, _ = run(monkeypatch, capsys, *args.split())
    assert code == 0
    row = json.loads(out)
    for key in ("latency", "deployed_latency"):
        assert row[key]["low"] <= row[key]["ratio"] <= row[key]["high"]
    assert (row["latency"]["batch"], row["deployed_latency"]["batch"]) == (8, 1)
    memory = row["training_memory"]
    weights_gradients_and_momentum = 3 * 4 * row["base"]["params"]  # of 4 bytes each
    assert memory["bytes"] > memory["base"] > weights_gradients_and_momentum
    assert row["measured_on"]["batch"] == 8


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--space", "resnet5"], "did you mean 'resnet50'"),
        (["--placement", "layer9"], "no site is named 'layer9'"),
        (["--placement", "bottlneck"], "did you mean 'bottleneck'"),
        (["--placement", "layer1=bam layer1=se"], "names 'layer1' twice"),
        (["--placement", "stage-ends=bam bottleneck=se"], "'layer1' twice"),
        (["--placement", "layer1=bam", "--module", "se"], "leave --module out"),
        (["--module", "bam(r=0)"], "r can be 1 to 32"),
        (["--module", "bam(r=7.5)"], "r is a whole number"),
        (["--module", "bam(d=-1)"], "d is a whole number of at least 1"),
        (["--module", "bam(r=33)"], "r can be 1 to 32"),
        (["--module", "bam(combine=mul)"], "combine is one of: sum, product, max"),
        (["--module", "bamm"], "did you mean 'bam'"),
        (["--placement", "layer1.0.bn2=block"], "try the target 'stage-ends'"),
        (["--placement", "layer2=block"], "changes the shape"),
        (["--batch", "1"], "1 is not in the range"),
    ],
)
def test_a_mistake_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    space = [] if "--space" in args else ["--space", "small"]
    code, out, err = run(monkeypatch, capsys, "count", *space, *args)
    assert code == 2
    assert message in err
    assert "\n" not in err.split("error: ")[-1].split("hint: ")[0].strip() or "Usage" in err
    assert out == "" or out.startswith("space")


def test_list_names_everything_with_a_line_about_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    for name in (*space_names(), *known("studies", ".toml")):
        assert len(lines[name].split()) > 2
    assert "bam(r=16,d=4,n=2,branches=both,combine=sum,end_bn=true,norm=batch)" in out


def test_list_reads_what_the_attention_modules_say_of_themselves() -> None:
    listed = {choice.module: choice for choice, _ in attention_modules()}
    assert listed == {name: Choice.of(name, defaults(name)) for name in ATTENTION}
    assert all(text for _, text in attention_modules())


WEIGHTLESS = """
import torch
import torch.nn.functional as F
from torch import nn
from bam_search.space.search_space import SearchSpace

class Block(nn.Module):
    def __init__(self, inner, outer, stride):
        super().__init__()
        self.stride = stride
        self.register_buffer("weight", torch.ones(outer, inner, 3, 3))
    def forward(self, x):
        return F.conv2d(x, self.weight, stride=self.stride, padding=1).relu()

def net(classes):
    sizes = (3, 8, 16, classes)
    pairs = zip(sizes, sizes[1:])
    stages = [nn.Sequential(Block(a, b, 2), Block(b, b, 1), Block(b, b, 1)) for a, b in pairs]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())

def space():
    return SearchSpace("weightless", net, sites=("0", "1"))
"""
"""A network of filters that are no parameters."""


@pytest.mark.parametrize(
    "command",
    [
        "count --space weightless.py --placement 0=bam(r=4,d=1)",
        "count --space weightless.py --placement none --json",
        "run --study study.toml --dry-run --device cpu --space weightless.py",
    ],
)
def test_an_overhead_over_nothing_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    (tmp_path / "weightless.py").write_text(WEIGHTLESS)
    # Blocks without parameters are not told apart, so the study names sites.
    study = (Path(__file__).parents[2] / "studies" / "placement.toml").read_text()
    for target, site in (("bottleneck", "0"), ("every-block", "1")):
        study = study.replace(f"{target}=", f"{site}=").replace("r=16", "r=2")
    (tmp_path / "study.toml").write_text(study)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, *command.split())
    assert code == 2
    assert "the backbone has 0 parameters, and an overhead over nothing is no number" in err


SAME = """
from torch import nn

def net(classes):
    sizes = (3, 8, 16, 32)
    stages = [
        nn.Sequential(nn.Conv2d(*pair, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2))
        for pair in zip(sizes, sizes[1:])
    ]
    head = (nn.Conv2d(32, classes, 1, padding="same"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*stages, *head)
"""
"""A network of nothing but convolutions that keep the size."""


def test_convolutions_that_keep_the_size_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "same.py").write_text(SAME)
    monkeypatch.chdir(tmp_path)
    command = ("count", "--space", "same.py:net", "--placement", "none", "--json")
    code, out, _ = run(monkeypatch, capsys, *command)
    assert code == 0
    stages = 9 * (3 * 8 * 32**2 + 8 * 16 * 16**2 + 16 * 32 * 8**2)
    assert json.loads(out)["macs_conv_fc"] == stages + 32 * 100 * 4**2


def test_it_counts_at_the_size_of_the_users_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--space", "imagenet_small", "--placement", "none", "--json")
    code, out, _ = run(monkeypatch, capsys, "count", *args, "--input", "3x64x64", "--classes", "10")
    assert code == 0
    row = json.loads(out)
    assert (row["params"], row["macs_conv_fc"]) == (308_650, 12_944_640)
    code, _, err = run(monkeypatch, capsys, "count", *args, "--input", "64")
    assert code == 2
    assert "--input '64' is not CxHxW" in err


def test_a_space_that_says_what_it_takes_is_counted_at_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from bam_search.space.search_space import SearchSpace, load_space\n"
        "def space():\n"
        "    return SearchSpace('own', load_space('small').backbone, (3, 48, 48), 7)\n"
    )
    args = ("count", "--space", str(path), "--placement", "none")
    assert run(monkeypatch, capsys, *args)[0] == 0
    code, _, err = run(monkeypatch, capsys, *args, "--classes", "10")
    assert code == 2
    assert "takes (3, 48, 48) and has 7 outputs" in err
    path.write_text(path.read_text().replace(", (3, 48, 48), 7", ""))
    assert run(monkeypatch, capsys, *args, "--classes", "10")[0] == 0


def test_a_module_without_its_class_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("count", "--space", "small", "--module", "gate=my_module.py")
    code, out, err = run(monkeypatch, capsys, *args)
    assert (code, out) == (2, "")
    assert "'my_module.py' names no class in a Python file" in err


def test_a_later_placement_that_is_a_mistake_comes_without_the_rows_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--placement", "none", "--placement", "layer9=bam")
    code, out, err = run(monkeypatch, capsys, "count", "--space", "small", *args)
    assert (code, out) == (2, "")
    assert "no site is named 'layer9'" in err


def test_a_mistake_comes_without_the_table_s_header(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("count", "--space", "small", "--placement", "nowhere=bam")
    code, out, err = run(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert "no site is named 'nowhere'" in err
