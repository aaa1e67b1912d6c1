"""Each stage in processes of its own, within its time.

A part that fails, hangs or crashes affects no other.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import (
    BEGAN,
    BROKE,
    CUT_OFF,
    DONE,
    ENDED,
    FAILED,
    FINISHED,
    FOUND,
    LISTED,
    SETTLED,
    Work,
    serve,
)
from benchmarks.gpu.stages import Stage

GRACE = 10.0
"""Seconds from the request to stop until a process is killed."""
DYING = 2.0
"""Seconds that processes which were killed have to give back what they hold, such as memory of the
device.
"""
UNDER_WAY, CRASHED = "under way", "crashed"
FORKSERVER = "forkserver"
METHOD = {"cuda": "spawn", "cpu": FORKSERVER}
"""How processes start: a fork saves their imports, but CUDA must not have been begun before one,
and any import may begin it.
"""
PRELOADED = [
    "benchmarks.gpu.candidate",
    "benchmarks.gpu.machine",
    "benchmarks.gpu.speeds",
    "benchmarks.gpu.studies",
]


@dataclass
class Outcome:
    """What is known of a stage so far: its state and its parts.

    Each part is {"state", "seconds", "found", "why"}.

    A part that was cut off takes up where it was, and its seconds add up.
    """

    state: str = UNDER_WAY
    why: str = ""
    listed: list[str] = field(default_factory=list)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def settled(self) -> list[str]:
        """The parts that are not to be tried again."""
        return [name for name, part in self.parts.items() if part["state"] in SETTLED]

    def found(self) -> dict[str, Any]:
        """What was found, by part; also by parts that were cut off."""
        return {
            name: part["found"] for name, part in self.parts.items() if part["found"] is not None
        }


def run(stage: Stage, work: Work, outcome: Outcome, log: Path, keep: Callable[[], None]) -> None:
    """Run those parts of a stage that are not settled, within `work.seconds`.

    `keep` is called whenever `outcome` has changed.
    """
    ends = time.monotonic() + work.seconds
    outcome.state, outcome.why = UNDER_WAY, ""
    while outcome.state == UNDER_WAY:
        before = len(outcome.settled())
        known = {**work.known, stage.name: outcome.found()}
        spent = {name: part["seconds"] for name, part in outcome.parts.items()}
        left = replace(work, seconds=ends - time.monotonic(), known=known, spent=spent)
        process = _Process(stage, left, outcome, log, keep)
        try:
            process.listen(ends)
        finally:
            process.end()
        if outcome.state == UNDER_WAY and len(outcome.settled()) == before:  # it came to no part
            outcome.state, outcome.why = CRASHED, process.said()
        elif outcome.state == UNDER_WAY and ends - time.monotonic() < stage.least:
            outcome.state, outcome.why = CUT_OFF, "its time was over"
    keep()


class _Process:
    """One process of a stage, and what it tells."""

    def __init__(
        self, stage: Stage, work: Work, outcome: Outcome, log: Path, keep: Callable[[], None]
    ) -> None:
        context = get_context(METHOD[work.device])
        if METHOD[work.device] == FORKSERVER:
            context.set_forkserver_preload(PRELOADED)
        self._outcome, self._keep = outcome, keep
        self._part, self._began, self._until = "", 0.0, float("inf")
        self._connection: Connection
        self._connection, theirs = context.Pipe()
        args = (theirs, stage.target, work, outcome.settled(), log)
        self._process: BaseProcess = context.Process(target=serve, args=args)  # type: ignore[attr-defined]
        self._process.start()
        theirs.close()

    def listen(self, ends: float) -> None:
        """Hear what it tells, until it ends or the time of its part or its stage is over."""
        while True:
            until = min(ends, self._until)
            if not self._hear(until):
                break
            if time.monotonic() >= until:
                self._stop(ends)
                return
        if self._part:
            self._settle(FAILED, self.said())

    def _hear(self, until: float) -> bool:
        """Take what it says until then; whether it is still there."""
        ready = wait(
            [self._connection, self._process.sentinel], timeout=max(0.0, until - time.monotonic())
        )
        if self._connection in ready or (ready and self._connection.poll()):
            try:
                self._heard(*self._connection.recv())
            except (EOFError, OSError):
                return False
            return True
        return not ready

    def _heard(self, kind: str, *told: Any) -> None:
        if kind == LISTED:
            self._outcome.listed = told[0]
        elif kind == BEGAN:
            self._part, limit = told
            self._began = time.monotonic()
            self._until = self._began + limit
            nothing = {"state": CUT_OFF, "seconds": 0.0, "found": None, "why": ""}
            self._outcome.parts[self._part] = {**nothing, **self._outcome.parts.get(self._part, {})}
        elif kind == FOUND:
            self._outcome.parts[told[0]]["found"] = told[1]
        elif kind == ENDED:
            self._settle(told[1], told[2])
        elif kind == FINISHED:
            states = [part["state"] for part in self._outcome.parts.values()]
            self._outcome.state = CUT_OFF if CUT_OFF in states else DONE
        elif kind == BROKE:
            self._outcome.state, self._outcome.why = CRASHED, told[0]
        self._keep()

    def _settle(self, state: str, why: str) -> None:
        part = self._outcome.parts[self._part]
        seconds = part["seconds"] + time.monotonic() - self._began
        part |= {"state": state, "seconds": round(seconds, 2), "why": why}
        self._part, self._until = "", float("inf")

    def _stop(self, ends: float) -> None:
        """Ask it to stop, hear its last words, and say whose time was over."""
        part, limit = self._part, self._until - self._began
        over = time.monotonic() >= ends
        self._signal(signal.SIGINT)
        grace = time.monotonic() + GRACE
        while time.monotonic() < grace and self._hear(grace):
            pass
        if over and self._outcome.state == UNDER_WAY:
            self._outcome.state, self._outcome.why = CUT_OFF, "its time was over"
        if self._part:
            why = "the time of its stage was over" if over else f"it took more than {limit:.0f} s"
            self._settle(CUT_OFF if over else FAILED, why)
        elif part and not over:  # it ended as it was asked to stop, with words of its own
            self._outcome.parts[part]["state"] = FAILED

    def end(self) -> None:
        """End it, and all that it started."""
        if self._process.is_alive() and self._part:
            self._stop(time.monotonic())
        self._signal(signal.SIGKILL)
        self._process.kill()  # had it not yet become the first of a group
        self._process.join(GRACE)
        self._connection.close()
        patience = time.monotonic() + DYING
        while self._signal(0) and time.monotonic() < patience:
            time.sleep(0.02)

    def _signal(self, number: int) -> bool:
        """Send it, and all that it started, a signal; whether there was any of them."""
        try:
            os.killpg(self._process.pid or 0, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def said(self) -> str:
        """How the process ended."""
        self._process.join(GRACE)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"
