"""`run_study`: a study run from Python."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import own_module
import pytest

from bam_search import Study, UserError, register_attention, run_study
from bam_search.analysis.findings import Findings
from bam_search.errors import RunError
from bam_search.model.attention import registry
from bam_search.report.verify import verify
from bam_search.running import api
from bam_search.running.api import StudyResult
from bam_search.running.runner import Run
from bam_search.score.device import choose
from bam_search.search.study import load_study
from bam_search.study.record import Record

# One process runs the study that several tests look at.
pytestmark = pytest.mark.xdist_group("api")

TINY = {
    "trials": 5,
    "startup": 1,
    "workers": 1,
    "random_baseline": False,
    "data.images": 300,
    "data.validation": 0.34,
    "recipe": {"epochs": 1, "batch": 60},
    "finalists": {"seeds": 1, "most": 1, "leave_one_out": False},
}


@pytest.fixture(scope="module")
def ran(
    small_npz: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyResult, list[Record]]:
    """A tiny placement study, and the records that it told of."""
    told: list[Record] = []
    out = tmp_path_factory.mktemp("api") / "study"
    before = _signals()
    result = run_study(
        "placement", data=small_npz, device="cpu", out=out, overrides=TINY, on_result=told.append
    )
    assert _signals() == before
    return result, told


def _signals() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_study_gives_its_records_its_findings_and_its_page(
    ran: tuple[StudyResult, list[Record]],
) -> None:
    result, _ = ran
    assert len(result.records) == 5
    assert isinstance(result.findings, Findings)
    assert all(record in result.records for record in result.front)
    assert result.recommendation is None
    table = result.dataframe()
    assert list(table["placement"]) == [record.placement for record in result.records]
    assert list(table["val_metric"]) == [record.val_metric for record in result.records]
    verdict = verify(result.page)
    assert verdict.records == len(result.records)
    assert not verdict.wrong


def test_each_finished_record_is_told(ran: tuple[StudyResult, list[Record]]) -> None:
    result, told = ran
    searched = [record.number for record in told if not record.is_tested]
    tested = {record.number for record in told if record.is_tested}
    assert searched == [record.number for record in result.records]
    assert tested == {record.number for record in result.records if record.is_tested}


def test_the_same_call_continues_and_trains_nothing_again(
    ran: tuple[StudyResult, list[Record]], small_npz: Path
) -> None:
    result, _ = ran
    told: list[Record] = []
    folder = result.page.parent
    again = run_study(
        "placement", data=small_npz, device="cpu", out=folder, overrides=TINY, on_result=told.append
    )
    assert not told
    assert again.records == result.records


def test_a_study_itself_can_be_run_and_overridden(
    ran: tuple[StudyResult, list[Record]], small_npz: Path, tmp_path: Path
) -> None:
    study = load_study("placement", choose("cpu"), {}, [])
    assert isinstance(study, Study)
    only_references = {**TINY, "trials": 4}
    result = run_study(
        study, data=small_npz, device="cpu", out=tmp_path / "out", overrides=only_references
    )
    of_the_file = {record.name: record.val_metric for record in ran[0].records if record.name}
    assert {record.name: record.val_metric for record in result.records} == of_the_file


def test_mistakes_are_sentences_and_write_nothing(small_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="epoch"):
        run_study("placement", data=small_npz, out=out, overrides={"recipe.epoch": 1})
    with pytest.raises(UserError, match="there is no such file"):
        run_study("placement", data=tmp_path / "nothing.npz", out=out)
    with pytest.raises(UserError, match="there is no executor 'raay'"):
        run_study("placement", data=small_npz, executor="raay")
    with pytest.raises(UserError, match="there is no device 'gpu'"):
        run_study("placement", data=small_npz, device="gpu")
    with pytest.raises(UserError, match="the study has 2 spaces"):
        run_study("placement", out=out, overrides={"spaces": ["small", "small_preact"]})
    assert not out.exists()


@pytest.mark.slow
def test_an_attention_module_of_a_users_is_searched_if_a_file_has_its_class(
    small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    searched = {**TINY, "search.modules.coord.r": [8, 16]}

    def run(name: str) -> StudyResult:
        out = tmp_path / name
        return run_study("placement", data=small_npz, device="cpu", out=out, overrides=searched)

    scope: dict[str, Any] = {"__name__": "a notebook"}
    exec(Path(own_module.__file__).read_text(), scope)
    register_attention("coord", scope["CoordAttention"])
    with pytest.raises(UserError, match="the class of the attention module 'coord' is in no file"):
        run("notebook")
    assert not (tmp_path / "notebook").exists()

    monkeypatch.setattr(registry, "_REGISTERED", {})
    register_attention("coord", own_module.CoordAttention)
    result = run("script")
    assert [record.complete for record in result.records] == [True] * 5
    assert "coord" in result.records[-1].placement
    assert '"coord"' in (tmp_path / "script" / "study.json").read_text()


def test_a_study_of_one_listed_space_has_the_folder_that_the_command_line_gives_it(
    small_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []

    def stop(the: Run) -> None:
        runs.append(the)
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run", stop)
    more = {"BAM v1.5": "bottleneck=bam(r=8)"}  # a key of a table may have a dot
    listed = {**TINY, "spaces": ["small"], "references": more}
    with pytest.raises(KeyboardInterrupt):
        run_study("placement", data=small_npz, device="cpu", out=tmp_path, overrides=listed)
    assert runs[0].folder == tmp_path / "small"
    assert "BAM v1.5" in runs[0].ready.references


def test_what_could_not_deliver_is_an_error_and_the_page_says_why(
    small_npz: Path, tmp_path: Path
) -> None:
    impossible = {**TINY, "max_params_overhead": 0.0}
    with pytest.raises(RunError, match="there is nothing to search"):
        run_study("placement", data=small_npz, device="cpu", out=tmp_path, overrides=impossible)
    assert (tmp_path / "index.html").exists()


@pytest.mark.slow
def test_it_leaves_signals_and_streams_alone(small_npz: Path, tmp_path: Path) -> None:
    code = f"""
import signal
from bam_search import run_study
if __name__ == "__main__":
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    overrides = {TINY | {"trials": 4, "workers": 2}!r}
    run_study("placement", data={str(small_npz)!r}, device="cpu", out={str(tmp_path / "out")!r},
              overrides=overrides)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "placement" not in done.stderr
