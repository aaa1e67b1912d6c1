"""A run that is interrupted, begun anew or continued with other numbers, on a tiny network."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_command
from held import tiny_study

from bam_search.cli import run as command_line
from bam_search.errors import UserError
from bam_search.running import runner


@pytest.fixture
def words(tmp_path: Path, small_npz: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """The command that runs the study, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "_answer_signals", lambda _limit: None)
    return (
        "run",
        "--study",
        tiny_study(tmp_path),
        "--smoke",
        "--device",
        "cpu",
        "--data",
        small_npz,
        "--out",
        "out",
        "--set",
        "random_baseline=true",
        "--set",
        "search.modules.se.r=[2, 4]",
        "--trials",
        "3",
        "--set",
        "workers=1",
    )


def test_a_study_is_continued_with_fewer_trials_than_it_has(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_command(monkeypatch, *words, "--trials", 3) == 0
    assert run_command(monkeypatch, *words, "--trials", 2) == 0
    assert json.loads(Path("out/status.json").read_text())["ended"] == "finished"


def test_a_damaged_study_is_set_aside_where_that_is_asked_for(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, *words) == 0
    Path("out/study.json").write_text("{")
    assert run_command(monkeypatch, *words) == 2
    assert "set the study aside with --force-new" in capsys.readouterr().err
    assert run_command(monkeypatch, *words, "--force-new") == 0
    (aside,) = Path().glob("out-before-*")
    assert (aside / "study.json").read_text() == "{"


@pytest.mark.parametrize(("text", "said"), [("", "Ctrl-C"), ("SIGTERM", "SIGTERM")])
def test_an_interruption_while_latencies_are_measured_is_one_like_any_other(
    words: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    said: str,
) -> None:
    def interrupted(_ready: object) -> None:
        raise KeyboardInterrupt(*filter(None, [text]))

    monkeypatch.setattr(runner, "increments", interrupted)
    by_time = ("--set", 'objectives=["metric", "latency_overhead"]')
    assert run_command(monkeypatch, *words, *by_time) == 130
    assert f"interrupted by {said}; finished candidates are kept" in capsys.readouterr().err
    assert json.loads(Path("out/status.json").read_text())["ended"] == f"interrupted by {said}"
    assert f"Interrupted by {said}" in Path("out/index.html").read_text(encoding="utf-8")


def test_a_file_that_changes_while_a_study_runs_ends_it_as_a_failure(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def changed(_ready: object) -> None:
        raise UserError("net.py is not the file that the study began with", "put that one back")

    monkeypatch.setattr(runner, "increments", changed)
    by_time = ("--set", 'objectives=["metric", "latency_overhead"]')
    assert run_command(monkeypatch, *words, *by_time) == 1
    assert "net.py is not the file that the study began with" in capsys.readouterr().err
    ended = json.loads(Path("out/status.json").read_text())["ended"]
    assert ended == "failed: net.py is not the file that the study began with"
    assert "Failed: net.py" in Path("out/index.html").read_text(encoding="utf-8")


def test_the_clock_has_what_is_left_of_the_limit(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []

    def run(the: runner.Run) -> None:
        limits.append(the.ready.options.time_limit)
        assert the.clock.left == pytest.approx(limits[-1], abs=1)
        raise SystemExit

    monkeypatch.setattr(command_line, "run", run)
    for left in (0.0, 60.0):
        monkeypatch.setattr("signal.getitimer", lambda _which, left=left: (left, 0.0))
        run_command(monkeypatch, *words, "--time-limit", 90)
    assert limits == [90.0, 60.0]


def test_a_second_signal_ends_the_command_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers: dict[int, Callable[[int, None], None]] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(signal, "setitimer", lambda *_: None)
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    moment = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: moment[0])
    command_line._answer_signals(None)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    moment[0] += 0.2  # to the process, and then to its group
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert ended == []
    moment[0] += 2

    def leave(code: int) -> None:
        ended.append(code)
        raise SystemExit

    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(SystemExit):
        handlers[signal.SIGINT](signal.SIGINT, None)
    assert ended == [130]
    assert "ended at once; finished candidates are kept" in capfd.readouterr().err
