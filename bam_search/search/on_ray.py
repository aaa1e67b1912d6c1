"""A Ray cluster as the executor: each job is a Ray task, with its share of a GPU.

The samples are in Ray's object store once. Ray starts a task again whose worker or node dies.
https://docs.ray.io/en/latest/ray-core/fault-tolerance.html
"""

import contextlib
import functools
import logging
import math
import os
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bam_search.errors import RunError, UserError, first_line, last_line
from bam_search.score.device import claim
from bam_search.score.evaluate import (
    ATTEMPTS,
    Experiment,
    Job,
    Result,
    evaluate,
    prepare,
    worker_died,
)
from bam_search.tasks.load_task import load_task

if TYPE_CHECKING:
    from ray import ObjectRef


@contextlib.contextmanager
def on_ray(
    experiment: Experiment, workers: int, address: str
) -> Iterator[Callable[[Job], "Future[Result]"]]:
    """A function that takes jobs, of which `workers` run at once on the cluster at `address`.

    "auto" is the cluster that this machine belongs to; "local" is a cluster that is started here
    and ends with the study. Each job has a core, and on CUDA its share of a GPU: a whole one, if
    there are as many as workers. Raises UserError.
    """
    ray = _connected(address)
    try:
        share, beside = 0.0, workers  # a machine may get them all
        if experiment.device.type == "cuda":
            share = _share(ray.cluster_resources().get("GPU", 0), workers)
            beside = round(1 / share)
        experiment_ref = ray.put(replace(experiment, threads=1, beside=beside))
        remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=ATTEMPTS - 1)(_on_node)

        def submit(job: Job) -> "Future[Result]":
            future: Future[Result] = Future()
            # In a list: otherwise Ray would fetch the experiment for each job, and each job would
            # prepare the samples anew.
            remote_result: Future[Result] = remote.remote(
                [experiment_ref], experiment.task, job, str(Path.cwd())
            ).future()
            remote_result.add_done_callback(lambda done: _settle(future, done))
            return future

        yield submit
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`. Raises UserError."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "--executor ray needs Ray, which is not installed", "pip install '.[ray]'"
        ) from None
    if ":" in address:
        _check_there(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        dashboard = False if address == "local" else None  # nobody asked for a server here
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard
        )
    # RuntimeError: the cluster has another version of Ray or Python.
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _unreachable(address, error) from None
    if threading.current_thread() is threading.main_thread():
        # Ray has put its own handler in place: with that the driver would end without writing how.
        signal.signal(signal.SIGTERM, handler)
    return ray


def _unreachable(address: str, error: Exception) -> UserError:
    return UserError(
        f"--address {address!r}: {first_line(error)}",
        "start a cluster with `ray start --head`, or use --address local",
    )


def _check_there(address: str) -> None:
    """Check that something listens at HOST:PORT or ray://HOST:PORT; Ray itself tries for minutes.

    Raises UserError if nothing does.
    """
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _share(gpus: float, workers: int) -> float:
    """The share of a GPU for each worker: 1, or 1/k if k workers have to share one.

    Raises UserError if there is no GPU.
    """
    if not gpus:
        raise UserError(
            "the Ray cluster has no GPU", "start its nodes with --num-gpus, or use --device cpu"
        )
    return 1 / math.ceil(workers / gpus)


def _settle(future: "Future[Result]", done: "Future[Result]") -> None:
    """Set the future of a job from what came of its Ray task.

    It gets the result; or a failure, if the task's workers died; or RunError, if the cluster is at
    fault.
    """
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    error = done.exception()
    if error is None:
        future.set_result(done.result())
        return
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, (NodeDiedError, OutOfMemoryError, WorkerCrashedError)):
        future.set_result(worker_died(text))
    else:
        message = f"the Ray cluster cannot train: {last_line(text)}"
        future.set_exception(RunError(message, "finished candidates are kept"))


def _on_node(
    experiment_refs: "list[ObjectRef[Experiment]]", task: str, job: Job, folder: str
) -> Result:
    """Evaluate a job in a worker of the cluster; `experiment_refs` has one element."""
    # The task and the space may be files named relative to the folder; those that ship need none.
    with contextlib.suppress(OSError):
        os.chdir(folder)
    # Ray's arrays are read-only, as all workers of a node share them: nothing here writes to them.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    load_task(task)  # before the experiment, whose samples are of its classes
    experiment = _fetched(experiment_refs[0])
    claim(experiment.device, 0)  # of the GPUs that Ray lets this process see
    prepare(experiment)
    try:
        return evaluate(experiment, job)
    except Exception:
        # The device failed, not the candidate: Ray starts the task again in a fresh process.
        traceback.print_exc()
        os._exit(1)


@functools.lru_cache(maxsize=1)
def _fetched(experiment_ref: "ObjectRef[Experiment]") -> Experiment:
    """The experiment, fetched once a worker."""
    import ray

    return ray.get(experiment_ref)
