"""Build, train and measure a placement: a job in, a result out.

Runs in the driver or in a worker process.
"""

import functools
import gc
import hashlib
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bam_search.model.attention import use_module_files
from bam_search.model.build import build
from bam_search.model.load import Inputs, load_once
from bam_search.model.start import SCRATCH, Start, as_bytes
from bam_search.score.checkpoint import Checkpoint
from bam_search.score.compiled import compiled
from bam_search.score.context import TrainingContext
from bam_search.score.cuda_graphs import NotOneGraph, settle
from bam_search.score.device import Device, on_device, room_for_samples
from bam_search.score.fused import fused
from bam_search.score.measure import Meter, measured
from bam_search.score.train import EpochResult, train
from bam_search.space.modules import ModuleFile
from bam_search.space.search_space import SearchSpace
from bam_search.space.sites import Sites
from bam_search.space.user_file import Code
from bam_search.tasks.load_task import load_task
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.task import HeldOut, Split


@dataclass(frozen=True, eq=False)
class Experiment:
    """What all jobs of a study share.

    It is sent to each worker once, so it names the task and the space instead of holding their
    functions. A process that receives it has loaded the task: the samples are of its classes.

    `checkpoints` is the folder for trainings in progress, that of one study only; None keeps none.
    `modules` are the files of the user's attention modules, by name. `inputs` are those that the
    data need, None for the task's own. `start` is what trainings start from. The training samples
    take at most `device_bytes` of the device's memory, and those that are measured as many; None is
    a share of what is free where `beside` trainings have the device. `code` is that of the user's
    files of task and space, which a process that starts later must find again.
    """

    task: str
    space: str
    sites: Sites
    split: Split
    recipe: Recipe
    device: Device
    threads: int
    checkpoints: Path | None = None
    modules: Mapping[str, ModuleFile] = field(default_factory=dict)
    inputs: Inputs | None = None
    start: Start = SCRATCH
    device_bytes: int | None = None
    beside: int = 1
    code: Code = ()


@dataclass(frozen=True)
class Job:
    """One training of so many epochs, with a learning-rate decay of its own.

    `final` trains on the split's `train` and is measured on `test`, else on `fit` and `validation`:
    once, at the end, and with `each_epoch` after every epoch, for a training curve. `start` is what
    it starts from, None for the experiment's own. With `keep_weights` its score has the weights,
    with `train_metric` the metric on training samples too.
    """

    placement: str
    seed: int
    epochs: int
    final: bool = False
    each_epoch: bool = False
    start: Start | None = None
    keep_weights: bool = False
    train_metric: bool = False


@dataclass(frozen=True)
class Score:
    """How good a trained placement is.

    `value` is that of the task's metric on `samples` samples, with its standard error; `per_epoch`
    is the training curve;
    `seconds` is the wall time of training and measuring. `micro_batches` is 2 where the memory was
    too small for whole batches: normalisations then saw halves. `loss` is the mean loss on the
    samples that were measured. `further`, `by_class` and `class_samples` are those of `Measured`.
    `weights` are those of the model, as `Start.weights`, if the job was to keep them.
    `train_value` is that of the metric on as many training samples, without augmentation, if the
    job asked for it.
    """

    value: float
    standard_error: float
    samples: int
    per_epoch: tuple[EpochResult, ...]
    seconds: float
    micro_batches: int = 1
    loss: float = math.nan
    further: Mapping[str, float] = field(default_factory=dict)
    by_class: tuple[float | None, ...] = ()
    class_samples: tuple[int, ...] = ()
    weights: bytes = field(default=b"", repr=False)
    train_value: float | None = None


@dataclass(frozen=True)
class Result:
    """What a job came to: a score, or the traceback of what went wrong.

    `discard_process`: the process that trained it should train no other.
    """

    score: Score | None
    failure: str = ""
    discard_process: bool = False


ATTEMPTS = 3
"""How often a job is started whose worker dies, and a worker that does not come up."""


def worker_died(said: str) -> Result:
    """The result of a job whose workers all died; `said` is how the last one ended."""
    failure = f"{ATTEMPTS} worker processes that trained this candidate ended: {said}"
    return Result(None, f"WorkerDied: {failure}")


def prepare(experiment: Experiment) -> None:
    """Load what all jobs share.

    Raises UserError if the task, the space or a module cannot be loaded (here): no candidate's
    fault.
    """
    use_module_files(experiment.modules)
    _space(experiment)
    if experiment.device.type == "cuda":
        settle()


def evaluate(experiment: Experiment, job: Job) -> Result:
    """Build, train and measure one placement.

    A crash is a result with its traceback; raises only what the device itself raises.

    Where the device's memory is too small, once more with batches in two halves.
    """
    torch.set_num_threads(experiment.threads)
    prepare(experiment)
    result = _attempt(experiment, job, micro_batches=1)
    if result is None:
        if experiment.device.type == "cuda":
            gc.collect()  # the model that did not fit
            torch.cuda.empty_cache()
        result = _attempt(experiment, job, micro_batches=2)
    if result is not None:
        return result
    half = f"half a batch of {experiment.recipe.batch}"
    return Result(
        None, f"OutOfMemoryError: {experiment.device.name} has too little memory for {half}"
    )


def _attempt(experiment: Experiment, job: Job, micro_batches: int) -> Result | None:
    """The result; None if the device's memory is too small."""
    checkpoint = _checkpoint(experiment, job, micro_batches)
    try:
        space, start = _space(experiment), job.start or experiment.start
        model = build(space, experiment.sites, job.placement, job.seed, start)
        result = Result(_score(experiment, job, model, micro_batches, checkpoint))
    except torch.OutOfMemoryError:
        result = None
    except NotOneGraph:
        result = Result(None, traceback.format_exc(), discard_process=True)
    except torch.AcceleratorError:
        # It says nothing of the candidate, and no other candidate can train in this process.
        raise
    except Exception:  # a candidate that crashes is a record, and the study goes on
        result = Result(None, traceback.format_exc())
    if checkpoint:
        checkpoint.drop()
    return result


def _checkpoint(experiment: Experiment, job: Job, micro_batches: int) -> Checkpoint | None:
    if experiment.checkpoints is None:
        return None
    name = hashlib.sha256(repr((job, micro_batches)).encode()).hexdigest()[:16]
    return Checkpoint(experiment.checkpoints / f"{name}.pt")


def _space(experiment: Experiment) -> SearchSpace:
    inputs = load_task(experiment.task, experiment.inputs).inputs
    return load_once(experiment.space, inputs, experiment.code)


# One is enough: finalists, which may train on other samples, come last. Making a training context
# takes as long as training on some 2,000 images.
@functools.lru_cache(maxsize=1)
def _training_context(experiment: Experiment, samples: Any) -> TrainingContext:
    task, device = load_task(experiment.task, experiment.inputs), experiment.device
    room = experiment.device_bytes or room_for_samples(device, experiment.beside)
    return TrainingContext.of(task, device, experiment.recipe, samples, room)


@functools.lru_cache(maxsize=1)  # likewise
def _held_out(context: TrainingContext, samples: Any) -> HeldOut:
    return context.data.held_out(samples)


def _score(
    experiment: Experiment,
    job: Job,
    model: nn.Module,
    micro_batches: int,
    checkpoint: Checkpoint | None,
) -> Score:
    saved = checkpoint.load() if checkpoint else None
    keep = checkpoint.save if checkpoint else None
    started = time.perf_counter() - (saved.seconds if saved else 0)
    split = experiment.split
    samples, held_out = (split.train, split.test) if job.final else (split.fit, split.validation)
    context = _training_context(experiment, samples)
    on_device(model, experiment.device.type)
    meter = Meter.of(model, context, _held_out(context, held_out), experiment.recipe.cuda_graph)
    measure = meter.start()
    each_epoch = (lambda: float(measure().value)) if job.each_epoch else None
    recipe = replace(experiment.recipe, epochs=job.epochs)
    with faster(model, experiment.sites.blocks, recipe):
        epochs = train(
            model,
            context,
            recipe,
            job.seed,
            each_epoch,
            micro_batches,
            saved,
            keep,
            job.start or experiment.start,
        )
    last = meter.measured() if job.each_epoch else measure()
    fit = measured(model, samples.first(len(held_out)), context) if job.train_metric else None
    seconds = time.perf_counter() - started
    return Score(
        float(last.value),
        float(last.standard_error),
        len(held_out),
        epochs,
        seconds,
        micro_batches,
        last.loss,
        last.further,
        last.by_class,
        last.class_samples,
        as_bytes(model.state_dict()) if job.keep_weights else b"",
        None if fit is None else float(fit.value),
    )


def faster(
    model: nn.Module, blocks: Sequence[str], recipe: Recipe
) -> AbstractContextManager[object]:
    """The context in which the model trains as the recipe says: compiled, fused, or as it is.

    Raises NotCompiled or NotFused within the context.
    """
    if recipe.compile:
        return compiled(model, blocks)
    return fused(model) if recipe.fuse else nullcontext()
