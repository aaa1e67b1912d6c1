"""What a study is and how it was run, in words and values for its report and its folder."""

import datetime
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bam_search import __version__
from bam_search.model.start import StartPlan
from bam_search.report.commands import Origin
from bam_search.report.paper_table import Paper
from bam_search.report.payload import ReportContext
from bam_search.running.latency import as_trained
from bam_search.running.prepare import ResolvedRun
from bam_search.score.context import uses_bf16
from bam_search.score.cost import COUNTS
from bam_search.score.cost_table import what_choices_add
from bam_search.search.store import MODULE_FILES_KEY
from bam_search.search.study import Study
from bam_search.search.warm_start import Backbone
from bam_search.study.published import ERROR
from bam_search.study.record import SCRATCH
from bam_search.tasks.recipe import GPU_KEYS, TASK_KEYS
from bam_search.tasks.task import Dataset, Split, Task
from bam_search.words import counted

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
    "recommend",
)
"""The keys of a study that a continued run may change."""


def report_context(
    ready: ResolvedRun, data: Dataset, data_split: Split, folder: Path, about: dict[str, str]
) -> ReportContext:
    """Return what the report is about, beside the records."""
    warnings = ["A smoke run, as small as a study can be: its numbers say nothing."]
    warnings = warnings if ready.smoke else []
    if data.stands_in_for:
        warnings.append(
            f"These are {data.name}: {data.origin}. They say nothing about {data.stands_in_for}."
        )
    paper = _paper(ready, data, len(data_split.train))
    return ReportContext(
        title=f"bam_search: {ready.name}",
        metric=ready.task.metric,
        sample=ready.task.sample,
        objectives=ready.study.objectives,
        warning=" ".join(warnings),
        about=about,
        choice_space=ready.choice_space,
        recommend_by=ready.study.recommend.by,
        paper=paper,
        sites=ready.sites,
        origin=_origin(ready, folder),
        base={key: getattr(ready.costs.base, key) for key in COUNTS},
        classes=data.classes,
        added=what_choices_add(ready.costs, ready.choice_space),
    )


def _origin(ready: ResolvedRun, folder: Path) -> Origin:
    """Return where the candidates come from, as seen from the folder in which the study runs."""
    study, space = ready.study, ready.space
    natural = ready.natural_space
    is_natural = (natural.input_shape, natural.classes) == (space.input_shape, space.classes)
    here = f"{Path.cwd()}{os.sep}"
    return Origin(
        folder=str(folder).removeprefix(here),
        space=study.space.removeprefix(here),
        data=study.data.source.removeprefix(here),
        weights=study.start.weights.removeprefix(here),
        shape=() if is_natural else space.input_shape,
        classes=0 if is_natural else space.classes,
        modules=tuple(
            f"{name}={source.removeprefix(here)}" for name, source in study.search.sources.items()
        ),
        insertion=study.start.insertion,
    )


def _paper(ready: ResolvedRun, data: Dataset, samples: int) -> Paper:
    """Return the paper's figures, and how this study differs from the paper's.

    The figures mean nothing beside those of another metric.
    """
    study, metric = ready.study, ready.task.metric
    is_whole = samples == ready.source.train
    if data.stands_in_for:
        ours = data.name
    elif is_whole and {entry.data for entry in study.paper} == {data.name}:
        ours = ""
    else:
        ours = f"{samples:,} training {ready.task.sample}s of {data.name}"
    comparable = metric.identity == ERROR.identity
    return Paper(
        study.claim,
        study.paper if comparable else (),
        study.space,
        ours,
        f"ours, of {counted(study.recipe.epochs, 'epoch')}",
        "" if comparable else f"{metric.name}, not {ERROR.name}",
    )


def identity_of(ready: ResolvedRun, data: Dataset) -> dict[str, Any]:
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
        "inputs": asdict(ready.task.inputs),
    }
    table["metric"] = ready.task.metric.identity
    table["recipe"]["precision"] = _precision(ready)
    identity = {"bam_search": __version__, "variant": ready.device.variant}
    # A user's file, or one that it imports, may change between runs, and with it space or task.
    space_file = ready.study.space.partition(":")[0]
    digests = dict(ready.code)
    files = {"space_file": space_file, "task_file": ready.study.task}
    identity |= {key: digests[name] for key, name in files.items() if name in digests}
    # So may a file of weights; a study from scratch is what it was before there were any.
    if table["start"] == asdict(StartPlan()):
        del table["start"]
    else:
        table["start"]["weights"] = ready.start.digest
    # Nor was there a way of scoring then.
    if table["scoring"] == SCRATCH:
        del table["scoring"]
    # So may the files of a user's attention modules.
    modules = {name: file.digest for name, file in ready.module_files.items()}
    return {**identity, **({MODULE_FILES_KEY: modules} if modules else {}), **table}


def about_of(
    ready: ResolvedRun, data: Dataset, data_split: Split, command: str, folder: Path
) -> dict[str, str]:
    """Return the facts about the study in `folder` that its report lists, by their headings."""
    study = ready.study
    device = ready.device
    date = datetime.datetime.now().astimezone()
    fitted = {"Fitted to the data": "; ".join(ready.fitted)} if ready.fitted else {}
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Question": study.question,
        "Command": command,
        "Date": date.isoformat(timespec="seconds"),
        "Variant": f"{device.variant}, on {device.name}, because {device.reason}",
        "Data": f"{data.name} ({data.origin}), sha256 {data.digest}",
        "Task": _task_words(ready.task),
        "Split": _split_words(ready, data_split),
        **fitted,
        "Backbone": _backbone_words(ready),
        "Space": f"{len(ready.choice_space.sites)} sites, {ready.choice_space.size:,} placements",
        "Search": _search_words(study),
        "Scoring": _scoring_words(study, folder),
        "References": "; ".join(ready.notes) or "as the study writes them",
        "Start": _start_words(ready),
        "Recipe": _recipe_words(ready),
        "Latency": _latency_words(ready),
        "Versions": f"bam_search {__version__}, Python {platform.python_version()}, {packages}",
    }


def _task_words(task: Task) -> str:
    return f"{task.name}, measured by {task.metric.title}: {task.metric.direction}"


def _recipe_words(ready: ResolvedRun) -> str:
    unused = set(TASK_KEYS).difference(ready.task.recipe_keys)
    if ready.device.type != "cuda":
        unused.update(GPU_KEYS)
    recipe = ready.study.to_dict()["recipe"].items()
    known = {
        key: value
        for key, value in recipe
        if key not in unused and value is not None and value is not False
    }
    known["precision"] = _precision(ready)
    return ", ".join(f"{key} {value}" for key, value in known.items())


def _start_words(ready: ResolvedRun) -> str:
    plan, start = ready.study.start, ready.start
    weights = f"{start.note}, sha256 {start.digest}" if start.weights else "weights of the seed"
    trains = {1.0: "trains as all else", 0.0: "is frozen"}
    backbone = trains.get(plan.factor, f"trains at {plan.factor:g} of the learning rate")
    return f"{weights}; the backbone {backbone}; {plan.insertion} insertion of attention"


def _split_words(ready: ResolvedRun, data_split: Split) -> str:
    fit, validation = len(data_split.fit), len(data_split.validation)
    train, test = len(data_split.train), len(data_split.test)
    return (
        f"{counted(fit, ready.task.sample)} train and {validation:,} others validate in the "
        f"search; {train:,} train and {test:,} test the finalists; "
        f"{data_split.how}, seed {ready.study.seed}"
    )


def _backbone_words(ready: ResolvedRun) -> str:
    cost = ready.costs.base
    return (
        f"{ready.space.name}: {cost.params:,} parameters, "
        f"{cost.macs_conv_fc:,} MACs conv + fc, {cost.macs:,} MACs all"
        f"{_parts_words(ready)}"
    )


def _parts_words(ready: ResolvedRun) -> str:
    """Return what each part of a detector costs, in MACs of conv + fc."""
    parts = "; ".join(part.text for part in ready.costs.parts)
    return f"; of these: {parts}" if parts else ""


def _search_words(study: Study) -> str:
    if not study.searches:
        references = counted(study.trials, "reference")
        return f"none: {references} compared; seed {study.seed}, {study.workers} at a time"
    return (
        f"{study.sampler}, {study.trials} candidates, "
        f"the first {study.startup} searched ones at random, "
        f"seed {study.seed}, {study.workers} at a time; "
        f"objectives: {', '.join(study.objectives)}"
    )


def _scoring_words(study: Study, folder: Path) -> str:
    """How candidates are scored, and what the backbone that they start from has cost so far."""
    epochs, final = (counted(n, "epoch") for n in (study.search_epochs, study.recipe.epochs))
    if not study.backbone_epochs:
        return f"{study.scoring}: by the metric after {epochs}, as long as finalists train"
    backbone = Backbone.read(folder)
    cost = f" in {backbone.seconds:,.0f} s, beside the training time below" if backbone else ""
    return (
        f"{study.scoring}: the backbone trains once for "
        f"{counted(study.backbone_epochs, 'epoch')}{cost}; each candidate starts from it, trains "
        f"for {epochs}, and the loss on the validation samples decides what is proposed and who is "
        f"a finalist; the validation metrics shown are of these trainings, and cannot be compared "
        f"with those of finalists, which train without it for {final}"
    )


def _latency_words(ready: ResolvedRun) -> str:
    trained, is_gpu = as_trained(ready), ready.device.type == "cuda"
    graph = ", one CUDA graph timed by the GPU's events" if is_gpu and trained.cuda_graph else ""
    threads = "" if is_gpu else f", {counted(trained.threads, 'CPU thread')}"
    one = "" if is_gpu else ", 1 CPU thread"
    batch = counted(trained.batch, ready.task.sample)
    return (
        f"of what is tested, forward passes in turn with the backbone's on {ready.device.name}"
        f"{graph}. As trained: {batch}, {_precision(ready)}, channels-last{threads}. "
        f"As deployed: 1 {ready.task.sample}, fp32{one}, batch normalisations folded into "
        "convolutions where torch.fx can trace the model"
    )


def _precision(ready: ResolvedRun) -> str:
    return "bf16" if uses_bf16(ready.study.recipe, ready.device) else "fp32"
