"""`run_study`: run a study from Python, in a script or a notebook."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bam_search.analysis.findings import Findings
from bam_search.analysis.recommendation import Recommendation
from bam_search.config import nested, overlay
from bam_search.errors import UserError
from bam_search.report.tables import record_frame
from bam_search.running.prepare import Request, RunOptions, one_per_space, resolve_run, worth
from bam_search.running.runner import Run, Stage, run
from bam_search.search.loop import OnResult
from bam_search.search.study import Study
from bam_search.study.record import Record

LOGGER = logging.getLogger("bam_search")


@dataclass(frozen=True)
class StudyResult:
    """A finished study: all that is known of it, and its page, an HTML file in its folder."""

    findings: Findings
    page: Path

    @property
    def records(self) -> tuple[Record, ...]:
        """Every candidate, in the order of their numbers."""
        return self.findings.records

    @property
    def front(self) -> tuple[Record, ...]:
        """The Pareto front of the references and the searched candidates, the cheapest first."""
        return self.findings.front

    @property
    def recommendation(self) -> Recommendation | None:
        """The cheapest tested placement that none is measurably better than; None without one."""
        return self.findings.recommendation

    def dataframe(self) -> pd.DataFrame:
        """One row a record, with the columns of `records.csv`."""
        return record_frame(self.records)


def run_study(
    study: str | Path | Study,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_result: Callable[[Record], None] | None = None,
    executor: str = "local",
    address: str | None = None,
    smoke: bool = False,
    budget: float | None = None,
) -> StudyResult:
    """Run a study, or continue the one in its folder, and write its report.

        >>> from bam_search import run_study
        >>> result = run_study(
        ...     "placement",
        ...     data="cifar100.npz",
        ...     device="cpu",
        ...     out="placement",
        ...     overrides={
        ...         "trials": 5,
        ...         "workers": 1,
        ...         "data.images": 500,
        ...         "recipe.epochs": 1,
        ...         "finalists.seeds": 1,
        ...     },
        ... )
        >>> [record.name for record in result.records[:2]]
        ['no attention', 'BAM at the bottlenecks']
        >>> result.page
        PosixPath('placement/index.html')

    What happens is logged by the logger "bam_search". Worker processes import the main script
    again: in a script, call it below `if __name__ == "__main__":`.

    Args:
        study: the name of a study, the path of its file, or a `Study`.
        data: a path (photos/, mine.npz, cifar-100-python/) or a name that the task knows ("auto",
            "cifar100", "generated"); by default what the study says.
        device: "auto", "cpu" or "cuda".
        out: the study's folder; by default reports/NAME.
        overrides: other values of the study's keys, {"recipe.epochs": 2} or nested tables, whose
            own keys may have dots.
        on_result: called with each finished record, and again with each further training of it.
        executor: who trains: "local", worker processes of this machine, or "ray".
        address: of a Ray cluster, or "local" to start one here; by default the one that runs.
        smoke: as small as the study can be, to see that it works; `overrides` stay.
        budget: seconds that the study may take; a plan chooses its images, epochs, candidates and
            seeds, except for those among `overrides`. A smoke run takes none.

    Raises:
        UserError: a mistake in the request; nothing was written.
        RunError: the study could not deliver; what is finished is kept.
        KeyboardInterrupt: it was interrupted; what is finished is kept.
    """
    asked = study if isinstance(study, Study) else str(study)
    flags = _nested(overrides or {})
    if data is not None:
        flags = overlay(flags, {"data": {"source": str(data)}})
    out = None if out is None else Path(out)
    options = RunOptions(out=out, executor=executor, address=address, budget=budget)
    request = Request(asked, device, (), flags, options, progress=_steps, smoke=smoke)
    requests = one_per_space(request)
    if len(requests) > 1:
        raise UserError(
            f"the study has {len(requests)} spaces", "name one: overrides={'space': 'resnet18'}"
        )
    ready = resolve_run(requests[0])
    dataset = ready.source.load()
    allowed = worth(requests[0], ready, dataset)
    if allowed != requests[0]:
        ready = resolve_run(allowed)
    folder = allowed.folder(dataset) / ready.part
    watcher, command = _Logged(on_result), f"run_study({asked!r})"
    outcome = run(Run.of(ready, allowed, dataset, folder, command, watcher))
    if outcome.failure is not None:
        raise outcome.failure
    return StudyResult(outcome.findings, outcome.page)


@contextlib.contextmanager
def _steps(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Log how many steps reading the data has."""
    LOGGER.info("%s: %d", title, total)
    yield lambda _steps: None


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides with dotted keys as nested tables; keys in tables stay as they are."""
    tables: dict[str, Any] = {}
    for key, value in overrides.items():
        tables = overlay(tables, nested(key, value))
    return tables


@dataclass(frozen=True)
class _Logged:
    """Reports a run's progress to the logger, and each finished record to `on_result`."""

    on_result: Callable[[Record], None] | None

    def say(self, line: str) -> None:
        LOGGER.info(line)

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        LOGGER.info(what)
        yield

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> Iterator[OnResult]:
        LOGGER.info("%s: %d of %d are done", stage.title, stage.done, stage.total)
        yield self.on_result or _ignore


def _ignore(_record: Record) -> None:
    """Do nothing with it."""
