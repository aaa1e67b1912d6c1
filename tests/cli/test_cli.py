"""The command line: help, mistakes, and the ends that a run can have.

Help and typos are answered at once. A mistake exits with 2, is said in one sentence, and writes
nothing.
"""

import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_command

from bam_search.cli import main as command_line
from bam_search.cli.main import main
from bam_search.report.payload import read
from bam_search.score import device
from bam_search.search import executors
from bam_search.search.store import read_records

RUN_AND_NAME_WHAT_IS_IMPORTED = """
import sys
from bam_search.cli.main import main
try:
    main()
finally:
    heavy = ("torch", "optuna", "pandas", "plotly", "numpy", "rich")
    print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("--help", "Usage: python -m bam_search"),
        ("rnu", "Did you mean 'run'?"),
        ("run --studdy placement", "No such option"),
        ("run --study placment", "did you mean 'placement'?"),
        ("run --study placement --space resnet5", "did you mean 'resnet50'?"),
        ("count --space resnet5", "did you mean 'resnet50'?"),
        ("sites resnet5", "did you mean 'resnet50'?"),
        ("train nowhere --candidate 1", "Directory 'nowhere' does not exist"),
    ],
)
def test_help_and_typos_are_answered_before_anything_heavy_is_imported(
    tmp_path: Path, command: str, answer: str
) -> None:
    code = RUN_AND_NAME_WHAT_IS_IMPORTED
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], cwd=tmp_path, capture_output=True, text=True
    )
    assert answer in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run"], "Missing option '--study'"),
        (["run", "--study", "placment"], "did you mean 'placement'"),
        (["run", "--study", "placement", "--trials", "two"], "'two' is not a valid integer"),
        (["run", "--study", "placement", "--trials", "-3"], "trials = -3"),
        (["run", "--study", "placement", "--set", "recipe.lrr=1"], "did you mean 'lr'"),
        (["run", "--study", "placement", "--set", "space='resnet5'"], "did you mean 'resnet50'"),
        (
            ["run", "--study", "placement", "--set", "references.mine='layer7=bam'"],
            "reference 'mine': no site is named 'layer7'",
        ),
        (
            ["run", "--study", "placement", "--set", "references.mine='layer1=bam(r=33)'"],
            "r can be 1 to 32 there",
        ),
        (
            ["run", "--study", "placement", "--epochs", "9", "--set", "rungs.epochs=[3, 1]"],
            "rungs ascend, each shorter than the full",
        ),
        (
            ["run", "--study", "placement", "--epochs", "2", "--set", "rungs.epochs=[2]"],
            "rungs.epochs = [2] with recipe.epochs = 2",
        ),
        (
            ["run", "--study", "placement", "--set", "finalists={seeds=9, most=8}"],
            "finalists.most = 8 is less than",
        ),
        (["run", "--study", "placement", "--set", "sampler=additiv"], "did you mean 'additive'"),
        (["run", "--study", "placement", "--data", "nowhere.npz"], "--data 'nowhere.npz'"),
        (["run", "--study", "placement", "--data", "broken.npz"], "'broken.npz' is no .npz"),
        (["run", "--study", "placement", "--time-limit", "soon"], "'soon' is no time above zero"),
        (["run", "--study", "placement", "--time-limit", "-1h"], "'-1h' is no time above zero"),
        (["run", "--study", "placement", "--budget", "soon"], "'soon' is no time above zero"),
        (["report", "reports/placement", "--watch", "nan"], "'nan' is no time above zero"),
        (
            ["plan", "--study", "placement", "--data", "generated", "--budget", "2s"],
            "2 s is too short: the smallest study of this kind takes about",
        ),
        (
            ["plan", "--study", "placement", "--data", "generated", "--device-speed", "h1000"],
            "did you mean 'h100'",
        ),
        (["run", "--study", "placement", "--max-failures", "0"], "0 is not in the range"),
        (["run", "--study", "placement", "--name", "../up"], "'../up': letters, digits"),
        (["run", "--study", "placement", "--executor", "slurm"], "'slurm' is not one of"),
        (
            ["run", "--study", "placement", "--data", "generated", "--storage", "nonsense"],
            "--storage 'nonsense' is no URL of a database",
        ),
        (
            ["run", "--study", "placement", "--data", "generated", "--address", "auto"],
            "--address 'auto' is of a Ray cluster",
        ),
        (
            [
                *("run", "--study", "placement", "--data", "generated", "--dry-run"),
                *("--set", "data.images=99999999"),
            ],
            "data.images = 99999999, but the training set has",
        ),
        (["status", "nowhere"], "nowhere holds no study.db"),
        (["stop", "nowhere"], "no process runs the study in nowhere"),
        (["rnu"], "No such command 'rnu'"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
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


DRY = ("run", "--study", "placement", "--dry-run", "--device", "cpu")


def dry_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *args: str
) -> tuple[str, str]:
    """Do a dry run in this process; return stdout and stderr."""
    monkeypatch.chdir(folder)
    assert run_command(monkeypatch, *DRY, *args) == 0
    return capsys.readouterr()


def test_the_choices_of_options_are_those_of_the_package() -> None:
    assert command_line.DEVICES == device.DEVICES
    assert tuple(executors.EXECUTORS) == command_line.EXECUTORS


@pytest.mark.slow
def test_references_that_are_too_large_for_a_network_are_made_to_fit_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = dry_run(monkeypatch, capsys, tmp_path, "--space", "torchvision:resnet18")
    assert "space = torchvision:resnet18" in out
    assert (
        "reference 'BAM at the bottlenecks': at layer3: bam(r=16,d=4): "
        "the dilation 4 is more than the map's side, 2; bam(d=2)"
    ) in err
    assert "reference 'BAM in every block': at layer3.0.bn2 and 1 more" in err
    assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_the_study_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = dry_run(monkeypatch, capsys, tmp_path, "--epochs", "3")
    assert err.startswith("placement: the cpu variant runs on ")
    assert "--device cpu asks for it" in err
    for part in (
        "recipe.epochs = 3",
        "space small: 6 sites, 12,503,296 placements",
        "322,140",
        "12,292,608",
    ):
        assert part in out
    phases = re.findall(r"^(\w.*?) +(\d+) trainings +[\d.]+ (?:s|min|hours)$", out, re.M)
    assert phases == [
        ("search", "24"),
        ("finalists", "78"),
    ]
    assert re.search(r"the study: about .+ for 102 trainings, 2 at a time", out)
    assert list(tmp_path.iterdir()) == []


PLAN = ("plan", "--study", "placement", "--device", "cpu", "--data", "generated")


def test_a_plan_says_what_a_budget_gives_on_this_machine_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(monkeypatch, *PLAN, "--device-speed", "1400") == 0
    out, err = capsys.readouterr()
    assert err.startswith("placement: the cpu variant runs on ")
    budgets = re.findall(r"^the plan for (.*), at the speed of 1400 images a second:$", out, re.M)
    assert budgets == ["10 min", "60 min", "8 hours"]
    assert run_command(monkeypatch, *PLAN, "--device-speed", "500") == 0
    out, err = capsys.readouterr()
    assert re.search(
        r"^10 min is too short: the smallest study of this kind takes about", out, re.M
    )
    assert re.search(r"^the plan for 8 hours", out, re.M)
    for_gpu = ("--device-speed", "H100", "--budget", "2h", "--device")
    assert run_command(monkeypatch, *PLAN, *for_gpu, "cpu") == 2
    assert "H100 is a GPU, and --device cpu asks for a CPU" in capsys.readouterr().err
    assert run_command(monkeypatch, *PLAN, *for_gpu, "auto") == 0
    out, err = capsys.readouterr()
    assert "the gpu variant runs on H100" in err
    assert "the plan for 2 hours, at the speed that is estimated for H100:" in out
    for said in (r"trainings: 50,000 images for \d+ epochs", r"differences of 0\.\d+ points"):
        assert re.search(said, out)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_plan_of_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = dry_run(monkeypatch, capsys, tmp_path, "--budget", "8h", "--data", "generated")
    assert "the plan for 8 hours, at the speed measured just now:" in out
    assert re.search(r"^finalists +\d+ trainings", out, re.M)
    assert list(tmp_path.iterdir()) == []


WIDE = """
from bam_search.model.backbones.resnet import small
from bam_search.space.search_space import SearchSpace

def space():
    return SearchSpace("wide", small, sites=("stage-ends",), modules={"bam": {"r": (64, 256)}})
"""
"""A space whose first stage is too narrow for r = 64, and each of its stages for r = 256."""


def test_a_site_that_cannot_be_searched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    out, err = dry_run(monkeypatch, capsys, tmp_path, "--space", "wide.py")
    left_out = "1 site is not searched, as no module with any of its options is legal there: layer1"
    assert f"{left_out}\n" in err
    assert "not searched, as legal at no site that is: bam(r=256)\n" in err
    assert "space wide: 2 sites, 4 placements" in out


@pytest.mark.slow
def test_compiling_in_a_search_is_advised_against_and_in_a_comparison_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = dry_run(monkeypatch, capsys, tmp_path, "--set", "recipe.compile=true")
    assert "recipe.compile: nearly every candidate of a search compiles anew" in err
    words = ("--set", "recipe.compile=true", "--trials", "4")
    _, err = dry_run(monkeypatch, capsys, tmp_path, *words)
    assert "anew" not in err
    assert "recipe.compile: the time told is that of steps without it" in err


def test_a_study_whose_references_cannot_be_trained_says_that_its_time_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frail.py").write_text(FRAIL.replace("FAILS", "True"))
    out, _ = dry_run(monkeypatch, capsys, tmp_path, "--space", "frail.py:net")
    assert "how long it takes cannot be told (RuntimeError: deliberate at [" in out


FRAIL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1))
        self.two = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1))
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        attended = [name for name, _ in self.named_modules() if name.endswith("attention")]
        if self.training and torch.is_grad_enabled() and FAILS:
            raise RuntimeError(f"deliberate at {attended}")
        return self.head(self.two(self.one(x)).mean((2, 3)))

def net(num_classes):
    return Net(num_classes)

def space():
    from bam_search.space.search_space import SearchSpace
    modules = {"bam": {"r": (2, 4), "d": (1,)}, "se": {"r": (2, 4, 8)}}
    return SearchSpace("frail", Net, sites=("one", "two"), modules=modules)
"""
"""A space whose trainings raise where the expression that is put for FAILS is true."""

PLAIN = '{ plain = "none" }'
"""The references of a study: the backbone alone."""
SMALL = "--epochs 1 --set data.images=400 --set data.validation=100 --set recipe.batch=50"
"""Makes trainings short."""


def run_study(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    data: Path,
    references: str,
    fails: str,
    *args: str,
    signals: bool = False,
) -> tuple[int, str, str]:
    """Run a tiny study in this process; return the exit code, stdout and stderr.

    A training crashes where `fails`, a Python expression of `attended`, is true.
    """
    (folder / "frail.py").write_text(FRAIL.replace("FAILS", fails))
    variant = f'space = "{folder / "frail.py"}"\n'
    (folder / "tiny.toml").write_text(
        f'question = "?"\nreferences = {references}\n[cpu]\n{variant}[gpu]\n{variant}'
    )
    monkeypatch.chdir(folder)
    if not signals:
        monkeypatch.setattr(signal, "signal", lambda *_args: None)
    finalists = ["--set", "finalists={seeds=1, leave_one_out=false}"]
    no_baseline = ["--set", "random_baseline=false"]
    study = ["--study", "tiny.toml", "--device", "cpu", "--data", data]
    code = run_command(monkeypatch, "run", *study, *SMALL.split(), *finalists, *no_baseline, *args)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("references", [PLAIN, "{}"])
def test_limits_below_everything_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_npz: Path,
    references: str,
) -> None:
    arguments = ("--trials", "4", "--set", "max_params_overhead=0.01")
    code, out, err = run_study(
        monkeypatch, capsys, tmp_path, small_npz, references, "False", *arguments
    )
    assert (code, out) == (1, "")
    assert (
        "error: there is nothing to search: "
        "no placement of the space is within the limits (params_overhead 0.01 %)"
    ) in err
    assert "hint: raise max_params_overhead or max_macs_overhead" in err
    assert "Traceback" not in err
    assert (tmp_path / "reports" / "tiny" / "index.html").is_file()


def test_a_search_of_which_every_candidate_fails_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_npz: Path,
) -> None:
    code, out, err = run_study(
        monkeypatch, capsys, tmp_path, small_npz, PLAIN, "attended", "--trials", "4"
    )
    assert (code, out) == (1, "")
    reason = "RuntimeError: deliberate at ['"
    assert f"error: every searched candidate failed; the first with: {reason}" in err
    about, _, _ = read(tmp_path / "reports" / "tiny" / "index.html")
    assert about.state.startswith("Failed: every searched candidate failed; the first with: ")
    page = tmp_path / "reports" / "tiny" / "index.html"
    assert f"hint: the tracebacks are in {page.relative_to(tmp_path)}" in err
    assert "Traceback" not in err
    assert "RuntimeError: deliberate" in page.read_text()


def test_trainings_that_take_too_long_all_fail_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_npz: Path,
) -> None:
    arguments = ("--trials", "3", "--set", "recipe.seconds=1e-6")
    code, out, err = run_study(monkeypatch, capsys, tmp_path, small_npz, PLAIN, "False", *arguments)
    assert (code, out) == (1, "")
    assert "error: no candidate could be trained; the first failed with: " in err
    assert "took more than 1e-06 s" in err


def test_so_many_failures_end_the_study_and_the_same_command_continues(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_npz: Path,
) -> None:
    arguments = ("--trials", "6", "--max-failures", "2")
    for done in (3, 5):
        code, out, err = run_study(
            monkeypatch, capsys, tmp_path, small_npz, PLAIN, "attended", *arguments
        )
        assert (code, out) == (1, "")
        assert "error: 2 failed, which is --max-failures; the last one, #" in err
        assert "RuntimeError: deliberate at ['" in err
        assert len(read_records(tmp_path / "reports" / "tiny")) == done
        status = json.loads((tmp_path / "reports" / "tiny" / "status.json").read_text())
        assert status["ended"].startswith("failed: 2 failed")
        assert "\n" not in status["ended"]
        assert "hint" not in status["ended"]


def test_the_time_limit_ends_a_study_like_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_npz: Path,
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    arguments = ("--trials", "20", "--epochs", "10000", "--time-limit", "6")
    try:
        code, out, err = run_study(
            monkeypatch, capsys, tmp_path, small_npz, PLAIN, "False", *arguments, signals=True
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert (code, out) == (130, "")
    assert (
        "interrupted by the time limit; finished candidates are kept, "
        "and the same command continues:\n  python -m bam_search run"
    ) in err
    about, _, _ = read(tmp_path / "reports" / "tiny" / "index.html")
    # Where the machine is slow, the limit comes before the first stage.
    state = r"Interrupted by the time limit(, \d+ of \d+ \(search\))?"
    assert re.fullmatch(state, about.state)
    assert "lr 0." in about.about["Recipe"]
    assert "cuda_graph" not in about.about["Recipe"]  # this was a CPU


def test_a_disk_that_is_full_is_one_sentence_and_what_was_finished_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_npz: Path,
) -> None:
    # No page is written, which would need more.
    monkeypatch.setattr("bam_search.running.runner.publish", lambda folder, *_: (folder, None))
    # A file may not grow beyond what the database has after some candidates: what a full disk
    # does, and root cannot ignore.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, limits[1]))
    try:
        code, _, err = run_study(
            monkeypatch, capsys, tmp_path, small_npz, "{}", "False", "--trials", "9"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1, err
    assert "error: the study in reports/tiny cannot be written: " in err
    assert "Traceback" not in err
    printed = re.findall(r"^\[ *\d+/\d+\].*?  #(\d+)", err, re.M)
    assert 0 < len(printed) < 9
    records = read_records(tmp_path / "reports" / "tiny")
    assert [str(record.number) for record in records] == printed


def test_a_study_of_references_alone_and_one_within_limits_are_done(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_npz: Path,
) -> None:
    two = '{ plain = "none", both = "one=bam(r=2,d=1) two=bam(r=2,d=1)" }'
    alone = ("--trials", "2", "--set", "max_params_overhead=0.01")
    code, out, err = run_study(monkeypatch, capsys, tmp_path, small_npz, two, "False", *alone)
    assert code == 0, err
    assert "Near chance: " in out
    assert "beside the first one" not in out
    assert "phase 1 of 2: references, 0 of 2 done" in err
    assert "search" not in err
    limited = ("--trials", "30", "--set", "max_params_overhead=8", "--out", "other")
    code, out, err = run_study(monkeypatch, capsys, tmp_path, small_npz, two, "False", *limited)
    assert code == 0, err
    assert "phase 1 of 2: search, 0 of 30 done" in err
    assert "the space has no further placement within the limits: " in err
    assert "candidates instead of 30" in err
