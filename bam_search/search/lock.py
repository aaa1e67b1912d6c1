"""Who drives a study: one process at a time holds a lock on its folder, with its status there.

lock          an empty file that the driver holds locked; the lock ends with the process
driver.json   the driver, its stage and its trainings under way; how it ended, once it has
"""

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from bam_search.errors import UserError
from bam_search.files import write
from bam_search.score.evaluate import Job, Result
from bam_search.search.executors import Submit

LOCK = "lock"
STATUS = "driver.json"
PATIENCE = 1.0
"""Seconds to wait for the lock: a process that only checks the lock holds it for an instant."""


@dataclass(frozen=True)
class Running:
    """A training that is under way, or next in line; `since` is in seconds since 1970."""

    placement: str
    seed: int
    epochs: int
    final: bool
    since: float


@dataclass(frozen=True)
class Status:
    """The status of a driver.

    `since` is in seconds since 1970. `done` of `total` trainings of the `stage` are finished.
    `ended` says how the driver ended, once it has.
    """

    host: str
    pid: int
    command: str
    since: float
    stage: str = ""
    done: int = 0
    total: int = 0
    running: tuple[Running, ...] = ()
    ended: str = ""


class StudyLock:
    """The lock of this process on a study's folder, and its status in driver.json."""

    def __init__(self, folder: Path, command: str) -> None:
        self._path = folder / STATUS
        self._status = Status(platform.node(), os.getpid(), command, time.time())
        self._writing = threading.Lock()  # jobs end in other threads
        self._running: dict[int, Running] = {}
        self.tell()

    def tell(self, **changed: Any) -> None:
        """Change these fields of the status, and write it."""
        with self._writing:
            self._status = replace(self._status, running=tuple(self._running.values()), **changed)
            write(self._path, json.dumps(asdict(self._status), indent=2))

    def watched(self, submit: Submit) -> Submit:
        """The same executor, with its jobs in the status."""

        def watch(job: Job) -> "Future[Result]":
            running = Running(job.placement, job.seed, job.epochs, job.final, time.time())
            with self._writing:
                self._running[id(job)] = running
            self.tell()
            future = submit(job)
            future.add_done_callback(lambda _done: self._over(job))
            return future

        return watch

    def _over(self, job: Job) -> None:
        with self._writing:
            del self._running[id(job)]


@contextlib.contextmanager
def locked(folder: Path, command: str) -> Iterator[StudyLock]:
    """Hold the lock of the study in `folder`, which is made if it does not exist.

    A UserError in the context leaves the folder as it was before. Raises UserError if there is
    another driver, or the folder cannot be used.
    """
    new = not folder.exists()
    status = folder / STATUS
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / LOCK).open("a"))
            if not _locked(lock):
                raise UserError(
                    _busy(folder), f"wait, or end it with `python -m bam_search stop {folder}`"
                )
            before = status.read_text(encoding="utf-8") if status.exists() else None
            driver = StudyLock(folder, command)
        except OSError as error:
            raise UserError(
                f"the study folder {str(folder)!r} cannot be used: {error.strerror or error}",
                "try another --out",
            ) from None
        try:
            yield driver
        except UserError:
            _as_it_was(folder, before, new)
            raise


def _locked(file: TextIO) -> bool:
    """Whether this process now holds the lock, which lasts for as long as the file is open.

    Processes that it starts do not inherit the lock.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)


def _as_it_was(folder: Path, before: str | None, new: bool) -> None:
    """Restore the folder: its status before, or no folder if it is new."""
    if before is not None:
        write(folder / STATUS, before)
    else:
        (folder / STATUS).unlink(missing_ok=True)
    if new:
        (folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else came there
            folder.rmdir()


def read_status(folder: Path) -> tuple[Status | None, bool]:
    """The status of the last driver of a study, and whether it still drives.

    The status is None if there was no driver. Raises UserError if the status cannot be read.
    """
    try:
        table = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        table["running"] = tuple(Running(**running) for running in table["running"])
        status = Status(**table)
    except FileNotFoundError:
        return None, False
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / STATUS} cannot be read: {error}", "name a study's folder"
        ) from None
    return status, _held(folder / LOCK)


def _held(path: Path) -> bool:
    """Whether a process holds the lock.

    The check takes a shared lock, so that two checks do not take each other for a driver.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _busy(folder: Path) -> str:
    """Who drives the study, as a sentence."""
    status, _ = read_status(folder)
    if status is None:
        return f"{folder} is being started by another process"
    return (
        f"{folder} is driven by process {status.pid} on {status.host}, "
        f"since {when(status.since)}: {status.command}"
    )


def when(seconds: float) -> str:
    """'2026-11-22 12:30:05', local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
