"""What stopping candidates early did: the epochs that it cost or saved, how often it was wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from bam_search.analysis.statistics import Mean, rank_correlation
from bam_search.study.record import METRIC, Record, search_epochs, trained_after_rung


@dataclass(frozen=True)
class Rung:
    """What trainings of `epochs` epochs were worth.

    `agreement` is Kendall's tau between their values and those of the full training, of the
    candidates that had both: those that were stopped are missing.
    """

    epochs: int
    agreement: Mean | None


@dataclass(frozen=True)
class Stopping:
    """What stopping candidates early did.

    stopped: how many were stopped.
    control: how many would have been stopped, and were trained to the end all the same.
    wrong: how many of the control group ended on the front.
    spent: the epochs of the search, rungs included.
    without: the epochs that its candidates would have taken without rungs.
    """

    rungs: tuple[Rung, ...]
    stopped: int
    control: int
    wrong: int
    spent: int
    without: int


def stopping(main: Sequence[Record], front: Sequence[Record]) -> Stopping | None:
    """What the rungs did; None if there are none.

    `main` are the references and searched records, and `front` is their Pareto front.
    """
    budgets = sorted({epochs for record in main for epochs in record.rung_epochs})
    if not budgets:
        return None
    control = _control_group(main)
    stopped = [record for record in main if record.stopped]
    return Stopping(
        rungs=tuple(_rung(main, epochs) for epochs in budgets),
        stopped=len(stopped),
        control=len(control),
        wrong=_how_many_of(control, front),
        spent=search_epochs(main),
        without=_epochs_without_rungs(main),
    )


def _control_group(records: Sequence[Record]) -> list[Record]:
    """The records that would have been stopped, and were trained to the end."""
    return [record for record in records if record.control and record.complete]


def _how_many_of(records: Sequence[Record], front: Sequence[Record]) -> int:
    on_front = {record.number for record in front}
    return sum(record.number in on_front for record in records)


def _rung(records: Sequence[Record], epochs: int) -> Rung:
    both = trained_after_rung(records, epochs)
    short = [record.rung_objectives[epochs] for record in both]
    full = [record.objective(METRIC) for record in both]
    return Rung(epochs, rank_correlation(short, full))


def _epochs_without_rungs(records: Sequence[Record]) -> int:
    searched = [record for record in records if record.is_searched]
    return sum(record.epochs for record in searched if record.complete or record.stopped)
