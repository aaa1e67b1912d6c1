"""`status` and `stop`: what a study does that runs in another process, and its end."""

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
from bam_search.search.lock import Status, read_status, when
from bam_search.search.record import Record
from bam_search.search.store import read_records
from bam_search.words import counted

PATIENCE = 60.0
"""Seconds for a study to finish its books: it writes its report once more."""


def status_text(folder: Path) -> str:
    """Who runs the study, since when, what is under way, what is done. Raises UserError."""
    last, drives, records = _found(folder)
    return "\n".join([*_driver_lines(last, drives), *_record_lines(records)])


def status_json(folder: Path) -> str:
    """The same for machines."""
    last, drives, records = _found(folder)
    table = {"runs": drives, "driver": asdict(last) if last else None, **_counts(records)}
    return json.dumps(table, indent=2)


def stop(folder: Path) -> int:
    """End the driver of the study, and wait for it; the exit code. Raises UserError."""
    last, drives = read_status(folder)
    if last is None or not drives:
        raise UserError(f"no process runs the study in {folder}", "`run` continues it")
    if last.host != platform.node():
        raise UserError(
            f"the study in {folder} runs on {last.host}, as process {last.pid}", "stop it there"
        )
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(last.pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while read_status(folder)[1]:
        if time.monotonic() > deadline:
            click.echo(
                f"error: process {last.pid} still runs, {PATIENCE:g} s after it was asked to end",
                err=True,
            )
            return 1
        time.sleep(0.1)
    click.echo(f"stopped process {last.pid}; the same command continues: {last.command}")
    return 0


def _found(folder: Path) -> tuple[Status | None, bool, list[Record]]:
    last, drives = read_status(folder)
    return last, drives, read_records(folder)


def _driver_lines(last: Status | None, drives: bool) -> list[str]:
    if last is None:
        return ["no process has run it here"]
    if not drives:
        how = (
            last.ended
            or f"died, the last that is known of it being {last.done} of {last.total} of: {last.stage}"
        )
        line = f"not running; process {last.pid} on {last.host}, since {when(last.since)}: {how}"
        return [line] if last.ended == "finished" else [line, f"to continue: {last.command}"]
    now = time.time()
    lines = [
        f"running as process {last.pid} on {last.host} since {when(last.since)}, {_span(now - last.since)}: {last.command}"
    ]
    if last.stage:
        lines.append(
            f"{last.stage}: {last.done} of {last.total} done" if last.total else last.stage
        )
    for running in last.running:
        what = "final training" if running.final else counted(running.epochs, "epoch")
        lines.append(
            f"  since {_span(now - running.since)}: {running.placement} ({what}, seed {running.seed})"
        )
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
        "tested": sum(bool(record.test_errors) for record in records),
    }


def _span(seconds: float) -> str:
    """'35 s', '4 min 10 s', '2 h 5 min'."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60} s"
        if whole < 3600
        else f"{whole // 3600} h {whole % 3600 // 60} min"
    )
