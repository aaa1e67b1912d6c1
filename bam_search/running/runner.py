"""Run or continue a study on one space: search, latency, finalists, report.

Knows no command line: what happens is told to a `Watcher`.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bam_search.analysis.findings import Findings
from bam_search.errors import ExplainedError, RunError, UserError, last_line
from bam_search.report.page import PAGE
from bam_search.report.publish import publish
from bam_search.running.describe import about_of, identity_of, report_context
from bam_search.running.forecast import MEASURING, Forecast, calibrate, forecast, sizes, told
from bam_search.running.latency import increments, increments_line, measured
from bam_search.running.plan import Plan, plan_lines, planned
from bam_search.running.prepare import Request, ResolvedRun
from bam_search.running.refresh import Refresh
from bam_search.running.smoke import with_few_tests
from bam_search.running.timing import Clock, Timing
from bam_search.score.context import autocast_restored
from bam_search.score.evaluate import Experiment
from bam_search.score.latency_table import LatencyTable
from bam_search.search.executors import EXECUTORS, Submit
from bam_search.search.finalists import (
    ablations,
    choose_finalists,
    nothing_left,
    train_ablations,
    train_finalists,
)
from bam_search.search.lock import locked
from bam_search.search.loop import OnResult, SearchContext, random_baseline, random_size, search
from bam_search.search.status import FINISHED, StatusFile, state_words
from bam_search.search.storage import StudyStorage
from bam_search.search.store import (
    CHECKPOINTS,
    Store,
    archive,
    has_identity,
    open_store,
    read_store,
)
from bam_search.search.study import Study
from bam_search.search.warm_start import Backbone
from bam_search.search.workload import ABLATIONS, FINALISTS, RANDOM_BASELINE, first_phase
from bam_search.study.record import LATENCIES, METRIC, Record, main_records
from bam_search.tasks.task import Dataset
from bam_search.words import counted

NOTHING_LEFT = "nothing is left to train"
CTRL_C = "Ctrl-C"
"""What Python's own KeyboardInterrupt, which has no text, comes from."""
AT_LEAST = 0.2
"""Seconds for which a speed is measured before the study."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted; all that was finished is written, and the same request continues."""


class Watcher(Protocol):
    """Whom a run tells what happens."""

    def say(self, line: str) -> None:
        """Take a line for a person."""
        ...

    def busy(self, what: str) -> AbstractContextManager[object]:
        """The context in which the run does `what`, which takes some seconds."""
        ...

    def stage(self, stage: "Stage") -> AbstractContextManager[OnResult]:
        """The context of a stage; gives what is called with each finished record."""
        ...


@dataclass(frozen=True)
class Stage:
    """Trainings of one kind: the phase `number` of `phases`.

    `done` of `total` are finished before it begins; `final`: they are final trainings. `left` gives
    the seconds to the end of the run, and None if that is not known.
    """

    title: str
    number: int
    phases: int
    done: int
    total: int
    final: bool
    left: Callable[[], float | None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its page, its findings, and why it could not deliver, if it could not."""

    page: Path
    findings: Findings
    failure: RunError | None


@dataclass(frozen=True, eq=False)
class Run:
    """A study on one space, in its folder.

    `command` is how it was asked for; `plan` is that of its budget, if it has one; `began` is the
    `time.monotonic` at which it did.
    """

    ready: ResolvedRun
    data: Dataset
    folder: Path
    command: str
    watcher: Watcher
    storage: StudyStorage
    experiment: Experiment
    context: SearchContext
    identity: dict[str, Any]
    plan: Plan | None
    began: float

    @classmethod
    def of(
        cls,
        ready: ResolvedRun,
        request: Request,
        data: Dataset,
        folder: Path,
        command: str,
        watcher: Watcher,
    ) -> "Run":
        """The run of a resolved request, with the plan for its budget.

        Raises UserError if there are too few samples, or as `planned` does.
        """
        watcher.say(f"{ready.first_line}; data: {_data_words(ready, data)}")
        total, test = len(data.train), len(data.test)
        ready, plan = planned(ready, request, total, test, folder, watcher.busy)
        return cls(
            ready=ready,
            data=data,
            folder=folder,
            command=command,
            watcher=watcher,
            storage=StudyStorage.of(folder, ready.options.storage, ready.name),
            experiment=_experiment(ready, data, folder),
            context=SearchContext(
                data.name,
                ready.task.metric,
                ready.references,
                ready.sites,
                ready.choice_space,
                ready.costs,
            ),
            identity=identity_of(ready, data),
            plan=plan,
            began=time.monotonic(),
        )

    @property
    def clock(self) -> Clock:
        """When the run should end: as its plan says, and not after its time limit."""
        clock = self.plan.clock(self.began) if self.plan else Clock()
        limit = self.ready.options.time_limit
        latest = math.inf if limit is None else self.began + limit
        return replace(clock, ends=min(clock.ends, latest))

    @property
    def spent_plan(self) -> dict[str, Any] | None:
        """The plan with the time that this run has had, for study.json; None without one."""
        if self.plan is None:
            return None
        return self.plan.after(time.monotonic() - self.began).to_dict()


def run(the: Run) -> Outcome:
    """Run or continue the study, and write its report into its folder.

    Raises UserError and RunError, and Interrupted once all that is finished is written.
    """
    ready, options = the.ready, the.ready.options
    data = the.data
    expected = _forecast(the)
    the.watcher.say(NOTHING_LEFT if expected is None else told(expected))
    for line in (*ready.opening_lines(data), *_plan_lines(the)):
        the.watcher.say(line)
    timing = Timing(the.clock, ready.study, expected if isinstance(expected, Forecast) else None)
    # The executor comes first: if there is no such cluster, nothing has been written.
    with contextlib.ExitStack() as workers:
        workers.enter_context(autocast_restored(ready.device.type))
        executor = EXECUTORS[options.executor]
        submit = workers.enter_context(
            executor(the.experiment, ready.study.workers, options.address or "auto")
        )
        with locked(the.folder, the.command) as status, the.storage.reserved():
            if _begins_anew(the):
                for name in archive(the.folder, the.storage):
                    the.watcher.say(f"the study that was there is now {name}")
            store = open_store(
                the.folder, the.identity, ready.study.objectives, the.storage, _maximised(ready)
            )
            submit = status.watched(submit, ready.study.workers)
            return _drive(the, store, status, submit, workers, timing)


def _begins_anew(the: Run) -> bool:
    """Whether what is in the folder is set aside: if asked to, and where smoke runs lie."""
    options = the.ready.options
    if options.force_new:
        return True
    is_smoke = the.ready.smoke and options.out is None
    return is_smoke and not has_identity(the.folder, the.identity)


def _with_latencies(the: Run, store: Store) -> Run:
    """The run with what attention adds to the latency, if it needs to know that before training.

    It is measured once, and kept, so that a continued study proposes what it would have.
    """
    if not the.ready.study.latencies:
        return the
    known = store.increments()
    if known is not None:
        table = LatencyTable(**known)
    else:
        with the.watcher.busy("measuring what attention adds to the latency"):
            table = increments(the.ready)
        store.add_increments(asdict(table))
        the.watcher.say(increments_line(table))
    return replace(the, context=replace(the.context, latencies=table))


def _maximised(ready: ResolvedRun) -> tuple[str, ...]:
    """Return the objectives that are better when larger: the metric, or none."""
    return (METRIC,) if ready.task.metric.larger_is_better else ()


def _experiment(ready: ResolvedRun, data: Dataset, folder: Path) -> Experiment:
    study = ready.study
    data_split = ready.task.split(data, study.data.sizes(len(data.train)), study.seed)
    if ready.smoke:
        data_split = with_few_tests(data_split)
    checkpoints = (folder / CHECKPOINTS).absolute()
    return Experiment(
        study.task,
        study.space,
        ready.sites,
        data_split,
        study.recipe,
        ready.device,
        ready.threads,
        checkpoints,
        ready.module_files,
        ready.source.inputs,
        ready.start,
        study.data.device_bytes,
        code=ready.code,
    )


def _data_words(ready: ResolvedRun, data: Dataset) -> str:
    """The name of the data, and what they are: as their source says it, if it could look."""
    if not ready.source.at_hand:
        return f"{data.name} ({data.origin})"
    text = ready.source.text
    return text if text.startswith(f"{data.name}:") else f"{data.name}, {text}"


def _forecast(the: Run) -> Forecast | str | None:
    """Return how long the study takes, a line that says why it is not known, or None.

    The speed is that of the plan, or is measured for a moment; None: nothing is left to train.
    """
    ready, total, test = the.ready, len(the.data.train), len(the.experiment.split.test)
    # The files of a study that is set aside may be damaged: they are not read.
    is_same = not ready.options.force_new and has_identity(the.folder, the.identity)
    is_continued = is_same and the.storage.exists()
    if is_continued and nothing_left(ready.study, the.context, read_store(the.folder)):
        return None
    if the.plan:
        return the.plan.forecast(ready, total, test)
    with the.watcher.busy(MEASURING):
        speed = calibrate(ready, AT_LEAST)
    if isinstance(speed, str):
        return speed
    return forecast(ready.study, sizes(ready, ready.study, total, test), speed)


def _plan_lines(the: Run) -> tuple[str, ...]:
    if the.plan is None:
        return ()
    return plan_lines(the.ready, the.plan, len(the.data.train), len(the.data.test))


def _drive(
    the: Run,
    store: Store,
    status: StatusFile,
    submit: Submit,
    workers: contextlib.ExitStack,
    timing: Timing,
) -> Outcome:
    """Train all that the study has left to train, and write its report.

    `workers` is closed when nothing is left to train.

    Raises RunError, OSError and Interrupted.
    """
    write_page = partial(_report, the, store, status)
    try:
        write_page()  # `report` can then show the study while it runs
        the = _with_latencies(the, store)
        _train(the, store, status, submit, Refresh(write_page), timing)
        return _outcome(the, store, status)
    except KeyboardInterrupt as interrupt:
        workers.close()
        with contextlib.suppress(RunError):
            store.leave()
        by = str(interrupt) or CTRL_C
        status.tell(ended=f"interrupted by {by}")
        write_page()
        raise Interrupted(by) from None
    except (ExplainedError, OSError) as error:
        with contextlib.suppress(ExplainedError, OSError):  # the disk may be full
            store.leave()
            status.tell(ended=f"failed: {getattr(error, 'message', error)}")
            write_page()
        if isinstance(error, UserError):  # what was asked for was right when the study began
            raise RunError(error.message, error.hint) from error
        raise


def _train(
    the: Run,
    store: Store,
    status: StatusFile,
    submit: Submit,
    refresh: Callable[[], None],
    timing: Timing,
) -> None:
    """Train every stage; each finished record goes to the watcher, the folder and the limit.

    `refresh` is called after each.
    """
    failed: set[int] = set()
    phases = _phases(the.ready)

    @contextlib.contextmanager
    def stage(title: str, done: int, total: int, final: bool = False) -> Iterator[OnResult]:
        """Yield a function to call with each finished record of the stage `title`.

        It tells the watcher, writes the status of the study, and raises RunError if too many have
        failed.
        """

        def until(now_done: int) -> float | None:
            records = list(store.records().values())
            seconds = timing.left(title, now_done, total, records)
            return None if seconds is None else time.time() + seconds

        status.tell(stage=title, done=done, total=total, until=until(done))
        counter = itertools.count(done + 1)
        number = phases.index(title) + 1
        told_stage = Stage(title, number, len(phases), done, total, final, status.left)
        with the.watcher.stage(told_stage) as show:

            def on_result(record: Record) -> None:
                now_done = next(counter)
                status.tell(done=now_done, until=until(now_done))
                show(record)
                refresh()
                _check_failures(record, failed, the.ready.options.max_failures)

            yield on_result

    _stages(the, store, submit, stage, timing)


def _phases(ready: ResolvedRun) -> list[str]:
    """The titles of the stages that a run has, in their order."""
    study = ready.study
    has = {
        first_phase(study): True,
        RANDOM_BASELINE: study.random_baseline and study.searches,
        FINALISTS: True,
        ABLATIONS: study.ablates,
    }
    return [title for title, is_there in has.items() if is_there]


def _check_failures(record: Record, failed: set[int], most: int | None) -> None:
    """Add the record to `failed` if it has failed.

    Raises RunError if `most` candidates have failed.
    """
    failure = record.failure or record.test_failure
    if not failure:
        return
    failed.add(record.number)
    if len(failed) == most:
        raise RunError(
            f"{most} failed, which is --max-failures; "
            f"the last one, #{record.tag}, with: {last_line(failure)}",
            "the report has the tracebacks; the same command continues",
        )


class OpenStage(Protocol):
    """What opens a stage of `_train`."""

    def __call__(
        self, title: str, done: int, total: int, final: bool = False
    ) -> AbstractContextManager[OnResult]: ...


def _stages(the: Run, store: Store, submit: Submit, stage: OpenStage, timing: Timing) -> None:
    """Search, train the random baseline, and train and test the finalists."""
    study = the.ready.study
    the = _warmed(the, store, submit)
    _search(the, store, submit, stage, timing)
    candidates = main_records(store.records().values())
    searched = any(record.complete and record.is_searched for record in candidates)
    if study.searches and not searched:
        return  # there is nothing to compare the references with
    if study.random_baseline and study.searches:
        drawn = sum(record.is_random for record in store.records().values())
        size = random_size(study, {record.number: record for record in candidates})
        with stage(RANDOM_BASELINE, drawn, size) as on_result:
            random_baseline(study, the.context, store, submit, on_result)
    _test_finalists(the, store, submit, stage, timing)
    _test_ablations(the, store, submit, stage)


def _warmed(the: Run, store: Store, submit: Submit) -> Run:
    """The run with the trained backbone that its candidates start from, where they have one."""
    study, ready = the.ready.study, the.ready
    if not study.backbone_epochs or nothing_left(study, the.context, store):
        return the
    backbone = Backbone.read(store.folder)
    if backbone is None:
        epochs = counted(study.backbone_epochs, "epoch")
        with the.watcher.busy(f"training the backbone that candidates start from, for {epochs}"):
            backbone = Backbone.trained(study, submit)
        backbone.write(store.folder)
    return replace(the, context=replace(the.context, start=backbone.start(ready.start)))


def _search(the: Run, store: Store, submit: Submit, stage: OpenStage, timing: Timing) -> None:
    """Train the references and the candidates of the search that are not finished yet."""
    study = the.ready.study
    finished = main_records(store.records().values())
    if finished:
        the.watcher.say(
            f"continuing in {store.folder}: "
            f"{len(finished)} of {study.trials} candidates are finished"
        )

    def is_over() -> bool:
        records = list(store.records().values())
        finalists = partial(choose_finalists, study, the.context.choice_space, records)
        return timing.search_is_over(records, finalists)

    with stage(first_phase(study), len(finished), study.trials) as on_result:
        search(study, the.context, store, submit, on_result, is_over)
    candidates = main_records(store.records().values())
    if len(candidates) < study.trials:
        counts = f"{len(candidates)} candidates instead of {study.trials}"
        no_time = "the search ends here, in time for the finals"
        no_more = "the space has no further placement within the limits"
        the.watcher.say(f"{no_time if is_over() else no_more}: {counts}")


def _test_finalists(
    the: Run, store: Store, submit: Submit, stage: OpenStage, timing: Timing
) -> None:
    """Choose the finalists, train them again with fresh seeds, and test them."""
    study, context = the.ready.study, the.context
    finalists = choose_finalists(study, context.choice_space, list(store.records().values()))
    _time(the, store, finalists)
    total = len(finalists) * study.finalists.seeds
    further = study.finalists.further(len(finalists))
    more = f", and at most {further} more where they cannot be told apart" if further else ""
    if timing.clock.fills:
        more = ", and further ones as long as there is time"
    the.watcher.say(
        f"finalists: {len(finalists)}, {total} trainings "
        f"on {len(the.experiment.split.train):,} training {the.ready.task.sample}s "
        f"with fresh seeds{more}; each is tested once"
    )
    done = _final_trainings(store, ablations=False)
    most = total + further
    if timing.clock.fills:
        most = max(total, done + timing.fitting(list(store.records().values())))
    allowed = timing.for_finals(lambda: list(store.records().values()))
    with stage(FINALISTS, done, most, final=True) as on_result:
        train_finalists(study, context, store, submit, on_result, allowed)


def _test_ablations(the: Run, store: Store, submit: Submit, stage: OpenStage) -> None:
    """Train and test the recommended placement without each of its sites."""
    study, context = the.ready.study, the.context
    without = ablations(study, context, list(store.records().values()))
    total = len(without) * study.finalists.seeds
    if not total:
        return
    done = _final_trainings(store, ablations=True)
    with stage(ABLATIONS, done, total, final=True) as on_result:
        train_ablations(study, context, store, submit, on_result)
    _time(the, store, [store.records()[record.number] for record in without])


def _time(the: Run, store: Store, records: Sequence[Record]) -> None:
    """Measure the latencies of these records that are not known, while no worker trains.

    Finalists come before their trainings: what was measured decides which of them are recommended,
    and so which get further seeds.
    """
    untimed = [r for r in records if any(getattr(r, key) is None for key in LATENCIES)]
    if not untimed:
        return
    with the.watcher.busy(f"measuring the latency of {counted(len(untimed), 'placement')}"):
        for record, latencies in zip(untimed, measured(the.ready, untimed), strict=True):
            for key, found in latencies.items():
                percent = [100 * (ratio - 1) for ratio in (found.ratio, found.low, found.high)]
                store.add_latency(record.number, key, percent[0], (percent[1], percent[2]))


def _final_trainings(store: Store, ablations: bool) -> int:
    """How many final trainings there have been: of ablations, or of finalists."""
    records = store.records()
    return sum(records[number].is_ablation == ablations for number, _ in store.final_seeds())


def _why_no_answer(ready: ResolvedRun, records: Sequence[Record], page: Path) -> RunError | None:
    """Return why the study has nothing to report, or None if it has."""
    hint = f"the tracebacks are in {page}"
    if _all_failed(records):
        reason = last_line(records[0].failure)
        return RunError(f"no candidate could be trained; the first failed with: {reason}", hint)
    searched = [record for record in records if record.is_searched]
    if ready.study.searches and not searched:
        return _nothing_within_limits(ready.study)
    if _all_failed(searched):
        reason = last_line(searched[0].failure)
        return RunError(f"every searched candidate failed; the first with: {reason}", hint)
    return None


def _all_failed(records: Sequence[Record]) -> bool:
    """Return whether there are records and none is complete."""
    return bool(records) and not any(record.complete for record in records)


def _nothing_within_limits(study: Study) -> RunError:
    limits = ", ".join(f"{key} {limit:g} %" for key, limit in study.limits.items())
    return RunError(
        "there is nothing to search: "
        f"no placement of the space is within the limits ({limits or 'none'})",
        "raise max_params_overhead or max_macs_overhead, or a limit of latency, or offer larger r; "
        "`count` shows what placements cost",
    )


def _outcome(the: Run, store: Store, status: StatusFile) -> Outcome:
    """Write the report, and return what the study came to."""
    page = store.folder / PAGE
    failure = _why_no_answer(the.ready, list(store.records().values()), page)
    status.tell(ended=f"failed: {failure.message}" if failure else FINISHED)
    return Outcome(*_report(the, store, status), failure)


def _report(the: Run, store: Store, status: StatusFile) -> tuple[Path, Findings]:
    """Write the report of the records so far, and return its page and what was found."""
    about = about_of(the.ready, the.data, the.experiment.split, the.command, store.folder)
    store.describe(about, the.ready.study.data.source, the.spent_plan)
    context = report_context(the.ready, the.data, the.experiment.split, store.folder, about)
    context = replace(context, state=state_words(status.status, runs=True))
    return publish(store.folder, context, list(store.records().values()))
