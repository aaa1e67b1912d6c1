"""README and docs: short enough, their links lead somewhere, and what they show runs."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import run_command
from pages import ROOT, blocks, run_page

from bam_search.config import flat
from bam_search.search.study import Study
from bam_search.search.study_keys import key_tables
from bam_search.study.record import Record

README, FINDINGS = ROOT / "README.md", ROOT / "docs" / "findings.md"
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
REPORT = ROOT / "reports" / "2026-11-27-placement-cpu"
TABLE = re.compile(r"<!-- table: (.*) -->\n((?:\|.*\n)+)")
"""The words of a `table` command, and rows of what it prints."""
METHODS = {
    "ours (`additive`, recommends finalists)": "ours",
    "NSGA-II in our loop": "nsga2 in our loop",
}
"""What `benchmarks.search` calls them."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
WITHOUT_TORCH = """
import json, runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "optuna", "fvcore", "sqlalchemy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
for words in json.loads(sys.argv[1]):
    sys.argv = ["bam_search", *words]
    try:
        runpy.run_module("bam_search", run_name="__main__")
    except SystemExit as done:
        if done.code:
            raise
"""


def test_the_readme_has_at_most_a_thousand_words() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), link


def test_the_reference_has_every_key_of_a_study() -> None:
    study = Study(question="", space="small", references={}).to_dict()
    listed = {key.name for table in key_tables() for key in table.keys}
    assert listed >= set(flat(study)) - {"references"}
    assert {field.name for field in fields(Study)} <= {name.partition(".")[0] for name in listed}
    assert "- `trials`: the number of candidates" in next(key_tables()).about


def test_the_map_of_the_code_has_every_file() -> None:
    text = (ROOT / "docs" / "explanation" / "code.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "bam_search").rglob("*.py")}
    assert not sorted(name for name in files - {"__init__.py", "__main__.py"} if name not in text)


def test_the_reference_has_every_column_of_records() -> None:
    text = (ROOT / "docs" / "reference" / "outputs.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    explained = re.findall(r"`(\w+)`", "".join(rows))
    assert sorted(explained) == sorted(field.name for field in fields(Record))


def test_reports_are_read_without_torch_and_optuna(tmp_path: Path) -> None:
    done = _without_torch(
        tmp_path,
        ["list"],
        ["table", REPORT, "--latex"],
        ["figure", REPORT, "--out", "front.pdf"],
        ["report", REPORT / "index.html", "--out", "page.html"],
    )
    assert done.returncode == 0, done.stderr


def test_a_report_is_verified_without_torch_and_optuna(tmp_path: Path) -> None:
    done = _without_torch(tmp_path, ["report", REPORT, "--verify"])
    if "which can make it again; here is" in done.stdout:
        pytest.skip(done.stdout.strip())  # another version of Plotly
    assert done.returncode == 0, done.stderr


def test_what_needs_torch_says_so(tmp_path: Path) -> None:
    done = _without_torch(tmp_path, ["sites", "small"])
    assert done.returncode == 1
    assert done.stderr == (
        "error: this needs torch, which is not installed\n"
        "hint: reports are read, verified and drawn without it; all else is for `pip install .`\n"
    )


@pytest.mark.parametrize(("words", "written"), TABLE.findall(FINDINGS.read_text(encoding="utf-8")))
def test_findings_show_what_the_committed_pages_say(
    words: str, written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run_command(monkeypatch, "table", *words.split()) == 0
    made = {row["placement"]: row for row in rows(capsys.readouterr().out)}
    for row in rows(written):
        assert row.items() <= made[row["placement"]].items()


def test_findings_have_a_table_of_each_committed_page() -> None:
    shown = {words.split()[0] for words, _ in TABLE.findall(FINDINGS.read_text(encoding="utf-8"))}
    assert shown == {
        str(page.parent.relative_to(ROOT)) for page in ROOT.glob("reports/2*/index.html")
    }


def test_the_placement_table_is_loaded_as_its_page_says_and_has_its_baselines(
    tmp_path: Path,
) -> None:
    page = ROOT / "docs" / "reference" / "placement_table.md"
    assert run_page(page, tmp_path) == 1
    measured = json.loads((ROOT / "benchmarks" / "results" / "search.json").read_text())["table"]
    arms = {name.lower(): arm for name, arm in measured["arms"].items()}
    baselines = rows(page.read_text().partition("## Baselines")[2])
    assert len(baselines) == len(arms)
    for row in baselines:
        arm = arms[METHODS.get(row["method"], row["method"].lower())]
        reached = arm["epochs_to_target"]
        assert row["epochs"] == ("never" if math.isinf(reached) else str(round(reached)))
        volume = arm["volume_at_share_of_cost"]["1.0"]["median"]
        assert row["hypervolume at equal cost"] == f"{volume:.3f}"


def rows(table: str) -> list[dict[str, str]]:
    """The rows of a Markdown table; a column "+%" is named after the one before it."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
    titles, _, *cells = lines
    before = [title.partition(",")[0] for title in ["", *titles]]
    named = [
        f"{last}, +%" if title == "+%" else title
        for last, title in zip(before, titles, strict=False)
    ]
    return [dict(zip(named, row, strict=True)) for row in cells]


def _without_torch(folder: Path, *commands: list[object]) -> subprocess.CompletedProcess[str]:
    """Run commands in one process, up to the first that fails."""
    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands, default=str)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_each_tutorial_has_something_to_run() -> None:
    without = [page.stem for page in TUTORIALS if not blocks(page)]
    assert without == ["index"]


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) == len([one for one in blocks(page) if one.kind == "runs"])


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    _draw_photos(ROOT / "docs" / "tutorials" / "your_images.md", tmp_path)
    shutil.copytree(REPORT, tmp_path / "reports" / "placement")
    assert run_page(README, tmp_path) == 5


def _draw_photos(page: Path, folder: Path) -> None:
    """Make the tutorial's folder of pictures."""
    code = next(block.text for block in blocks(page) if block.language == "python")
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
