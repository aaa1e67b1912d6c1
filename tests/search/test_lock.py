"""One driver a folder, which says what it does; others see it, also when it is gone."""

import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from bam_search.cli.status import _running_lines
from bam_search.errors import UserError
from bam_search.score.evaluate import Job, Result
from bam_search.search.lock import is_locked, locked
from bam_search.search.status import read_status

HOLD = """
import sys, time
from pathlib import Path
from bam_search.search.lock import locked
with locked(Path(sys.argv[1]), "run --study it") as lock:
    lock.tell(stage="search", done=3, total=8)
    print("held", flush=True)
    time.sleep(100)
"""


def test_the_folder_says_what_is_under_way(tmp_path: Path) -> None:
    futures: list[Future[Result]] = []

    def submit(_job: Job) -> "Future[Result]":
        futures.append(Future())
        return futures[-1]

    assert read_status(tmp_path) is None
    assert not is_locked(tmp_path)
    with locked(tmp_path / "new", "run --study it") as lock:
        watched = lock.watched(submit, workers=1)
        watched(Job("layer1=bam", 0, 2))
        watched(Job("none", 7, 2, final=True))
        status = read_status(tmp_path / "new")
        assert is_locked(tmp_path / "new")
        assert status is not None
        assert (status.host, status.pid, status.command) == (
            platform.node(),
            os.getpid(),
            "run --study it",
        )
        assert [(r.placement, r.seed, r.epochs, r.final) for r in status.running] == [
            ("layer1=bam", 0, 2, False),
            ("none", 7, 2, True),
        ]
        assert 0 <= time.time() - (status.running[0].since or 0) < 60
        assert status.running[1].since is None  # one worker, so this is next in line
        first, second = _running_lines(status)[1:]
        assert first.endswith(" s: layer1=bam (2 epochs, seed 0)")
        assert second == "  next: none (final training, seed 7)"
        futures[0].set_result(Result(None))
        lock.tell(stage="search", done=1, total=4)
        status = read_status(tmp_path / "new")
        assert status is not None
        assert (status.stage, status.done, status.total, [r.seed for r in status.running]) == (
            "search",
            1,
            4,
            [7],
        )
        assert 0 <= time.time() - (status.running[0].since or 0) < 60
    assert read_status(tmp_path / "new") is not None
    assert not is_locked(tmp_path / "new")


def test_a_second_driver_is_refused_and_told_of_the_first_until_that_dies(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(UserError) as caught, locked(tmp_path, "another"):
        raise AssertionError("two drivers")
    assert f"is driven by process {first.pid} on {platform.node()}, since " in caught.value.message
    assert caught.value.message.endswith(": run --study it")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not is_locked(tmp_path)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.done, status.ended) == (3, "")
    with locked(tmp_path, "another"):
        assert is_locked(tmp_path)


def test_looking_neither_keeps_a_driver_out_nor_looks_like_one(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from bam_search.search.lock import is_locked
is_locked(Path(sys.argv[1]))
print("looked", flush=True)
while True: is_locked(Path(sys.argv[1]))
"""
    with locked(tmp_path, "first"):
        looker = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True
        )
    try:
        assert looker.stdout is not None
        assert looker.stdout.readline() == "looked\n"
        for _ in range(100):
            with locked(tmp_path, "again"):
                assert is_locked(tmp_path)
            assert not any(is_locked(tmp_path) for _ in range(100))
    finally:
        looker.kill()
        looker.communicate()


def test_a_users_mistake_on_the_way_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    def mistake(folder: Path) -> None:
        with pytest.raises(UserError, match="no such thing"), locked(folder, "mistaken"):
            raise UserError("no such thing")

    mistake(tmp_path / "new")
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "old", "first") as lock:
        lock.tell(ended="finished")
    before = read_status(tmp_path / "old")
    mistake(tmp_path / "old")
    assert read_status(tmp_path / "old") == before
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be used"),
        locked(tmp_path / "file" / "folder", "it"),
    ):
        raise AssertionError("a folder in a file")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"running": [{}]}'])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content)
    with pytest.raises(UserError, match=r"status\.json cannot be read"):
        read_status(tmp_path)
