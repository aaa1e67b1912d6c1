"""The command line: help without torch, and mistakes that exit with 2, in one sentence, and write nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from bam_search.cli.main import main


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom bam_search.cli.main import main\nsys.argv = ['bam_search', '--help']\ntry: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'optuna', 'pandas', 'plotly', 'numpy', 'pydantic', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Usage: python -m bam_search" in done.stdout
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run"], "Missing option '--study'"),
        (["run", "--study", "placment"], "did you mean 'placement'"),
        (["run", "--study", "placement", "--trials", "two"], "'two' is not a valid integer"),
        (["run", "--study", "placement", "--trials", "-3"], "trials = -3"),
        (["run", "--study", "placement", "--set", "recipe.lrr=1"], "did you mean 'lr'"),
        (["run", "--study", "placement", "--set", "space='resnet5'"], "did you mean 'resnet50'"),
        (["run", "--study", "placement", "--set", "references.mine='layer7=bam'"], "reference 'mine': no site is named 'layer7'"),
        (["run", "--study", "placement", "--set", "references.mine='layer1=bam(r=33)'"], "r can be 1 to 32 there"),
        (["run", "--study", "placement", "--data", "nowhere.npz"], "--data 'nowhere.npz'"),
        (["run", "--study", "placement", "--data", "broken.npz"], "broken.npz cannot be read"),
        (["rnu"], "No such command 'rnu'"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    (tmp_path / "broken.npz").write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bam_search", *args])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert message in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["broken.npz"]


def test_references_that_are_too_large_for_a_network_are_made_to_fit_and_said(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "bam_search", "run", "--study", "placement", "--dry-run", "--device", "cpu", "--space"]
    done = subprocess.run([*arguments, "torchvision:resnet18"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "space = torchvision:resnet18" in done.stdout
    assert (
        "reference 'BAM at the bottlenecks': at layer3: bam(r=16,d=4): the dilation 4 is more than the map's side, 2; bam(d=2)"
        in done.stderr
    )
    assert "reference 'BAM in every block': at layer3.0.bn2 and 1 more" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_the_study_and_writes_nothing(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "bam_search", "run", "--study", "placement", "--dry-run", "--device", "cpu", "--epochs", "3"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("placement: the cpu variant runs on ")
    assert "--device cpu asks for it" in done.stderr
    for part in ("recipe.epochs = 3", "space small: 6 sites, 14,115,049 placements", "322,140", "12,292,608", "min for 16 candidates"):
        assert part in done.stdout
    assert list(tmp_path.iterdir()) == []
