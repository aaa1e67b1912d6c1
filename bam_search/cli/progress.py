"""Talk while a study runs, on stderr: a bar with the time left on a terminal, one aligned line a candidate anywhere else."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bam_search.report.tables import error_text
from bam_search.search.record import Record

Told = Callable[[Record], None]
Line = Callable[[Record], str]


@contextlib.contextmanager
def progress(title: str, done: int, total: int, line: Line) -> Iterator[Told]:
    """A function to tell each finished record: it moves the bar, or prints the record's `line`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda record: console.print(line(record), markup=False, highlight=False, soft_wrap=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, completed=done)

        def tell(record: Record) -> None:
            bar.print(line(record), markup=False, highlight=False, soft_wrap=True)
            bar.advance(task)

        yield tell


def searched(total: int) -> Line:
    """`[ 5/16]  val 81.2 ± 1.0 %  params  +2.56 %  MACs  +2.96 %    13.2 s  layer2=bam(r=4,d=1)`."""
    width = len(str(total))

    def line(record: Record) -> str:
        failed = f"  {_reason(record.failure)}" if record.failure else ""
        head = f"[{record.number + 1:{width}}/{total}]  val {error_text(record):>10} %"
        return f"{head}{_costs(record)}  {_seconds(record.seconds)}  {record.label}{failed}"

    return line


def tested(record: Record) -> str:
    """`  test 81.63 %  (val 81.2 ± 1.0 %)    13.2 s  layer2=bam(r=4,d=1)`."""
    if record.test_error is None:
        return f"  test failed  {record.label}  {_reason(record.test_failure)}"
    return f"  test {record.test_error:5.2f} %  (val {error_text(record)} %)  {_seconds(record.test_seconds)}  {record.label}"


def _costs(record: Record) -> str:
    return f"  params {record.params_overhead:+6.2f} %  MACs {record.macs_conv_fc_overhead:+6.2f} %"


def _seconds(seconds: float | None) -> str:
    return f"{seconds:6.1f} s" if seconds is not None else " " * 8


def _reason(failure: str) -> str:
    return failure.strip().splitlines()[-1] if failure else ""
