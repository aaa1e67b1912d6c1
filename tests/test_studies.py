"""The studies that ship, the paper's figures in them, and studies of several spaces."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_record
from counted import ONE_PROCESS, costs, sites
from studied import found, html_of

from bam_search.cli.main import main
from bam_search.config import folder, known
from bam_search.errors import UserError
from bam_search.model.attach import fit_to_sites
from bam_search.report.paper_table import Paper, paper_table
from bam_search.running.describe import _paper
from bam_search.running.prepare import Request, one_per_space, resolve_run
from bam_search.score.device import Device
from bam_search.search.study import Study, load_study
from bam_search.space.placement import Placement
from bam_search.study.published import PublishedFigure, beside, minus
from bam_search.study.record import REFERENCE
from bam_search.tasks.metric import Metric

DEVICES = {"cpu": Device("cpu", "a CPU", "", True), "gpu": Device("cuda", "a GPU", "", True)}
STUDIES = [name for name in known("studies", ".toml") if name not in ("coco", "detection")]
"""Those of the paper's tables of classification."""
EACH = [(name, variant) for name in STUDIES for variant in DEVICES]


def shipped(name: str, variant: str) -> Study:
    return load_study(name, DEVICES[variant], {}, [])


@ONE_PROCESS
@pytest.mark.parametrize(("name", "variant"), EACH)
def test_references_fit_as_written_and_differ(name: str, variant: str) -> None:
    study = shipped(name, variant)
    for space in study.spaces or (study.space,):
        fitted = [fit_to_sites(text, sites(space)) for text in study.references.values()]
        assert [changes for _, changes in fitted] == [()] * len(fitted)
        placements = [placement for placement, _ in fitted]
        assert placements[0] == Placement()
        assert len({placement.id for placement in placements}) == len(placements)
        for placement in placements:
            if "=block" in placement.text:
                # Where the network has none to repeat this is an error.
                costs(space).cost(placement)


@pytest.mark.parametrize(("name", "variant"), [pair for pair in EACH if pair[0] != "placement"])
def test_all_but_placement_only_compare(name: str, variant: str) -> None:
    study = shipped(name, variant)
    assert study.trials == len(study.references)
    assert not study.random_baseline
    assert study.finalists.seeds >= 3


@ONE_PROCESS
@pytest.mark.parametrize("name", STUDIES)
def test_the_papers_counts_are_those_of_its_networks_here(name: str) -> None:
    study = shipped(name, "gpu")
    assert study.paper
    # The placement study runs on a network that fits an evening; the paper's is one flag away.
    of_paper = {"resnet50"} if name == "placement" else set(study.spaces or (study.space,))
    assert {entry.net for entry in study.paper} == of_paper
    mirrors = {entry.mirror for entry in study.paper if entry.mirror}
    on_a_cpu = set(shipped(name, "cpu").spaces)
    assert mirrors <= on_a_cpu <= mirrors | of_paper
    for entry in study.paper:
        cost = costs(entry.net).cost(
            fit_to_sites(study.references[entry.reference], sites(entry.net))[0]
        )
        if entry.params:
            # Two decimals, of the released code's form: it has no BN at the end of the branches.
            assert cost.params / 1e6 == pytest.approx(entry.params[0], abs=0.006)
        if entry.gflops:
            decimals = len(str(entry.gflops[0]).partition(".")[2])
            assert round(cost.macs_conv_fc / 1e9, decimals) == entry.gflops[0]


def test_a_space_on_the_command_line_takes_the_place_of_several() -> None:
    assert shipped("networks", "cpu").space == ""
    study = load_study("networks", DEVICES["cpu"], {"space": "resnet18"}, [])
    assert (study.space, study.spaces) == ("resnet18", ())
    study = load_study("se", DEVICES["cpu"], {}, ["spaces=['small', 'small_grid']"])
    assert (study.space, study.spaces) == ("", ("small", "small_grid"))


def test_each_space_is_a_request_with_a_folder_of_its_own() -> None:
    mine = ["../mine.py:Net", "../mine.py:Net(a=1)", "../mine.py:Net(a=-1)"]
    spaces = ["small", "torchvision:resnet18", *mine]
    request = Request(
        "networks",
        "cpu",
        (f"spaces={spaces}",),
        {"seed": 3},
    )
    assert [part.part for part in one_per_space(request)] == [
        "small",
        "torchvision-resnet18",
        "mine.py-Net",
        "mine.py-Net-a-1",
        "mine.py-Net-a-1-5",
    ]
    assert [part.flags["space"] for part in one_per_space(request)] == [
        "small",
        "torchvision:resnet18",
        *mine,
    ]
    assert all(part.flags["seed"] == 3 for part in one_per_space(request))
    alone = Request("se", "cpu", (), {})
    assert one_per_space(alone) == [alone]


ONE_STAGE = """
from torch import nn
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
    def forward(self, x):
        return (x + self.conv(x)).relu()
def net(classes):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)
    return nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.Sequential(Block(), Block()), *head)
"""


def test_a_comparison_does_not_search_in_place_of_references_that_are_left_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.py").write_text(ONE_STAGE)
    ready = resolve_run(
        Request("depth_control", "cpu", (), {"space": f"{tmp_path / 'one.py'}:net"})
    )
    assert (list(ready.references), ready.study.trials, ready.study.searches) == (
        ["no attention"],
        1,
        False,
    )
    assert len([note for note in ready.notes if note.endswith("left out")]) == 2


def test_references_that_come_to_the_same_are_named() -> None:
    ready = resolve_run(
        Request("depth_control", "cpu", ("references.again='bottleneck=bam'", "trials=4"), {})
    )
    assert ready.notes == (
        "reference 'again' is the same placement as 'BAM at the bottlenecks' here: "
        "layer1=bam layer2=bam",
    )


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["spaces=['small', 'small']"], "each once"),
        (["spaces=[]"], "'space' is missing"),
        (
            ["paper=[{reference='BAM in every blok', net='resnet50'}]"],
            "did you mean 'BAM in every block'",
        ),
        (
            ["paper=[{reference='no attention', net='resnet50', error=[21.49, 'P']}]"],
            "paper.0.error.1 = 'P'",
        ),
        (
            ["paper=[{reference='no attention', net='resnet50', error=21.49}]"],
            "paper.0.error = 21.49",
        ),
        (
            ["paper=[{reference='no attention', net='resnet50', eror=[21.49, 'S']}]"],
            "did you mean 'error'",
        ),
    ],
)
def test_mistakes_are_named(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study("networks", DEVICES["cpu"], {}, assignments)
    assert message in str(caught.value)


def test_a_file_with_both_a_space_and_several_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_text(
        (folder("studies") / "networks.toml")
        .read_text()
        .replace("[references]", 'space = "small"\n[references]')
    )
    assert load_study(str(path), DEVICES["cpu"], {}, []).spaces == (
        "small",
        "small_preact",
        "small_resnext",
    )
    path.write_text(path.read_text().replace("spaces = ", 'space = "small"\nspaces = '))
    with pytest.raises(UserError, match="give one space, or several"):
        load_study(str(path), DEVICES["cpu"], {}, [])


BASE = PublishedFigure(
    "no attention", "resnet50", "small", error=(21.49, "S"), params=(23.705, "C")
)
BAM = PublishedFigure("BAM", "resnet50", "small", error=(20.88, "M"))
OTHER = PublishedFigure("BAM", "wrn28_8", error=(20.06, "M"))


def test_figures_stand_beside_their_network_and_its_mirror() -> None:
    entries = (BASE, BAM, OTHER)
    assert beside(entries, "resnet50") == beside(entries, "small") == (BASE, BAM)
    assert beside(entries, "wrn28_8") == (OTHER,)
    assert beside(entries, "resnet18") == entries


def test_a_difference_has_the_mark_of_the_less_sure_figure() -> None:
    assert minus(BAM, (BASE, BAM), "no attention") == (pytest.approx(-0.61), "M")
    assert minus(BASE, (BASE, BAM), "BAM") == (pytest.approx(0.61), "M")
    assert minus(BASE, (BASE, BAM), "no attention") is None
    assert minus(OTHER, (BASE, BAM, OTHER), "no attention") is None


def test_the_papers_figures_beside_ours() -> None:
    records = [
        make_record(
            0,
            80.0,
            0.0,
            origin=REFERENCE,
            name="no attention",
            test_metrics=(81.0, 82.0),
            test_seeds=(7, 8),
        ),
        make_record(
            1, 75.0, 1.0, origin=REFERENCE, name="BAM", test_metrics=(80.0, 80.5), test_seeds=(7, 8)
        ),
        make_record(2, 70.0, 1.0),
    ]
    paper = Paper("", (BASE, BAM), "small")
    table = paper_table(paper, found(records))
    assert list(table["what"]) == ["no attention", "BAM"]
    assert list(table["its error, %"]) == [
        "21.49 (as our source texts report it)",
        "20.88 (from memory, confirmed by nothing)",
    ]
    assert list(table["minus no attention"]) == ["", "-0.61 (from memory, confirmed by nothing)"]
    assert list(table["its params, M"]) == ["23.705 (computed independently)", ""]
    assert table["our error, %"][1] == "80.25 ± 0.35 (2) test"
    # Two seeds, which hierarchical means draw together.
    assert re.match(r"-1\.\d\d \(.*\), n = 2: too few seeds", table["ours minus no attention"][1])
    untested = [
        make_record(n, 80.0 - 5 * n, 0.0, origin=REFERENCE, name=name)
        for n, name in enumerate(("no attention", "BAM"))
    ]
    differences = paper_table(paper, found(untested))["ours minus no attention"]
    assert differences[1] == "-5.0 on validation"
    assert paper_table(paper, found(records[:1]))["our error, %"][1] == "not run"


def test_the_papers_figures_are_shown_beside_their_own_metric_only() -> None:
    ready = resolve_run(Request("placement", "cpu", (), {"data": {"source": "generated"}}))
    data = ready.source.load()
    assert _paper(ready, data, 100).entries == ready.study.paper
    assert "the metric" not in _paper(ready, data, 100).apart
    task = replace(ready.task, metric=Metric("accuracy", "%", larger_is_better=True))
    other = _paper(replace(ready, task=task), data, 100)
    assert other.entries == ()
    assert "the metric (accuracy, not top-1 error)" in other.apart


def test_nothing_of_the_papers_figures_is_executed() -> None:
    attack = "<script>alert(1)</script>"
    entry = PublishedFigure(attack, attack, error=(20.0, "M"))
    record = make_record(0, 80.0, 0.0, origin=REFERENCE, name=attack)
    paper = Paper(attack, (entry,), attack, attack, attack)
    html = html_of([record], paper=paper)
    assert "20.00 (from memory" in html
    assert "<script>alert" not in html


def test_what_is_not_the_papers_is_said() -> None:
    assert (
        "the net (small, not resnet50), the data (some), the recipe"
        in Paper("", (BASE,), "small", "some", "ours").apart
    )
    assert Paper("", (BASE,), "resnet50", "", "ours").apart.startswith(
        "Not the paper's: the recipe (ours)."
    )


STUDY = """
question = "Does it run?"
spaces = ["small", "small_grid"]
claim = "CLAIM"
trials = 2
finalists = { seeds = 1 }
paper = [{ reference = "no attention", net = "resnet50", error = [FIGURE, "M"] }]
data = { images = 400, validation = 100 }
recipe = { epochs = 1, batch = 50 }
references = { "no attention" = "none", SE = "every-block=se" }
[gpu]
[cpu]
"""


def test_a_study_of_two_spaces_runs_on_each_and_compares_them(
    tmp_path: Path,
    small_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(figure: str) -> tuple[int, str, str]:
        Path("two.toml").write_text(STUDY.replace("FIGURE", figure))
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "bam_search",
                "run",
                "--study",
                "two.toml",
                "--device",
                "cpu",
                "--data",
                str(small_npz),
            ],
        )
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), *capsys.readouterr()

    code, out, err = run("21.21")
    assert code == 0, err
    reports = Path("reports/two")
    assert re.findall(r"^report: (.*)", out, re.M) == [
        str(reports / part / "index.html") for part in ("small", "small_grid", "")
    ]
    assert "the joint front of 4 candidates" in out
    assert "warning" not in err
    html = (reports / "small_grid" / "index.html").read_text()
    assert "21.21 (from memory, confirmed by nothing)" in html
    assert "CLAIM" in html
    assert (
        "the net (small_grid, not resnet50), the data (400 training images of cifar100), "
        "the recipe (ours, of 1 epoch)" in html
    )

    # Another figure of the paper is the same study: nothing is trained again.
    code, _, err = run("22.22")
    assert code == 0, err
    assert "continuing in reports/two/small: 2 of 2 candidates are finished" in err
    assert not re.search(r"^\[", err, re.M)
    assert "22.22 (from memory" in (reports / "small" / "index.html").read_text()

    (reports / "study.json").write_text("{}")
    code, _, err = run("22.22")
    assert code == 2
    assert "holds a study of its own" in err
