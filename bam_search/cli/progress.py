"""Talk while a study runs, on stderr: a bar with the time left on a terminal, one aligned line a
candidate anywhere else.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bam_search.report.tables import error_text, test_text
from bam_search.search.record import Record
from bam_search.words import counted

Told = Callable[[Record], None]
Line = Callable[[Record], str]


@contextlib.contextmanager
def progress(title: str, done: int, total: int, line: Line) -> Iterator[Told]:
    """A function to tell each finished record: it prints how many are done and the record's `line`,
    and moves the bar.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done)
        counter = itertools.count(done + 1)

        def tell(record: Record) -> None:
            count = f"[{next(counter):{len(str(total))}}/{total}]"
            console.print(
                f"{count}  #{record.tag:<3} {line(record)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            bar.advance(task)

        yield tell


def searched(record: Record) -> str:
    """`val 81.2 ± 1.0 %  params  +2.56 %  MACs  +2.96 %    13.2 s  layer2=bam(r=4,d=1)`."""
    failed = f"  {reason(record.failure)}" if record.failure else ""
    if record.stopped:
        after = counted(record.rung_epochs[-1], "epoch")
        return f"stopped after {after} with {record.rung_errors[-1]:.1f} %{_costs(record)}  {record.label}"
    return f"val {error_text(record):>10} %{_costs(record)}  {_seconds(record.seconds)}  {record.label}{failed}"


def tested(record: Record) -> str:
    """`test 81.63 ± 0.21 (3) %  layer2=bam(r=4,d=1)`: all its seeds so far."""
    failed = f"  {reason(record.test_failure)}" if record.test_failure else ""
    return f"test {test_text(record) or 'failed':>16} %  {record.label}{failed}"


def _costs(record: Record) -> str:
    return f"  params {record.params_overhead:+6.2f} %  MACs {record.macs_conv_fc_overhead:+6.2f} %"


def _seconds(seconds: float | None) -> str:
    return f"{seconds:6.1f} s" if seconds is not None else " " * 8


def reason(failure: str) -> str:
    """The last line of a traceback; empty for none."""
    return failure.strip().splitlines()[-1] if failure else ""
