"""What a study prints on stderr while it runs.

Each finished candidate is an aligned line; on a terminal, a bar shows the time left.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bam_search.analysis.statistics import mean
from bam_search.errors import last_line
from bam_search.report.tables import test_text, validation_text
from bam_search.running.runner import Stage
from bam_search.search.loop import OnResult
from bam_search.study.record import Record
from bam_search.words import counted, duration

Line = Callable[[Record], str]
OFTEN = 10.0
"""Seconds between the lines that say how far something is, where there is no terminal."""


@contextlib.contextmanager
def steps(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with each number of steps done, of `total`.

    A bar shows how far it is and goes away; without a terminal, a line says it now and then.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = console.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown
    ) as bar:
        task = bar.add_task(title, total=total)
        said, done = time.monotonic(), 0

        def advance(count: int) -> None:
            nonlocal said, done
            done += count
            bar.advance(task, count)
            if not shown and time.monotonic() - said > OFTEN:
                said = time.monotonic()
                click.echo(f"{title}: {done:,} of {total:,}", err=True)

        yield advance


@contextlib.contextmanager
def progress(stage: Stage, line: Line) -> Iterator[OnResult]:
    """Yield a function to call with each finished record of a stage.

    It prints how many of it are done, the record's `line` and the time that is left in all, and
    moves the bar.
    """
    console = Console(stderr=True)
    if stage.done < stage.total:
        click.echo(_heading(stage), err=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(stage.title, total=stage.total, completed=stage.done)
        counter = itertools.count(stage.done + 1)
        digits = len(str(stage.total))

        def on_result(record: Record) -> None:
            count = f"[{next(counter):{digits}}/{stage.total}]"
            left = f"{_time_left(stage):>13}"
            console.print(
                f"{count} {left}  #{record.tag:<3} {line(record)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            bar.advance(task)

        yield on_result


def _heading(stage: Stage) -> str:
    """'phase 1 of 2: search, 12 of 40 done; 8 min left in all'."""
    left = _time_left(stage)
    in_all = f"; {left} in all" if left else ""
    return (
        f"phase {stage.number} of {stage.phases}: {stage.title}, "
        f"{stage.done:,} of {stage.total:,} done{in_all}"
    )


def _time_left(stage: Stage) -> str:
    """'8 min left'; empty if that is not known."""
    seconds = stage.left()
    return "" if seconds is None else f"{duration(seconds)} left"


def searched(record: Record) -> str:
    """Return the line of a candidate of the search.

    `val 81.2 (SE 1.0) %  params  +2.56 %  MACs  +2.96 %    13.2 s  layer2=bam(r=4,d=1)`
    """
    costs, metric = _costs(record), record.metric
    if record.stopped:
        epochs = counted(record.rung_epochs[-1], "epoch")
        last = metric.with_unit(metric.once(record.rung_metrics[-1]))
        return f"stopped after {epochs} with {last}{costs}  {record.label}"
    value = metric.with_unit(f"{validation_text(record):>10}")
    seconds = _seconds(record.seconds)
    failed = f"  {last_line(record.failure)}" if record.failure else ""
    return f"val {value}{costs}  {seconds}  {record.label}{failed}"


def tested(record: Record) -> str:
    """Return the line of a finalist, of all its seeds so far.

    `test 81.63 ± 0.21 (3) %  layer2=bam(r=4,d=1)`
    """
    failed = f"  {last_line(record.test_failure)}" if record.test_failure else ""
    value = record.metric.with_unit(f"{_test_text(record) or 'failed':>16}")
    return f"test {value}  {record.label}{failed}"


def _test_text(record: Record) -> str:
    """'81.63 ± 0.21 (3)' of the tests so far, and an empty text for none."""
    return test_text(record.metric, mean(record.test_metrics) if record.is_tested else None)


def _costs(record: Record) -> str:
    params, macs = record.params_overhead, record.macs_conv_fc_overhead
    return f"  params {params:+z6.2f} %  MACs {macs:+z6.2f} %"


def _seconds(seconds: float | None) -> str:
    return f"{seconds:6.1f} s" if seconds is not None else " " * 8
