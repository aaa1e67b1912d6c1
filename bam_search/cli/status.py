"""`status` and `stop`: show what a study does that runs in another process, and end it."""

import contextlib
import json
import os
import platform
import signal
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bam_search.errors import UserError
from bam_search.search.lock import is_locked
from bam_search.search.status import FINISHED, Status, read_status, when
from bam_search.search.store import read_records
from bam_search.study.record import Record
from bam_search.words import counted

STOP_TIMEOUT = 60.0
"""Seconds that `stop` waits for the process to end; it still has to write its report."""


def status_text(folder: Path) -> str:
    """Return who runs the study, since when, what is under way and what is done, in lines.

    Raises UserError.
    """
    last, runs, records = _read(folder)
    return "\n".join([*_process_lines(last, runs), *_record_lines(records)])


def status_json(folder: Path) -> str:
    """Return the same as JSON, for machines. Raises UserError."""
    last, runs, records = _read(folder)
    process = asdict(last) if last else None
    table = {"runs": runs, "process": process, **_counts(records)}
    return json.dumps(table, indent=2)


def stop(folder: Path) -> int:
    """End the process that runs the study, and return the exit code once it has ended.

    The code is 1 if the process still runs after `STOP_TIMEOUT`.

    Raises UserError if no process runs the study on this machine.
    """
    last = read_status(folder)
    if last is None or not is_locked(folder):
        is_finished = last is not None and last.ended == FINISHED
        hint = "it is finished" if is_finished else "`status` says what there is"
        raise UserError(f"no process runs the study in {folder}", hint)
    if last.host != platform.node():
        raise UserError(
            f"the study in {folder} runs on {last.host}, as process {last.pid}", "stop it there"
        )
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(last.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT
    while is_locked(folder):
        if time.monotonic() > deadline:
            click.echo(
                f"error: process {last.pid} is still running {STOP_TIMEOUT:g} s after SIGTERM",
                err=True,
            )
            return 1
        time.sleep(0.1)
    click.echo(f"stopped process {last.pid}; the same command continues: {last.command}")
    return 0


def _read(folder: Path) -> tuple[Status | None, bool, list[Record]]:
    """Return the last status of the study, whether a process runs it now, and its records."""
    return read_status(folder), is_locked(folder), read_records(folder)


def _process_lines(last: Status | None, runs: bool) -> list[str]:
    """Return lines about the process that runs the study, or was the last to run it."""
    if last is None:
        return ["no process has run it here"]
    return _running_lines(last) if runs else _ended_lines(last)


def _ended_lines(last: Status) -> list[str]:
    end = last.ended or f"died; last known progress: {last.progress or 'none'}"
    line = f"not running; process {last.pid} on {last.host}, since {when(last.since)}: {end}"
    if last.ended == FINISHED:
        return [line]
    return [line, f"to continue: {last.command}"]


def _running_lines(last: Status) -> list[str]:
    now = time.time()
    lines = [
        f"running as process {last.pid} on {last.host} since {when(last.since)}, "
        f"{_span(now - last.since)}: {last.command}"
    ]
    if last.stage:
        left = f"; about {_span(max(0, last.until - now))} left in all" if last.until else ""
        lines.append(f"{last.progress}{left}")
    for running in last.running:
        what = "final training" if running.final else counted(running.epochs, "epoch")
        where = "next" if running.since is None else f"since {_span(now - running.since)}"
        lines.append(f"  {where}: {running.placement} ({what}, seed {running.seed})")
    return lines


def _record_lines(records: list[Record]) -> list[str]:
    counts = _counts(records)
    origins = ", ".join(f"{n} {origin}" for origin, n in counts["candidates"].items())
    return [
        f"finished candidates: {origins or 'none'}",
        f"failed {counts['failed']}, stopped early {counts['stopped']}, tested {counts['tested']}",
    ]


def _counts(records: list[Record]) -> dict[str, Any]:
    return {
        "candidates": dict(Counter(record.origin for record in records)),
        "failed": sum(bool(record.failure or record.test_failure) for record in records),
        "stopped": sum(bool(record.stopped) for record in records),
        "tested": sum(record.is_tested for record in records),
    }


def _span(seconds: float) -> str:
    """Return a time in words: '35 s', '4 min 10 s', '2 h 5 min'."""
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    if minutes:
        return f"{minutes} min {seconds_left} s"
    return f"{seconds_left} s"
