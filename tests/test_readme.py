"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest
from conftest import run_command

from bam_search.model.attention import registry

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_sampler_s_example_runs() -> None:
    match = re.search(r"<!-- optuna -->\n```python\n(.*?)```", README, re.DOTALL)
    assert match
    names = {"error_of": lambda placement: 30.0 - ("layer2" in placement.text)}
    exec(match[1].replace("224, 224", "32, 32"), names)
    trials = names["study"].trials  # type: ignore[attr-defined]
    assert len({tuple(trial.params.values()) for trial in trials}) == 20
    assert max(trial.values[1] for trial in trials) <= 5.0


def test_the_ten_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    match = re.search(r"<!-- attach -->\n```python\n(.*?)```", README, re.DOTALL)
    assert match
    monkeypatch.chdir(tmp_path)
    exec(match[1].replace("224, 224", "64, 64"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "layer1.0.bn3=se(r=8) layer1.1.bn3=se(r=8) layer1.2.bn3=se(r=8) layer1=bam "
    )
    assert "stages.0=bam stages.1.blocks.0.mlp=se(r=8)" in second


def test_a_module_of_the_users_runs_as_the_readme_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    match = re.search(r"<!-- own module -->\n```python\n(.*?)```", README, re.DOTALL)
    assert match
    (tmp_path / "my_module.py").write_text(match[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    command = re.search(r"python -m bam_search (count --space small --module coord.*)", README)
    assert command
    assert run_command(monkeypatch, *command[1].split()) == 0
    assert "bottleneck=coord" in capsys.readouterr().out
