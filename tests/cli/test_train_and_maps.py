"""`train` and `maps`: a candidate of a report trained again, and where its attention amplifies."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_command
from PIL import Image

from bam_search.score.data import locate
from bam_search.score.fused import fused
from bam_search.score.synthetic import generate_images

REPORT = Path(__file__).parents[2] / "reports" / "2026-11-22-placement-cpu"
BOTTLENECK = 1
"""The number of the reference candidate with BAM at the bottlenecks: layer1=bam layer2=bam."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, small_npz: Path) -> Path:
    """The committed report, as if it had been run on the small file."""
    folder = tmp_path_factory.mktemp("reports") / "study"
    shutil.copytree(REPORT, folder)
    study = json.loads((folder / "study.json").read_text())
    study["identity"]["data"] = {
        "name": "CIFAR-100",
        "digest": locate(str(small_npz)).load().digest,
        "images": None,
        "validation": 0.2,
    }
    study["identity"]["recipe"] |= {"epochs": 1, "batch": 100}
    (folder / "study.json").write_text(json.dumps(study))
    return folder


@pytest.fixture(scope="module")
def weights(report: Path, small_npz: Path) -> Path:
    """The bottleneck candidate's, trained."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert (
            run_command(
                monkeypatch, "train", report, "--candidate", BOTTLENECK, "--data", small_npz
            )
            == 0
        )
    return report / f"candidate-{BOTTLENECK}.pt"


def test_a_candidate_is_trained_the_same_again(
    report: Path,
    weights: Path,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = tmp_path / "new folder" / "again.pt"
    assert (
        run_command(
            monkeypatch,
            "train",
            report,
            "--candidate",
            BOTTLENECK,
            "--data",
            small_npz,
            "--out",
            again,
        )
        == 0
    )
    said = capsys.readouterr()
    assert re.fullmatch(
        rf"{re.escape(str(again))}: \d+\.\d\d % test error after 1 epoch, seed 1000003\n", said.out
    )
    assert "on 600 images" in said.err
    assert "the study measured" in said.err  # the report knows this seed
    one, two = (torch.load(path, weights_only=True) for path in (weights, again))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert (
        run_command(
            monkeypatch,
            "train",
            report,
            "--candidate",
            BOTTLENECK,
            "--data",
            small_npz,
            "--out",
            again,
            "--seed",
            5,
        )
        == 0
    )
    three = torch.load(again, weights_only=True)
    assert not all(torch.equal(one[key], three[key]) for key in one)
    assert "the study measured" not in capsys.readouterr().err


def test_a_candidate_of_a_fused_study_is_trained_fused(
    report: Path, weights: Path, small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(report, tmp_path / "fused")
    study = json.loads((folder / "study.json").read_text())
    study["identity"]["recipe"]["fuse"] = True
    (folder / "study.json").write_text(json.dumps(study))
    monkeypatch.setattr("bam_search.cli.train.fused", partial(fused, backend="eager"))
    out = tmp_path / "fused.pt"
    assert (
        run_command(
            monkeypatch,
            "train",
            folder,
            "--candidate",
            BOTTLENECK,
            "--data",
            small_npz,
            "--out",
            out,
        )
        == 0
    )
    one, two = (torch.load(path, weights_only=True) for path in (weights, out))
    assert not torch.equal(one["fc.weight"], two["fc.weight"])  # rounded elsewhere
    assert torch.allclose(one["fc.weight"], two["fc.weight"], atol=0.05)


def test_maps_of_test_images_and_of_own_pictures(
    report: Path,
    weights: Path,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("maps", report, "--candidate", BOTTLENECK, "--data", small_npz, "--weights", weights)
    assert run_command(monkeypatch, *words, "--count", 3) == 0
    page = report / f"candidate-{BOTTLENECK}-maps.html"
    assert capsys.readouterr().out == f"maps: {page}\n"
    assert page.read_text().count("<img ") == 3 * (1 + 2)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)).save(
        pictures / "a <b>.png"
    )
    Image.new("L", (20, 20)).save(pictures / "grey.jpg")
    assert (
        run_command(monkeypatch, *words, "--images", pictures, "--out", tmp_path / "own.html") == 0
    )
    own = (tmp_path / "own.html").read_text()
    assert own.count("<img ") == 2 * (1 + 2)
    assert "a &lt;b&gt;.png" in own


def test_mistakes_are_one_sentence_and_write_nothing(
    report: Path,
    weights: Path,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("bam_search.score.data.generate_images", lambda: generate_images(500, 200))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_text("no picture")
    out = tmp_path / "out"
    data = ("--data", small_npz, "--out", out)
    kept = ("--weights", weights)
    for words, said in (
        (
            ("train", report, "--candidate", 1, "--data", "generated", "--out", out),
            "is not what the study was run on",
        ),
        (("train", report, "--candidate", 99, *data), "has no candidate 99"),
        (("train", tmp_path, "--candidate", 1, *data), "records.csv cannot be read"),
        (("maps", report, "--candidate", 0, *data, *kept), "candidate 0 has no attention"),
        (("maps", report, "--candidate", 2, *data, *kept), "is no state dict of this candidate"),
        (
            ("maps", report, "--candidate", 1, *data, "--weights", "nowhere.pt"),
            "is no state dict of this candidate",
        ),
        (
            ("maps", report, "--candidate", 1, *data, *kept, "--images", tmp_path / "empty"),
            "there are no pictures",
        ),
        (
            ("maps", report, "--candidate", 1, *data, *kept, "--images", tmp_path / "broken"),
            "cannot be read as a picture",
        ),
    ):
        assert run_command(monkeypatch, *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
        assert not out.exists()
