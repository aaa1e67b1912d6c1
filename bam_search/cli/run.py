"""`run`: run a study as the command line asks, and print what came of it.

Signals, the lines on stderr, the closing lines and exit codes are here; the rest is `running`.
"""

import os
import shlex
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from bam_search.analysis.findings import Outcomes
from bam_search.cli import progress
from bam_search.cli.compare import check_free, compare
from bam_search.report.sentences import (
    answer_line,
    believability_lines,
    expected_lines,
    latency_lines,
    recommendation_lines,
    verdict_lines,
)
from bam_search.running.plan import for_each
from bam_search.running.prepare import Request, ResolvedRun, resolve_all, worth
from bam_search.running.runner import Interrupted, Outcome, Run, Stage, run
from bam_search.search.loop import OnResult
from bam_search.tasks.task import Dataset


class Terminal:
    """Tells a run on stderr; on a terminal, with a bar and a moving status."""

    def say(self, line: str) -> None:
        """Print a line."""
        click.echo(line, err=True)

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Show `what` as long as the context lasts; without a terminal, say it once."""
        console = Console(stderr=True)
        if console.is_terminal:
            return console.status(what)
        self.say(f"{what} ...")
        return nullcontext()

    def stage(self, stage: Stage) -> AbstractContextManager[OnResult]:
        """Print a line for each finished record of the stage."""
        return progress.progress(stage, progress.tested if stage.final else progress.searched)


TOGETHER = 1.0
"""Signals that come within so many seconds are one."""


def execute(request: Request) -> int:
    """Run or continue the study on each of its spaces, and write its reports.

    Returns the exit code. Raises UserError and RunError.
    """
    _answer_signals(request.options.time_limit)
    readies = resolve_all(request)
    source = readies[0].source
    # What is at hand shows a bar of its own where it takes long.
    with nullcontext() if source.at_hand else Terminal().busy("reading the data"):
        data = source.load()
    allowed = worth(request, readies[0], data)
    if allowed != request:
        request, readies = allowed, resolve_all(allowed)
    folder = request.folder(data)
    if len(readies) == 1:
        return _run(request, _limited(readies[0], 1), data, folder / readies[0].part)
    return _run_each(request, readies, data, folder)


def _run_each(request: Request, readies: list[ResolvedRun], data: Dataset, folder: Path) -> int:
    """Run the study on each space below `folder`, and compare those that finished."""
    check_free(folder)
    request = for_each(request, len(readies))
    codes: dict[Path, int] = {}
    for number, ready in enumerate(readies):
        below = folder / ready.part
        codes[below] = _run(request, _limited(ready, len(readies) - number), data, below)
        if codes[below] == 130:
            return 130
    finished = [below for below, code in codes.items() if code == 0]
    if len(finished) > 1:
        compare(finished, folder)
    return max(codes.values())


def _run(request: Request, ready: ResolvedRun, data: Dataset, folder: Path) -> int:
    """Run or continue the study on one space; return the exit code."""
    terminal = Terminal()
    try:
        return _close(run(Run.of(ready, request, data, folder, _command(), terminal)), data)
    except Interrupted as interrupt:
        terminal.say(
            f"interrupted by {interrupt}; finished candidates are kept, "
            f"and the same command continues:\n  {_command()}"
        )
        return 130


def _answer_signals(limit: float | None) -> None:
    """Let a scheduler's SIGTERM, and the end of the time limit, do what Ctrl-C does.

    `limit` is in seconds. A further signal ends the process at once, as a kill does: what is
    finished is kept. Those that come together, to a process and to its group, are one.
    """
    first: list[float] = []

    def end(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if first and now - first[0] < TOGETHER:
            return
        if first:
            os.write(2, b"ended at once; finished candidates are kept\n")
            os._exit(130)
        first.append(now)
        is_limit = number == signal.SIGALRM
        raise KeyboardInterrupt("the time limit" if is_limit else signal.Signals(number).name)

    # SIGINT too: a command that a shell starts in the background ignores it otherwise.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, end)
    signal.setitimer(signal.ITIMER_REAL, limit or 0)


def _limited(ready: ResolvedRun, spaces: int) -> ResolvedRun:
    """The run with its share, one of `spaces`, of the time that is left until the limit."""
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if not left:
        return ready
    return replace(ready, options=replace(ready.options, time_limit=left / spaces))


def _close(outcome: Outcome, data: Dataset) -> int:
    """Print the closing lines.

    Returns the exit code: 1 if the study could not deliver.
    """
    failure, findings = outcome.failure, outcome.findings
    if failure is not None:
        click.echo(f"error: {failure.message}\nhint: {failure.hint}", err=True)
        return 1
    click.echo(f"report: {outcome.page}")
    click.echo(_counts_line(findings.outcomes, data))
    for line in (
        *believability_lines(findings.metric, findings.believability),
        *recommendation_lines(findings),
    ):
        click.echo(line)
    for i, line in enumerate(verdict_lines(findings)):
        click.echo(f"  {line}" if i else line)
    for answer in findings.answers:
        click.echo(f"  {answer_line(answer)}")
    for line in (*expected_lines(findings), *latency_lines(findings.latencies)):
        click.echo(line)
    return 0


def _counts_line(outcomes: Outcomes, data: Dataset) -> str:
    line = f"{outcomes.complete} candidates on {data.name}"
    if outcomes.stopped:
        line += f", {outcomes.stopped} stopped early"
    if outcomes.failed:
        line += f", {outcomes.failed} failed"
    return line


def _command() -> str:
    return shlex.join(["python", "-m", "bam_search", *sys.argv[1:]])
