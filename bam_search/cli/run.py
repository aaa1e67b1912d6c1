"""`run`: from a request to a report, room by room."""

import contextlib
import datetime
import itertools
import math
import platform
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import click
import torch
from rich.console import Console

from bam_search import __version__
from bam_search.cli import progress
from bam_search.cli.compare import check_free, compare
from bam_search.cli.forecast import forecast, sizes, told
from bam_search.cli.prepare import Request, ResolvedRun, one_per_space, resolve_run
from bam_search.errors import ExplainedError, RunError, first_line
from bam_search.model.attention import module_files
from bam_search.model.build import build
from bam_search.report.page import answer_line, verdict_lines, write_report
from bam_search.report.paper_table import Paper
from bam_search.report.payload import ReportContext
from bam_search.report.tables import answers
from bam_search.score.context import uses_bf16
from bam_search.score.cost import COUNTS
from bam_search.score.cuda_graphs import NotOneGraph
from bam_search.score.data import CIFAR, Dataset, Split, split
from bam_search.score.evaluate import Task
from bam_search.score.latency import LatencySetting, latency
from bam_search.search.executors import EXECUTORS, Submit
from bam_search.search.finalists import (
    ablations,
    choose_finalists,
    nothing_left,
    train_finalists,
)
from bam_search.search.lock import LOCK, locked
from bam_search.search.loop import SearchContext, random_baseline, random_size, search
from bam_search.search.record import RANDOM, SEARCH, Record, main_records
from bam_search.search.status import STATUS, StatusFile
from bam_search.search.storage import StudyStorage
from bam_search.search.store import (
    CHECKPOINTS,
    MODULE_FILES,
    Store,
    archive,
    has_identity,
    open_store,
    read_store,
)
from bam_search.search.study import Study
from bam_search.space.modules import ModuleFile, digest_of
from bam_search.words import counted

AT_LEAST = 0.2
"""Seconds for which a speed is measured before the study."""
LATENCY_BATCH = 32
"""Images at once when latency is measured."""
PACKAGES = ("torch", "torchvision", "optuna", "fvcore", "scipy", "plotly", "pandas")
"""The packages whose versions a report names."""
NOT_IDENTITY = (
    "question",
    "spaces",
    "claim",
    "paper",
    "trials",
    "workers",
    "random_baseline",
    "finalists",
)
"""The keys of a study that a continued run may change."""


def execute(request: Request) -> int:
    """Run or continue the study on each of its spaces, and write its reports.

    Returns the exit code. Raises UserError and RunError.
    """
    console = Console(stderr=True)
    _answer_signals(request.options.time_limit)
    readies = [resolve_run(request_of_space) for request_of_space in one_per_space(request)]
    # The status is shown on a terminal only: the first line that stays says what the data are.
    with console.status("reading the data"):
        data = readies[0].source.load()
    default_name = request.name if data.name == CIFAR else f"{request.name}-generated"
    folder = request.options.out or Path("reports") / default_name
    if len(readies) == 1:
        return _run(readies[0], data, folder / readies[0].part)
    return _run_each(readies, data, folder)


def _run_each(readies: list[ResolvedRun], data: Dataset, folder: Path) -> int:
    """Run the study on each space below `folder`, and compare those that finished."""
    check_free(folder)
    codes: dict[Path, int] = {}
    for ready in readies:
        below = folder / ready.part
        codes[below] = _run(ready, data, below)
        if codes[below] == 130:
            return 130
    finished = [below for below, code in codes.items() if code == 0]
    if len(finished) > 1:
        compare(finished, folder)
    return max(codes.values())


def _answer_signals(limit: float | None) -> None:
    """Let a scheduler's SIGTERM, and the end of the time limit, do what Ctrl-C does.

    `limit` is in seconds.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        is_limit = number == signal.SIGALRM
        raise KeyboardInterrupt("the time limit" if is_limit else signal.Signals(number).name)

    # SIGINT too: a command that a shell starts in the background ignores it otherwise.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, end)
    signal.setitimer(signal.ITIMER_REAL, limit or 0)


def _run(ready: ResolvedRun, data: Dataset, folder: Path) -> int:
    """Run or continue the study on one space, and write its report into `folder`.

    Returns the exit code.
    """
    options = ready.options
    storage = StudyStorage.of(folder, options.storage, ready.name)
    task = _task(ready, data, folder)
    context = _context(ready, data)
    identity = _identity(ready, data)
    time = _time_words(ready, context, identity, task.split, folder, storage)
    _say(f"{ready.first_line}; data: {data.name} ({data.origin}); {time}")
    for note in (*ready.notes, *ready.advice):
        _say(note)
    # The executor comes first: if there is no such cluster, nothing has been written.
    with contextlib.ExitStack() as workers:
        executor = EXECUTORS[options.executor]
        submit = workers.enter_context(
            executor(task, ready.study.workers, options.address or "auto")
        )
        with locked(folder, _command()) as status, storage.reserved():
            if options.force_new:
                for name in archive(folder, storage, but=(LOCK, STATUS)):
                    _say(f"the study that was there is now {name}")
            store = open_store(folder, identity, ready.study.objectives, storage)
            return _drive(
                ready, data, context, task, store, status, status.watched(submit), workers
            )


def _context(ready: ResolvedRun, data: Dataset) -> SearchContext:
    return SearchContext(data.name, ready.references, ready.sites, ready.choice_space, ready.costs)


def _time_words(
    ready: ResolvedRun,
    context: SearchContext,
    identity: dict[str, Any],
    parts: Split,
    folder: Path,
    storage: StudyStorage,
) -> str:
    """Return how long the study will take, from a speed that is measured for a moment.

    Nothing is measured where nothing is left to train.
    """
    is_continued = not ready.options.force_new and has_identity(folder, identity)
    if is_continued and storage.exists() and nothing_left(ready.study, context, read_store(folder)):
        return "nothing is left to train"
    of = sizes(ready, len(parts.fit), len(parts.validation), len(parts.test))
    with Console(stderr=True).status("measuring how fast this device trains"):
        return told(forecast(ready, of, AT_LEAST))


def _drive(
    ready: ResolvedRun,
    data: Dataset,
    context: SearchContext,
    task: Task,
    store: Store,
    status: StatusFile,
    submit: Submit,
    workers: contextlib.ExitStack,
) -> int:
    """Train all that the study has left to train, and write its report.

    Returns the exit code. `workers` is closed when nothing is left to train.

    Raises RunError and OSError.
    """
    _report(ready, data, task.split, store)  # `report` can then show the study while it runs
    try:
        _train(ready, context, task, store, status, submit)
        workers.close()  # they would disturb what is timed now
        status.tell(stage="latency of the finalists", done=0, total=0)
        _time(ready, store)
        code = _close(ready, data, task.split, store)
        status.tell(ended="finished" if code == 0 else "could not deliver")
        return code
    except KeyboardInterrupt as interrupt:
        workers.close()
        _report(ready, data, task.split, store)
        status.tell(ended=f"interrupted by {interrupt}")
        _say(
            f"interrupted by {interrupt}; finished candidates are kept, "
            f"and the same command continues:\n  {_command()}"
        )
        return 130
    except (RunError, OSError) as error:
        with contextlib.suppress(ExplainedError, OSError):  # the disk may be full
            status.tell(ended=f"failed: {error}")
            _report(ready, data, task.split, store)
        raise


def _task(ready: ResolvedRun, data: Dataset, folder: Path) -> Task:
    data_split = split(data, ready.study.data.limit, ready.study.data.validation, ready.study.seed)
    checkpoints = (folder / CHECKPOINTS).absolute()
    return Task(
        ready.study.space,
        ready.sites,
        data_split,
        ready.study.recipe,
        ready.device,
        ready.threads,
        checkpoints,
        _user_modules(ready),
    )


def _train(
    ready: ResolvedRun,
    context: SearchContext,
    task: Task,
    store: Store,
    status: StatusFile,
    submit: Submit,
) -> None:
    """Train every stage; each finished record goes to the screen, the folder and the limit."""
    failed: set[int] = set()

    @contextlib.contextmanager
    def stage(title: str, line: progress.Line, done: int, total: int) -> Iterator[progress.Told]:
        """Yield a function to call with each finished record of the stage `title`.

        It prints the record's `line`, writes the status of the study, and raises RunError if too
        many have failed.
        """
        status.tell(stage=title, done=done, total=total)
        counter = itertools.count(done + 1)
        with progress.progress(title, done, total, line) as show:

            def on_result(record: Record) -> None:
                show(record)
                status.tell(done=next(counter))
                _check_failures(record, failed, ready.options.max_failures)

            yield on_result

    _stages(ready, context, task, store, submit, stage)


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
            f"the last one, #{record.tag}, with: {progress.reason(failure)}",
            "the report has the tracebacks; the same command continues",
        )


Stage = Callable[[str, progress.Line, int, int], contextlib.AbstractContextManager[progress.Told]]


def _stages(
    ready: ResolvedRun,
    context: SearchContext,
    task: Task,
    store: Store,
    submit: Submit,
    stage: Stage,
) -> None:
    """Search, train the random baseline, and train and test the finalists."""
    study = ready.study
    _search(study, context, store, submit, stage)
    candidates = main_records(store.records().values())
    searched = any(record.complete and record.origin == SEARCH for record in candidates)
    if ready.searches and not searched:
        return  # there is nothing to compare the references with
    if study.random_baseline and searched:
        drawn = sum(record.origin == RANDOM for record in store.records().values())
        size = random_size(study, {record.number: record for record in candidates})
        with stage("random search of the same cost", progress.searched, drawn, size) as on_result:
            random_baseline(study, context, store, submit, on_result)
    _test_finalists(study, context, task, store, submit, stage)


def _search(
    study: Study, context: SearchContext, store: Store, submit: Submit, stage: Stage
) -> None:
    """Train the references and the candidates of the search that are not finished yet."""
    finished = main_records(store.records().values())
    if finished:
        _say(
            f"continuing in {store.folder}: "
            f"{len(finished)} of {study.trials} candidates are finished"
        )
    with stage("search", progress.searched, len(finished), study.trials) as on_result:
        search(study, context, store, submit, on_result)
    candidates = main_records(store.records().values())
    if len(candidates) < study.trials:
        _say(
            "the space has no further placement within the limits: "
            f"{len(candidates)} candidates instead of {study.trials}"
        )


def _test_finalists(
    study: Study,
    context: SearchContext,
    task: Task,
    store: Store,
    submit: Submit,
    stage: Stage,
) -> None:
    """Choose the finalists, train them on all training images, and test them."""
    finalists = choose_finalists(study, context.choice_space, list(store.records().values()))
    trained = len(finalists) + len(ablations(study, context, finalists))
    total = trained * study.finalists.seeds
    extra = study.finalists.extra
    more = f", and at most {extra:.0%} more where they cannot be told apart" if extra else ""
    _say(
        f"finalists: {len(finalists)}, {total} trainings "
        f"on all {len(task.split.train):,} training images with fresh seeds{more}; "
        "each is tested once"
    )
    most = total + round(extra * len(finalists) * study.finalists.seeds)
    with stage("finalists", progress.tested, len(store.final_seeds()), most) as on_result:
        train_finalists(study, context, store, submit, on_result)


def _time(ready: ResolvedRun, store: Store) -> None:
    """Measure the latency of the finalists, now that no worker trains."""
    for record in list(store.records().values()):
        if record.complete and record.test_errors and record.latency_overhead is None:
            _time_finalist(ready, store, record)


def _time_finalist(ready: ResolvedRun, store: Store, record: Record) -> None:
    net = build(ready.space, ready.sites, record.placement, record.seed)
    backbone = build(ready.space, ready.sites, "none", record.seed)
    try:
        measured = latency(net, backbone, _as_trained(ready))
    except (torch.OutOfMemoryError, torch.AcceleratorError, NotOneGraph) as error:
        raise RunError(
            f"the latency of #{record.tag} cannot be measured: {first_line(error)}",
            "the same command continues",
        ) from None
    overhead, low, high = (
        100 * (ratio - 1) for ratio in (measured.ratio, measured.low, measured.high)
    )
    store.add_latency(record.number, overhead, (low, high))


def _as_trained(ready: ResolvedRun) -> LatencySetting:
    """Return the setting of latency: the precision and CUDA graph that training has."""
    recipe = ready.study.recipe
    return LatencySetting(
        ready.device,
        ready.space.input_shape,
        LATENCY_BATCH,
        uses_bf16(recipe, ready.device),
        recipe.cuda_graph,
    )


def _close(ready: ResolvedRun, data: Dataset, data_split: Split, store: Store) -> int:
    """Write the report and print the closing lines.

    Returns the exit code: 1 if the study could not deliver.
    """
    page = _report(ready, data, data_split, store)
    records = list(store.records().values())
    failure = _why_no_answer(ready, records, page)
    if failure is not None:
        _say(f"error: {failure.message}")
        _say(f"hint: {failure.hint}")
        return 1
    click.echo(f"report: {page}")
    click.echo(_counts_line(records, data))
    for answer in answers(records):
        click.echo(f"  {answer_line(answer)}")
    for i, line in enumerate(verdict_lines(records)):
        click.echo(f"  {line}" if i else line)
    return 0


def _why_no_answer(ready: ResolvedRun, records: list[Record], page: Path) -> RunError | None:
    """Return why the study has nothing to report, or None if it has."""
    hint = f"the tracebacks are in {page}"
    if _all_failed(records):
        reason = progress.reason(records[0].failure)
        return RunError(f"no candidate could be trained; the first failed with: {reason}", hint)
    searched = [record for record in records if record.origin == SEARCH]
    if ready.searches and not searched:
        return _nothing_within_limits(ready.study)
    if _all_failed(searched):
        reason = progress.reason(searched[0].failure)
        return RunError(f"every searched candidate failed; the first with: {reason}", hint)
    return None


def _all_failed(records: list[Record]) -> bool:
    """Return whether there are records and none is complete."""
    return bool(records) and not any(record.complete for record in records)


def _nothing_within_limits(study: Study) -> RunError:
    limits = ", ".join(
        f"{key} {limit:g} %" for key, limit in study.limits.items() if limit < math.inf
    )
    return RunError(
        "there is nothing to search: "
        f"no placement of the space is within the limits ({limits or 'none'})",
        "raise max_params_overhead or max_macs_overhead, or offer larger r; "
        "`count` shows what placements cost",
    )


def _counts_line(records: list[Record], data: Dataset) -> str:
    complete = sum(record.complete for record in records)
    stopped = sum(bool(record.stopped) for record in records)
    failed = sum(bool(record.failure) for record in records)
    line = f"{complete} candidates on {data.name}"
    if stopped:
        line += f", {stopped} stopped early"
    if failed:
        line += f", {failed} failed"
    return line


def _report(ready: ResolvedRun, data: Dataset, data_split: Split, store: Store) -> Path:
    """Write the report of the records so far, and return its page."""
    warning = ""
    if data.name != CIFAR:
        warning = f"These are {data.name}: {data.origin}. Errors say nothing about CIFAR-100."
    about = _about(ready, data, data_split)
    store.describe(about)
    paper = _paper(ready.study, data, len(data_split.fit) + len(data_split.validation))
    context = ReportContext(
        title=f"bam_search: {ready.name}",
        objectives=ready.study.objectives,
        warning=warning,
        about=about,
        choice_space=ready.choice_space,
        startup=ready.study.startup,
        paper=paper,
        sites=ready.sites,
        commands=_commands(ready, store.folder),
        base={key: getattr(ready.costs.base, key) for key in COUNTS},
    )
    return write_report(store.folder, context, list(store.records().values()))


def _commands(ready: ResolvedRun, folder: Path) -> tuple[str, ...]:
    """Return the commands that a report shows for each candidate.

    They count its cost, train it again, map its attention and export it. `{tag}` and
    `{placement}` stand for the candidate's.
    """
    candidate = [str(folder), "--candidate", "{tag}"]
    data = ["--data", ready.study.data.source]
    weights = str(folder / "candidate-{tag}.pt")
    commands = (
        ["count", "--space", ready.study.space, "--placement", "{placement}"],
        ["train", *candidate, *data, "--out", weights],
        ["maps", *candidate, *data, "--weights", weights],
        ["export", *candidate, "--weights", weights],
    )
    return tuple(shlex.join(["python", "-m", "bam_search", *words]) for words in commands)


def _paper(study: Study, data: Dataset, images: int) -> Paper:
    """Return the paper's figures, and how the data of this study differ from the paper's."""
    if data.name != CIFAR:
        ours = data.name
    elif images != 50_000:
        ours = f"{images:,} training images of {data.name}"
    else:
        ours = ""
    return Paper(
        study.claim,
        study.paper,
        study.space,
        ours,
        f"ours, of {counted(study.recipe.epochs, 'epoch')}",
    )


def _identity(ready: ResolvedRun, data: Dataset) -> dict[str, Any]:
    """Return what a continued run must agree with.

    It is all that changes a candidate's score or the choice of candidates.
    """
    table = ready.study.to_dict()
    for key in NOT_IDENTITY:
        del table[key]
    table["data"] = {
        "name": data.name,
        "digest": data.digest,
        "images": table["data"]["images"],
        "validation": table["data"]["validation"],
    }
    table["recipe"]["precision"] = _precision(ready)
    identity = {"bam_search": __version__, "variant": ready.device.variant}
    # A user's file may change between runs, and with it the space.
    file = Path(ready.study.space.partition(":")[0])
    if file.suffix == ".py":
        identity["space_file"] = digest_of(file)
    # So may the file of a user's attention module.
    digests = {name: file.digest for name, file in _user_modules(ready).items()}
    return {**identity, **({MODULE_FILES: digests} if digests else {}), **table}


def _user_modules(ready: ResolvedRun) -> dict[str, ModuleFile]:
    """Return the files of the user's attention modules in the choice space and the references."""
    choices = [choice for placement in ready.references.values() for _, choice in placement.choices]
    used = {choice.module for choice in choices} | set(ready.space.modules)
    return {name: file for name, file in module_files().items() if name in used}


def _about(ready: ResolvedRun, data: Dataset, data_split: Split) -> dict[str, str]:
    """Return the facts about the study that its report lists, by their headings."""
    study = ready.study
    device = ready.device
    date = datetime.datetime.now().astimezone()
    recipe = ", ".join(f"{key} {value}" for key, value in study.to_dict()["recipe"].items())
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Question": study.question,
        "Command": _command(),
        "Date": date.isoformat(timespec="seconds"),
        "Variant": f"{device.variant}, on {device.name}, because {device.reason}",
        "Data": f"{data.name} ({data.origin}), sha256 {data.digest}",
        "Split": _split_words(data_split, study.seed),
        "Backbone": _backbone_words(ready),
        "Space": f"{len(ready.choice_space.sites)} sites, {ready.choice_space.size:,} placements",
        "Search": _search_words(study),
        "References": "; ".join(ready.notes) or "as the study writes them",
        "Recipe": f"{recipe}, which is {_precision(ready)} here",
        "Latency": _latency_words(ready),
        "Versions": f"bam_search {__version__}, Python {platform.python_version()}, {packages}",
    }


def _split_words(data_split: Split, seed: int) -> str:
    fit, validation, test = len(data_split.fit), len(data_split.validation), len(data_split.test)
    return (
        f"{fit:,} images train and {validation:,} validate in the search; "
        f"{fit + validation:,} train and {test:,} test the finalists; stratified, seed {seed}"
    )


def _backbone_words(ready: ResolvedRun) -> str:
    cost = ready.costs.base
    return (
        f"{ready.space.name}: {cost.params:,} parameters, "
        f"{cost.macs_conv_fc:,} MACs conv + fc, {cost.macs:,} MACs all"
    )


def _search_words(study: Study) -> str:
    return (
        f"{study.sampler}, {study.trials} candidates, "
        f"the first {study.startup} searched ones at random, "
        f"seed {study.seed}, {study.workers} at a time; "
        f"minimised: {', '.join(study.objectives)}"
    )


def _latency_words(ready: ResolvedRun) -> str:
    has_graph = ready.device.type == "cuda" and ready.study.recipe.cuda_graph
    graph = ", one CUDA graph timed by the GPU's events" if has_graph else ""
    return (
        f"of finalists: forward passes of {LATENCY_BATCH} images on {ready.device.name}, "
        f"{_precision(ready)}, channels-last{graph}, in turn with the backbone's"
    )


def _precision(ready: ResolvedRun) -> str:
    return "bf16" if uses_bf16(ready.study.recipe, ready.device) else "fp32"


def _command() -> str:
    return shlex.join(["python", "-m", "bam_search", *sys.argv[1:]])


def _say(text: str) -> None:
    click.echo(text, err=True)
