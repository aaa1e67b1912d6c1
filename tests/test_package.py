"""The wheel, built from the source distribution, works in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package of a wheel that was built from the source distribution."""
    built, target = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    run = {"check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-m", "build", "-o", built, ROOT], **run)
    assert len(list(built.glob("*.tar.gz"))) == 1
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, wheel]
    subprocess.run(pip, **run)
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["count", "--space", "torchvision_resnet50", "--input", "3x32x32"],
        ["run", "--study", "placement", "--smoke", "--device", "cpu", "--data", "generated"],
    ],
    ids=lambda words: words[0],
)
def test_the_wheel_works_in_an_empty_folder(
    installed: Path, tmp_path: Path, words: list[str]
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "bam_search", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    where = [sys.executable, "-c", "import bam_search; print(bam_search.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(installed))
