"""What a study is doing: its process, its stage and its trainings under way, in a file.

The file stays when the process has ended, and says how, if the process could say it.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bam_search.errors import UserError
from bam_search.files import write

if TYPE_CHECKING:  # `status` and `stop` do without torch
    from bam_search.score.evaluate import Job, Result

STATUS = "status.json"
FINISHED = "finished"
"""How a study has ended that has nothing left to do."""


@dataclass(frozen=True)
class Running:
    """A training that is under way since then, in seconds since 1970; None: it is next in line."""

    placement: str
    seed: int
    epochs: int
    final: bool
    since: float | None


@dataclass(frozen=True)
class Status:
    """The status of the process that runs a study, or was the last to run it.

    `since` is in seconds since 1970, as is `until`, when it is expected to end, None if that is not
    known. `done` of `total` trainings of the `stage` are finished. `ended` says how the process
    ended, once it has.
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
    until: float | None = None

    @property
    def progress(self) -> str:
        """'search: 12 of 40 done'; empty before the first stage."""
        done = f": {self.done} of {self.total} done" if self.total else ""
        return f"{self.stage}{done}"


class StatusFile:
    """The status of this process in a study's folder."""

    def __init__(self, folder: Path, command: str) -> None:
        self._path = folder / STATUS
        self._status = Status(platform.node(), os.getpid(), command, time.time())
        self._writing = threading.Lock()  # jobs end in other threads
        self._running: dict[int, Running] = {}
        self.tell()

    @property
    def status(self) -> Status:
        """What was told last."""
        return self._status

    def left(self) -> float | None:
        """Seconds until the process is expected to end; None if that is not known."""
        until = self._status.until
        return None if until is None else max(0.0, until - time.time())

    def tell(self, **changed: Any) -> None:
        """Change these fields of the status, and write it."""
        with self._writing:
            if changed.get("ended"):
                self._running.clear()  # the workers end too
            self._status = replace(self._status, running=tuple(self._running.values()), **changed)
            write(self._path, json.dumps(asdict(self._status), indent=2))

    def watched(
        self, submit: "Callable[[Job], Future[Result]]", workers: int
    ) -> "Callable[[Job], Future[Result]]":
        """The same executor of so many workers, with its jobs in the status.

        Workers take jobs in their order, so the first of those that are left are under way.
        """

        def watch(job: "Job") -> "Future[Result]":
            with self._writing:
                since = time.time() if len(self._running) < workers else None
                running = Running(job.placement, job.seed, job.epochs, job.final, since)
                self._running[id(job)] = running
            self.tell()
            future = submit(job)
            future.add_done_callback(lambda _done: self._over(job, workers))
            return future

        return watch

    def _over(self, job: "Job", workers: int) -> None:
        with self._writing:
            self._running.pop(id(job), None)
            for key, running in list(self._running.items())[:workers]:
                if running.since is None:
                    self._running[key] = replace(running, since=time.time())


def read_status(folder: Path) -> Status | None:
    """The status of the last process that ran the study in `folder`; None if there was none.

    Raises UserError if it cannot be read.
    """
    path = folder / STATUS
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        table["running"] = tuple(Running(**running) for running in table["running"])
        return Status(**table)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {error}", "name a study's folder") from None


def state_words(status: Status | None, runs: bool) -> str:
    """What has become of a study that has not finished; empty of one that has.

    `runs`: whether its process still does. 'Running, 12 of 40 (search), at 2026-11-22 12:30:05',
    or 'Failed: no candidate could be trained, 12 of 12 (search)'.
    """
    if status is None or status.ended == FINISHED:
        return ""
    where = f", {status.done} of {status.total} ({status.stage})" if status.total else ""
    if status.ended:
        return f"{status.ended[0].upper()}{status.ended[1:]}{where}"
    if not runs:
        return f"Its process died{where}: the same command continues"
    return f"Running{where}, at {when(time.time())}"


def when(seconds: float) -> str:
    """'2026-11-22 12:30:05', local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
