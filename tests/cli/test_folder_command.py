"""A dry run opens a folder of images: what it says of it, and that it ends where it is broken."""

from pathlib import Path

import pytest
from conftest import run_command
from photos import fill

from bam_search.tasks.pictures import cache

DRY = ("run", "--study", "placement", "--device", "cpu", "--dry-run")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos" / "train", 40)
    fill(tmp_path / "photos" / "val", 4, first=130)
    return tmp_path / "photos"


def test_a_dry_run_packs_and_tells(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(15):
        (photos / "train" / "cat" / f"{80 + number:03}.png").unlink()
    (photos / "train" / "ant" / "000.png").write_bytes(b"")
    words = ("--data", "photos", "--set", "data.skip_unreadable=true", "--set", "data.size=16")
    assert run_command(monkeypatch, *DRY, *words) == 0
    err = capsys.readouterr().err
    assert "photos: 104 images to train and 12 to test (train/ and val/), 3 classes" in err
    assert "all pictures are 20x24 px" in err
    assert "1 picture is unreadable and left out, such as train/ant/000.png (it is empty)" in err
    assert list((photos.parent / "cache").glob("*.npy"))
    assert sorted(path.name for path in photos.parent.iterdir()) == ["cache", "photos"]


def test_an_unreadable_picture_ends_a_dry_run(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train" / "ant" / "000.png").write_bytes(b"")
    assert run_command(monkeypatch, *DRY, "--data", "photos") == 2
    err = capsys.readouterr().err
    assert "error: 1 picture is unreadable: train/ant/000.png: it is empty" in err
    assert "hint: mend or remove" in err
