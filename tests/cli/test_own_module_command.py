"""A user's attention module in a file of its own goes through every command; the package stays."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import run_command

from bam_search.errors import UserError
from bam_search.model.attention import registry
from bam_search.running.prepare import Request, resolve_run
from bam_search.score.device import choose
from bam_search.search.store import read_records
from bam_search.search.study import load_study

OWN = Path(__file__).parents[1] / "own_module.py"
STUDY = """
question = "Where should coordinate attention go?"
space = "small"
trials = 4
startup = 2
random_baseline = false
finalists = { seeds = 1, most = 1, extra = 0.0, leave_one_out = false }
data.validation = 0.2
recipe = { epochs = 1, batch = 100, lr = 0.1 }

[references]
"no attention" = "none"
"at the bottlenecks" = "bottleneck=coord"

[search]
sites = ["stage-ends"]

[search.modules.coord]
from = "mine/my_module.py:CoordAttention"
r = [8, 16]

[gpu]
[cpu]
workers = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module and a study, in which the commands are called."""
    (tmp_path / "mine").mkdir()
    shutil.copy(OWN, tmp_path / "mine" / "my_module.py")
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    return tmp_path


@pytest.mark.parametrize(
    ("trials", "added"), [("24", {"coord in every block": "every-block=coord"}), ("5", {})]
)
def test_a_module_that_no_reference_has_is_one_in_every_block(
    trials: str, added: dict[str, str]
) -> None:
    flags = {"search": {"modules": {"coord": {"from": f"{OWN}:CoordAttention"}}}}
    study = load_study("placement", choose("cpu"), flags, [f"trials={trials}"])
    with_its_own = study.with_references_of_modules()
    assert with_its_own.references == {**study.references, **added}
    assert with_its_own.with_references_of_modules() == with_its_own


def test_a_comparison_compares_a_module_that_no_reference_has() -> None:
    flags = {"search": {"modules": {"coord": {"from": f"{OWN}:CoordAttention"}}}}
    study = load_study("se", choose("cpu"), flags, [])
    assert not study.searches
    with_its_own = study.with_references_of_modules()
    assert with_its_own.references.keys() - study.references.keys() == {"coord in every block"}
    assert not with_its_own.searches
    assert with_its_own.trials == len(with_its_own.references)


OPTIONS = """
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels: int, pool: str = "avg", both: bool = True):
        super().__init__()

    def forward(self, x):
        return x
"""


@pytest.mark.parametrize(
    ("searched", "said"),
    [
        (
            {},
            [
                'the options of gate keep their defaults, pool="avg", both=true; '
                "--set 'search.modules.gate.pool=[\"avg\", ...]' searches one"
            ],
        ),
        ({"both": [True, False]}, []),
    ],
)
def test_options_that_are_not_searched_are_named(
    searched: dict[str, list[bool]],
    said: list[str],
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    (tmp_path / "gate.py").write_text(OPTIONS)
    gate = {"from": f"{tmp_path / 'gate.py'}:Gate", **searched}
    flags = {"data": {"source": str(small_npz)}, "search": {"modules": {"gate": gate}}}
    advice = resolve_run(Request("placement", "cpu", (), flags)).advice
    assert [line for line in advice if "keep their defaults" in line] == said


ILLEGAL = """
from torch import nn

class Wide(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        if channels < 64:
            raise ValueError(f"needs 64 channels, not {channels}")

    def forward(self, x):
        return x
"""


def test_one_that_is_legal_at_some_blocks_only_is_no_reference_and_is_searched(
    tmp_path: Path, small_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    (tmp_path / "wide.py").write_text(ILLEGAL)
    sources = {"ba": {"from": f"{tmp_path / 'wide.py'}:Wide"}}  # begins as bam does
    flags = {"data": {"source": str(small_npz)}, "search": {"modules": sources}}
    ready = resolve_run(Request("placement", "cpu", (), flags))
    assert "ba in every block" not in ready.references
    assert any("needs 64 channels" in note and "left out" in note for note in ready.notes)
    assert set(ready.choice_space.sites) < {site.name for site in ready.sites}
    assert not any("keep their defaults" in line for line in ready.advice)
    with pytest.raises(UserError, match="reference 'mine'"):
        resolve_run(Request("placement", "cpu", ("references.mine='every-block=ba'",), flags))


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
@pytest.mark.slow
def test_it_is_searched_counted_trained_mapped_and_exported(
    folder: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ("run", "--study", "study.toml", "--data", small_npz, "--device", "cpu", "--out", "out")
    assert run_command(monkeypatch, *run) == 0
    records = read_records(folder / "out")
    searched = [record for record in records if record.origin == "search"]
    assert not any(record.failure or record.test_failure for record in records)
    assert searched
    assert all(set(record.placement.split("=")[1:]) for record in searched)
    assert all("coord" in record.placement and "bam" not in record.placement for record in searched)
    assert "coord" in (folder / "out" / "index.html").read_text()

    number = ("--candidate", searched[0].tag)
    weights = ("--weights", f"out/candidate-{searched[0].tag}.pt")
    data = ("--data", small_npz)
    assert run_command(monkeypatch, "train", "out", *number, *data, "--device", "cpu") == 0
    assert run_command(monkeypatch, "maps", "out", *number, *data, *weights, "--count", 2) == 0
    export = ("export", "out", *number, *weights, "--format", "pt2")
    assert run_command(monkeypatch, *export) == 0
    assert "equal outputs" in capsys.readouterr().out
    snippet = folder / "out" / f"candidate-{searched[0].tag}" / "model.py"
    done = subprocess.run(
        [sys.executable, snippet], cwd=folder.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{searched[0].params:,} parameters\n"

    # A file that changed is another study, and its candidates are told apart from what it was.
    module = folder / "mine" / "my_module.py"
    module.write_text(module.read_text() + "\n")
    assert run_command(monkeypatch, *run) == 2
    assert "module_files.coord" in capsys.readouterr().err
    assert run_command(monkeypatch, *export) == 0
    assert "is not the file that the study was run with" in capsys.readouterr().err
    module.rename(folder / "elsewhere.py")
    assert run_command(monkeypatch, *export) == 2
    assert "there is no file 'mine/my_module.py'" in capsys.readouterr().err
    moved = ("--module", "coord=elsewhere.py:CoordAttention")
    assert run_command(monkeypatch, *export, *moved) == 0


@pytest.mark.slow
def test_a_cluster_of_ray_trains_it_as_local_workers_do(
    folder: Path, small_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    run = ("run", "--study", "study.toml", "--data", small_npz, "--device", "cpu")
    assert run_command(monkeypatch, *run, "--out", "pool") == 0
    on_ray = ("--executor", "ray", "--address", "local", "--out", "ray")
    assert run_command(monkeypatch, *run, *on_ray) == 0
    trained = [
        [(record.placement, record.val_metric, record.test_metrics) for record in read_records(out)]
        for out in (folder / "pool", folder / "ray")
    ]
    assert trained[0] == trained[1]
    assert any("coord" in placement for placement, _, _ in trained[0])


def test_count_takes_it_from_the_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ("--module", "coord=mine/my_module.py:CoordAttention")
    words = ("count", "--space", "small", *own, "--audit", "--json")
    placements = ("--placement", "bottleneck", "--placement", "layer1=coord(r=8) layer2=se")
    assert run_command(monkeypatch, *words, *placements) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["placement"] == "layer1=coord layer2=coord"
    assert second["placement"] == "layer1=coord(r=8) layer2=se"
    assert folder.is_dir()


def test_a_dry_run_searches_what_the_flags_say(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("run", "--study", "placement", "--data", "generated", "--device", "cpu", "--dry-run")
    own = ("--module", "coord=mine/my_module.py:CoordAttention")
    values = ("--set", "search.modules.coord.r=[8, 16]", "--set", 'search.sites=["stage-ends"]')
    assert run_command(monkeypatch, *run, *own, *values) == 0
    out = capsys.readouterr().out
    assert "space small: 3 sites, 27 placements" in out
    assert "search.modules.coord.from = mine/my_module.py:CoordAttention" in out
    assert not (folder / "reports").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--module", "coord=nowhere.py:CoordAttention"], "there is no file 'nowhere.py'"),
        (["--module", "coord=mine/my_module.py:Coord"], "has no class 'Coord'"),
        (["--module", "bam=mine/my_module.py:CoordAttention"], "the name 'bam' is taken"),
        (["--module", "coord"], "cannot read --module 'coord'"),
        (["--module", "coord=mine/my_module.py"], "names no class in a Python file"),
        (["--set", "search.modules.cord.r=8"], "there is no attention module 'cord'"),
        (["--set", "search.modules.bam.r=[]"], "search.modules.bam.r = []"),
        (["--set", "search.modules.bam.r=[8, 8]"], "search.modules.bam.r = [8, 8]"),
        (["--set", "search.modules.bam.q=[8]"], "bam has no option 'q'"),
        (["--set", "search.modules.bam.from=3"], "search.modules.bam.from = 3"),
        (["--set", 'search.sites=["layer9"]'], "no site is named 'layer9'"),
    ],
)
def test_a_mistake_is_one_sentence(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    run = ("run", "--study", "placement", "--data", "generated", "--device", "cpu", "--dry-run")
    assert run_command(monkeypatch, *run, *words) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "hint: " in err
    assert out == ""
    assert folder.is_dir()
