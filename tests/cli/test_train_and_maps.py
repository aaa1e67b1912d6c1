"""`train` and `maps`: a candidate of a report trained again, and where its attention amplifies."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_command
from PIL import Image

from bam_search.cli.maps import _flat, _size
from bam_search.errors import UserError
from bam_search.model.build import backbone
from bam_search.model.weights import fit_weights
from bam_search.report.gallery import overlay
from bam_search.score.fused import fused
from bam_search.space.search_space import load_space
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.classification.synthetic import generate_images

REPORT = Path(__file__).parents[2] / "reports" / "2026-11-27-placement-cpu"
BOTTLENECK = 1
"""The number of the reference candidate with BAM at the bottlenecks: layer1=bam layer2=bam."""


def test_gains_of_sequences_and_volumes_are_pictures() -> None:
    gain = np.arange(12.0).reshape(2, 6)
    assert _flat(gain).shape == (2, 1, 6)
    assert _flat(gain[:, None]).shape == (2, 1, 6)
    assert (_flat(np.stack([gain[:, None], gain[:, None] + 2], 1))[:, 0] == gain + 1).all()
    for flat in _flat(gain):
        pixels = np.zeros((4, 12, 3), dtype=np.uint8)
        assert overlay(pixels, flat, 0, 11).shape == pixels.shape
    with pytest.raises(UserError, match=r"pictures are no inputs of shape \(1, 16000\)"):
        _size((1, 16000))
    assert _size((3, 32, 48)) == (48, 32)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, small_npz: Path) -> Path:
    """The committed report, as if it had been run on the small file."""
    folder = tmp_path_factory.mktemp("reports") / "study"
    shutil.copytree(REPORT, folder)
    with study_of(folder) as study:
        study["identity"]["data"] = {
            "name": "CIFAR-100",
            "digest": locate(str(small_npz)).load().digest,
            "images": "all",
            "validation": 0.2,
        }
        study["identity"]["recipe"] |= {"epochs": 1, "batch": 100}
    return folder


@contextmanager
def study_of(folder: Path) -> Iterator[dict[str, Any]]:
    """What study.json says, to be changed there."""
    path = folder / "study.json"
    study = json.loads(path.read_text())
    yield study
    path.write_text(json.dumps(study))


@pytest.fixture(scope="module")
def weights(report: Path, small_npz: Path) -> Path:
    """The trained weights of the bottleneck candidate."""
    args = ("--candidate", BOTTLENECK, "--data", small_npz)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run_command(monkeypatch, "train", report, *args) == 0
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
    args = ("--candidate", BOTTLENECK, "--data", small_npz, "--out", again)
    assert run_command(monkeypatch, "train", report, *args) == 0
    out, err = capsys.readouterr()
    path = re.escape(str(again))
    assert re.fullmatch(
        rf"{path}: \d+\.\d\d % test top-1 error after 1 epoch, seed 1000003, "
        r"top-5 error, %: \d+\.\d\d\n",
        out,
    )
    assert "on 600 images" in err
    assert "the study measured" in err  # the report knows this seed
    takes = json.loads(again.with_name("again.pt.json").read_text())
    pixels = np.load(small_npz)["x_train"] / 255
    assert takes["mean"] == pytest.approx(pixels.mean((0, 1, 2)), abs=2e-5)
    assert takes["std"] == pytest.approx(pixels.std((0, 1, 2)), abs=2e-5)
    assert (takes["input_size"], takes["crop_pct"]) == ([3, 32, 32], 1.0)
    assert len(takes["label_names"]) == 100
    exported = ("export", report, "--candidate", BOTTLENECK, "--weights", again)
    assert run_command(monkeypatch, *exported, "--out", tmp_path / "exported") == 0
    assert json.loads((tmp_path / "exported" / "preprocessing.json").read_text()) == takes
    capsys.readouterr()
    one = torch.load(weights, weights_only=True)
    two = torch.load(again, weights_only=True)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert run_command(monkeypatch, "train", report, *args, "--seed", 5) == 0
    three = torch.load(again, weights_only=True)
    assert not all(torch.equal(one[key], three[key]) for key in one)
    assert "the study measured" not in capsys.readouterr().err


def test_the_data_are_looked_for_where_the_study_found_them(
    report: Path,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(report, tmp_path / "study")
    with study_of(folder) as study:
        study["source"] = "mine.npz"
    monkeypatch.chdir(tmp_path)
    args = ("train", folder, "--candidate", BOTTLENECK)
    assert run_command(monkeypatch, *args) == 2
    said = capsys.readouterr().err
    assert "the study's data: --data 'mine.npz': there is no such file" in said
    assert "name the data that the study was run on with --data" in said
    shutil.copy(small_npz, "mine.npz")
    assert run_command(monkeypatch, *args) == 0
    assert "on 600 images" in capsys.readouterr().err


def test_a_candidate_starts_from_the_weights_of_its_study(
    report: Path,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Frozen, so that all but the head and the attention are the same afterwards."""
    folder = shutil.copytree(report, tmp_path / "started")
    pretrained, other = (backbone(load_space("small"), seed) for seed in (8, 9))
    torch.save({"model": pretrained.state_dict()}, tmp_path / "pretrained.pt")
    torch.save(other.state_dict(), tmp_path / "other.pt")
    digest = fit_weights(pretrained, tmp_path / "pretrained.pt").digest
    with study_of(folder) as study:
        study["identity"]["start"] = {
            "weights": digest,
            "insertion": "identity",
            "backbone": "frozen",
        }
    args = ("train", folder, "--candidate", BOTTLENECK, "--data", small_npz)
    assert run_command(monkeypatch, *args) == 2
    assert run_command(monkeypatch, *args, "--weights", tmp_path / "other.pt") == 2
    assert f"started from weights of sha256 {digest}, not from" in capsys.readouterr().err
    assert run_command(monkeypatch, *args, "--weights", tmp_path / "pretrained.pt") == 0
    trained = torch.load(folder / f"candidate-{BOTTLENECK}.pt", weights_only=True)
    state = pretrained.state_dict()
    changed = {key for key in state if not torch.equal(state[key], trained[key])}
    assert changed == {"fc.weight", "fc.bias"}
    assert all(abs(float(trained[f"layer{i}.attention.gate"])) > 0 for i in (1, 2))
    written = ("--weights", folder / f"candidate-{BOTTLENECK}.pt")
    assert run_command(monkeypatch, "export", folder, "--candidate", BOTTLENECK, *written) == 0


def test_a_candidate_of_a_fused_study_is_trained_fused(
    report: Path, weights: Path, small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(report, tmp_path / "fused")
    with study_of(folder) as study:
        study["identity"]["recipe"]["fuse"] = True
    monkeypatch.setattr("bam_search.score.evaluate.fused", partial(fused, backend="eager"))
    out = tmp_path / "fused.pt"
    args = ("--candidate", BOTTLENECK, "--data", small_npz, "--out", out)
    assert run_command(monkeypatch, "train", folder, *args) == 0
    one = torch.load(weights, weights_only=True)
    two = torch.load(out, weights_only=True)
    assert not torch.equal(one["fc.weight"], two["fc.weight"])  # rounded elsewhere
    assert torch.allclose(one["fc.weight"], two["fc.weight"], atol=0.05)


def test_maps_of_test_images_and_of_a_users_pictures(
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
    html = page.read_text()
    assert html.count("<img ") == 3 * (1 + 2)
    labels = np.load(small_npz)["y_test"]
    for number in (0, 150, 299):  # from all over the test set
        assert f'alt="test image {number}: {labels[number]}"' in html
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pictures / "a <b>.png")
    Image.new("L", (20, 20)).save(pictures / "grey.jpg")
    out = tmp_path / "pictures.html"
    assert run_command(monkeypatch, *words, "--images", pictures, "--out", out) == 0
    html = out.read_text()
    assert html.count("<img ") == 2 * (1 + 2)
    assert "a &lt;b&gt;.png" in html


def test_mistakes_are_one_sentence_and_write_nothing(
    report: Path,
    weights: Path,
    small_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "bam_search.tasks.classification.cifar100.generate_images",
        lambda: generate_images(500, 200),
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_text("no picture")
    out = tmp_path / "out"
    data = ("--data", small_npz, "--out", out)
    trained = ("--weights", weights)
    for words, message in (
        (
            ("train", report, "--candidate", 1, "--data", "generated", "--out", out),
            "is not what the study was run on",
        ),
        (("train", report, "--candidate", 99, *data), "has no candidate '99'"),
        (
            ("train", report, "--candidate", 1, *data[:2], "--out", tmp_path / "empty"),
            "is a folder",
        ),
        (
            (
                "train",
                report,
                "--candidate",
                1,
                *data[:2],
                "--out",
                report / "records.csv" / "x.pt",
            ),
            "records.csv/x.pt: File exists",
        ),
        (("train", tmp_path, "--candidate", 1, *data), "records.csv cannot be read"),
        (
            ("train", report, "--candidate", 1, *data, "--weights", "nowhere.pt"),
            "there is no file 'nowhere.pt'",
        ),
        (("maps", report, "--candidate", 0, *data, *trained), "candidate 0 has no attention"),
        (
            ("maps", report, "--candidate", 2, *data, *trained),
            "does not fit the model: layer1.0.bn2",
        ),
        (
            ("maps", report, "--candidate", 1, *data, "--weights", "nowhere.pt"),
            "there is no file 'nowhere.pt'",
        ),
        (
            ("maps", report, "--candidate", 1, *data, *trained, "--images", tmp_path / "empty"),
            "there are no pictures",
        ),
        (
            ("maps", report, "--candidate", 1, *data, *trained, "--images", tmp_path / "broken"),
            "cannot be read as a picture",
        ),
    ):
        assert run_command(monkeypatch, *words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert not out.exists()
