"""The Python of README and of the how-to guides runs as it stands, on smaller images."""

import re
from pathlib import Path

import pytest
from conftest import run_command
from pages import ROOT, blocks

from bam_search.model.attention import registry

README, HOW_TO = ROOT / "README.md", ROOT / "docs" / "how_to"


def marked(page: Path, mark: str) -> str:
    """The code below a mark."""
    found = re.search(rf"<!-- {mark} -->\n```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_sampler_s_example_runs() -> None:
    names = {"error_of": lambda placement: 30.0 - ("layer2" in placement.text)}
    exec(marked(HOW_TO / "python.md", "optuna").replace("224, 224", "32, 32"), names)
    trials = names["study"].trials  # type: ignore[attr-defined]
    assert len({tuple(trial.params.values()) for trial in trials}) == 20
    assert max(trial.values[1] for trial in trials) <= 5.0


def test_attention_in_your_own_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    exec(marked(HOW_TO / "attach.md", "attach").replace("224, 224", "64, 64"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "layer1.0.bn3=se(r=8) layer1.1.bn3=se(r=8) layer1.2.bn3=se(r=8) layer1=bam "
    )
    assert "stages.0=bam stages.1.blocks.0.mlp=se(r=8)" in second


def test_the_readme_s_ten_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(marked(README, "runs").replace("224, 224", "64, 64"), {})
    sites, placement = capsys.readouterr().out.splitlines()
    assert int(sites.removesuffix(" sites")) > 50
    assert placement.startswith("layer1.0.bn3=se(r=8) ")


@pytest.mark.parametrize(
    ("page", "name"),
    [(README, "gate"), (ROOT / "docs" / "tutorials" / "your_attention.md", "coord")],
    ids=["README", "tutorial"],
)
def test_a_module_of_ones_own_is_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    page: Path,
    name: str,
) -> None:
    (module,) = (block for block in blocks(page) if block.kind == "file")
    (tmp_path / module.name).write_text(module.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    command = re.search(
        rf"python -m bam_search (count --space small --module {name}.*)", page.read_text()
    )
    assert command
    assert run_command(monkeypatch, *command[1].split()) == 0
    assert f"bottleneck={name}" in capsys.readouterr().out


def test_attention_is_still_there_after_conversion(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(HOW_TO / "distributed.md")
    exec(block.text, {})
    assert "layer1=bam" in capsys.readouterr().out
