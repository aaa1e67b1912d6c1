"""`run`: from a request to a report, room by room."""

import contextlib
import datetime
import hashlib
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
from bam_search.search.finalists import ablations, choose_finalists, train_finalists
from bam_search.search.lock import LOCK, STATUS, StudyLock, locked
from bam_search.search.loop import SearchContext, random_baseline, random_size, search
from bam_search.search.record import RANDOM, SEARCH, Record, main_records
from bam_search.search.storage import StudyStorage
from bam_search.search.store import CHECKPOINTS, Store, archive, open_store
from bam_search.search.study import Study
from bam_search.words import counted

AT_LEAST = 0.2
"""Seconds for which a speed is measured before the study."""
LATENCY_BATCH = 32
"""Images at once when latency is measured."""


def execute(request: Request) -> int:
    """Run or continue the study, on each of its spaces, write its reports; the exit code."""
    console = Console(stderr=True)
    _answer_signals(request.options.time_limit)
    readies = [resolve_run(part) for part in one_per_space(request)]
    with console.status(
        "reading the data"
    ):  # on a terminal only; the first line that stays tells what the data are
        data = readies[0].source.load()
    folder = request.options.out or Path("reports") / (
        request.name if data.name == CIFAR else f"{request.name}-generated"
    )
    if len(readies) == 1:
        return _run(readies[0], data, folder / readies[0].part)
    check_free(folder)
    codes: dict[Path, int] = {}
    for ready in readies:
        codes[folder / ready.part] = _run(ready, data, folder / ready.part)
        if codes[folder / ready.part] == 130:
            return 130
    done = [part for part, code in codes.items() if code == 0]
    if len(done) > 1:
        compare(done, folder)
    return max(codes.values())


def _answer_signals(limit: float | None) -> None:
    """A scheduler's SIGTERM, and the end of the time limit, do what Ctrl-C does."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(
            "the time limit" if number == signal.SIGALRM else signal.Signals(number).name
        )

    # SIGINT too: a shell that starts a command in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, end)
    signal.setitimer(signal.ITIMER_REAL, limit or 0)


def _run(ready: ResolvedRun, data: Dataset, folder: Path) -> int:
    """Run or continue the study on one space, write its report into `folder`; the exit code."""
    storage = StudyStorage.of(folder, ready.options.storage, ready.name)
    task = _task(ready, data, folder)
    with Console(stderr=True).status("measuring how fast this device trains"):  # on a terminal only
        time = forecast(
            ready,
            sizes(ready, len(task.split.fit), len(task.split.validation), len(data.test)),
            AT_LEAST,
        )
    _say(f"{ready.first_line}; data: {data.name} ({data.origin}); {told(time)}")
    for note in (*ready.notes, *ready.advice):
        _say(note)
    with (
        contextlib.ExitStack() as workers
    ):  # first of all: a cluster that is not there leaves nothing written
        submit = workers.enter_context(
            EXECUTORS[ready.options.executor](
                task, ready.study.workers, ready.options.address or "auto"
            )
        )
        with locked(folder, _command()) as lock, storage.reserved():
            for name in (
                archive(folder, storage, but=(LOCK, STATUS)) if ready.options.force_new else ()
            ):
                _say(f"the study that was there is now {name}")
            store = open_store(folder, _identity(ready, data), ready.study.objectives, storage)
            return _drive(ready, data, task, store, lock, lock.watched(submit), workers)


def _drive(
    ready: ResolvedRun,
    data: Dataset,
    task: Task,
    store: Store,
    lock: StudyLock,
    submit: Submit,
    workers: contextlib.ExitStack,
) -> int:
    """Train, write the report, say what came of it; the exit code.

    `workers` is closed when nothing is left to train.
    """
    _report(ready, data, task.split, store)  # `report` can then show the study while it runs
    try:
        _train(
            ready,
            SearchContext(
                data.name, ready.references, ready.sites, ready.choice_space, ready.costs
            ),
            task,
            store,
            lock,
            submit,
        )
        workers.close()  # they would disturb what is timed now
        lock.tell(stage="latency of the finalists", done=0, total=0)
        _time(ready, store)
        code = _close(ready, data, task.split, store)
        lock.tell(ended="finished" if code == 0 else "could not deliver")
        return code
    except KeyboardInterrupt as interrupt:
        workers.close()
        _report(ready, data, task.split, store)
        lock.tell(ended=f"interrupted by {interrupt}")
        _say(
            f"interrupted by {interrupt}; finished candidates are kept, and the same command continues:\n  {_command()}"
        )
        return 130
    except (RunError, OSError) as error:
        with contextlib.suppress(ExplainedError, OSError):  # the disk may be full
            lock.tell(ended=f"failed: {error}")
            _report(ready, data, task.split, store)
        raise


def _task(ready: ResolvedRun, data: Dataset, folder: Path) -> Task:
    parts = split(data, ready.study.data.limit, ready.study.data.validation, ready.study.seed)
    checkpoints = (folder / CHECKPOINTS).absolute()
    return Task(
        ready.study.space,
        ready.sites,
        parts,
        ready.study.recipe,
        ready.device,
        ready.threads,
        checkpoints,
    )


def _train(
    ready: ResolvedRun,
    context: SearchContext,
    task: Task,
    store: Store,
    lock: StudyLock,
    submit: Submit,
) -> None:
    failed: set[int] = set()

    @contextlib.contextmanager
    def stage(title: str, line: progress.Line, done: int, total: int) -> Iterator[progress.Told]:
        """Who hears of each finished record of a stage: the screen, the folder, and the limit of
        failures.
        """
        lock.tell(stage=title, done=done, total=total)
        counter = itertools.count(done + 1)
        with progress.progress(title, done, total, line) as show:

            def told(record: Record) -> None:
                show(record)
                lock.tell(done=next(counter))
                _check_failures(record, failed, ready.options.max_failures)

            yield told

    _stages(ready, context, task, store, submit, stage)


def _check_failures(record: Record, failed: set[int], most: int | None) -> None:
    """Raises Breakdown if as many candidates have failed as may."""
    if failure := record.failure or record.test_failure:
        failed.add(record.number)
        if len(failed) == most:
            raise RunError(
                f"{most} failed, which is --max-failures; the last one, #{record.tag}, with: {progress.reason(failure)}",
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
    study = ready.study
    if done := main_records(store.records().values()):
        _say(f"continuing in {store.folder}: {len(done)} of {study.trials} candidates are finished")
    with stage("search", progress.searched, len(done), study.trials) as told:
        search(study, context, store, submit, told)
    found = main_records(store.records().values())
    if len(found) < study.trials:
        _say(
            f"the space has no further placement within the limits: {len(found)} candidates instead of {study.trials}"
        )
    searched = any(record.complete and record.origin == SEARCH for record in found)
    if ready.searches and not searched:
        return  # there is nothing to compare the references with
    if study.random_baseline and searched:
        drawn = sum(record.origin == RANDOM for record in store.records().values())
        size = random_size(study, {record.number: record for record in found})
        with stage("random search of the same cost", progress.searched, drawn, size) as told:
            random_baseline(study, context, store, submit, told)
    members = choose_finalists(study, context.choice_space, list(store.records().values()))
    total = (len(members) + len(ablations(study, context, members))) * study.finalists.seeds
    more = (
        f", and at most {study.finalists.extra:.0%} more where they cannot be told apart"
        if study.finalists.extra
        else ""
    )
    _say(
        f"finalists: {len(members)}, {total} trainings on all {len(task.split.train):,} training images with fresh seeds{more}; "
        "each is tested once"
    )
    most = total + round(study.finalists.extra * len(members) * study.finalists.seeds)
    with stage("finalists", progress.tested, len(store.final_seeds()), most) as told:
        train_finalists(study, context, store, submit, told)


def _time(ready: ResolvedRun, store: Store) -> None:
    """Measure the latency of the finalists, now that no worker trains."""
    wanted = [
        r
        for r in store.records().values()
        if r.complete and r.test_errors and r.latency_overhead is None
    ]
    for record in wanted:
        net, base = (
            build(ready.space, ready.sites, placement, record.seed)
            for placement in (record.placement, "none")
        )
        try:
            found = latency(net, base, _as_trained(ready))
        except (torch.OutOfMemoryError, torch.AcceleratorError, NotOneGraph) as error:
            said = first_line(error)
            raise RunError(
                f"the latency of #{record.tag} cannot be measured: {said}",
                "the same command continues",
            ) from None
        overhead, low, high = (100 * (ratio - 1) for ratio in (found.ratio, found.low, found.high))
        store.add_latency(record.number, overhead, (low, high))


def _as_trained(ready: ResolvedRun) -> LatencySetting:
    recipe = ready.study.recipe
    return LatencySetting(
        ready.device,
        ready.space.input_shape,
        LATENCY_BATCH,
        uses_bf16(recipe, ready.device),
        recipe.cuda_graph,
    )


def _close(ready: ResolvedRun, data: Dataset, parts: Split, store: Store) -> int:
    """Write the report and the closing lines; the exit code."""
    page = _report(ready, data, parts, store)
    records = list(store.records().values())
    complete = [record for record in records if record.complete]
    if records and not complete:
        _say(
            f"error: no candidate could be trained; the first failed with: {progress.reason(records[0].failure)}"
        )
        _say(f"hint: the tracebacks are in {page}")
        return 1
    if ready.searches and not any(record.origin == SEARCH for record in records):
        limits = ", ".join(
            f"{key} {limit:g} %" for key, limit in ready.study.limits.items() if limit < math.inf
        )
        _say(
            f"error: there is nothing to search: no placement of the space is within the limits ({limits or 'none'})"
        )
        _say(
            "hint: raise max_params_overhead or max_macs_overhead, or offer larger r; `count` shows what placements cost"
        )
        return 1
    searched = [record for record in records if record.origin == SEARCH]
    if searched and not any(record.complete for record in searched):
        _say(
            f"error: every searched candidate failed; the first with: {progress.reason(searched[0].failure)}"
        )
        _say(f"hint: the tracebacks are in {page}")
        return 1
    stopped, failed = (
        sum(bool(getattr(record, key)) for record in records) for key in ("stopped", "failure")
    )
    click.echo(f"report: {page}")
    counts = f"{len(complete)} candidates on {data.name}"
    click.echo(
        counts
        + (f", {stopped} stopped early" if stopped else "")
        + (f", {failed} failed" if failed else "")
    )
    for answer in answers(records):
        click.echo(f"  {answer_line(answer)}")
    first, *rest = verdict_lines(records) or ("",)
    for line in (first, *(f"  {line}" for line in rest)) if first else ():
        click.echo(line)
    return 0


def _report(ready: ResolvedRun, data: Dataset, parts: Split, store: Store) -> Path:
    warning = (
        ""
        if data.name == CIFAR
        else f"These are {data.name}: {data.origin}. Errors say nothing about CIFAR-100."
    )
    about = _about(ready, data, parts)
    store.describe(about)
    paper = _paper(ready.study, data, len(parts.fit) + len(parts.validation))
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
    """What a reader can do with a candidate: look at its costs, train it again, see where it
    attends, have its code.
    """
    this, weights = [str(folder), "--candidate", "{tag}"], str(folder / "candidate-{tag}.pt")
    words = (
        ["count", "--space", ready.study.space, "--placement", "{placement}"],
        ["train", *this, "--data", ready.study.data.source, "--out", weights],
        ["maps", *this, "--data", ready.study.data.source, "--weights", weights],
        ["export", *this, "--weights", weights],
    )
    return tuple(shlex.join(["python", "-m", "bam_search", *part]) for part in words)


def _paper(study: Study, data: Dataset, images: int) -> Paper:
    same = data.name == CIFAR and images == 50_000
    ours = (
        ""
        if same
        else f"{images:,} training images of {data.name}"
        if data.name == CIFAR
        else data.name
    )
    return Paper(
        study.claim,
        study.paper,
        study.space,
        ours,
        f"ours, of {counted(study.recipe.epochs, 'epoch')}",
    )


def _identity(ready: ResolvedRun, data: Dataset) -> dict[str, Any]:
    """What a continued run must agree with: all that changes a candidate's score or the choice of
    candidates.
    """
    table = ready.study.to_dict()
    for free in (
        "question",
        "spaces",
        "claim",
        "paper",
        "trials",
        "workers",
        "random_baseline",
        "finalists",
    ):
        del table[free]
    table["data"] = {
        "name": data.name,
        "digest": data.digest,
        "images": table["data"]["images"],
        "validation": table["data"]["validation"],
    }
    table["recipe"]["precision"] = _precision(ready)
    file = Path(ready.study.space.partition(":")[0])
    digest = (
        {"space_file": hashlib.sha256(file.read_bytes()).hexdigest()[:12]}
        if file.suffix == ".py"
        else {}
    )
    return {"bam_search": __version__, "variant": ready.device.variant, **digest, **table}


def _about(ready: ResolvedRun, data: Dataset, parts: Split) -> dict[str, str]:
    study, base = ready.study, ready.costs.base
    recipe = ", ".join(f"{key} {value}" for key, value in study.to_dict()["recipe"].items())
    packages = ", ".join(
        f"{name} {version(name)}"
        for name in ("torch", "torchvision", "optuna", "fvcore", "scipy", "plotly", "pandas")
    )
    return {
        "Question": study.question,
        "Command": _command(),
        "Date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "Variant": f"{ready.device.variant}, on {ready.device.name}, because {ready.device.reason}",
        "Data": f"{data.name} ({data.origin}), sha256 {data.digest}",
        "Split": f"{len(parts.fit):,} images train and {len(parts.validation):,} validate in the search; "
        f"{len(parts.fit) + len(parts.validation):,} train and {len(parts.test):,} test the finalists; stratified, seed {study.seed}",
        "Backbone": f"{ready.space.name}: {base.params:,} parameters, {base.macs_conv_fc:,} MACs conv + fc, {base.macs:,} MACs all",
        "Space": f"{len(ready.choice_space.sites)} sites, {ready.choice_space.size:,} placements",
        "Search": f"{study.sampler}, {study.trials} candidates, the first {study.startup} searched ones at random, "
        f"seed {study.seed}, {study.workers} at a time; minimised: {', '.join(study.objectives)}",
        "References": "; ".join(ready.notes) or "as the study writes them",
        "Recipe": f"{recipe}, which is {_precision(ready)} here",
        "Latency": _latency_words(ready),
        "Versions": f"bam_search {__version__}, Python {platform.python_version()}, {packages}",
    }


def _latency_words(ready: ResolvedRun) -> str:
    graph = (
        ", one CUDA graph timed by the GPU's events"
        if ready.device.type == "cuda" and ready.study.recipe.cuda_graph
        else ""
    )
    return (
        f"of finalists: forward passes of {LATENCY_BATCH} images on {ready.device.name}, {_precision(ready)}, channels-last{graph}, "
        "in turn with the backbone's"
    )


def _precision(ready: ResolvedRun) -> str:
    return "bf16" if uses_bf16(ready.study.recipe, ready.device) else "fp32"


def _command() -> str:
    return shlex.join(["python", "-m", "bam_search", *sys.argv[1:]])


def _say(text: str) -> None:
    click.echo(text, err=True)
