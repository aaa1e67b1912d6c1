"""A Ray cluster as the executor: a task a job, with its share of a GPU; the images once in the
object store.

Ray begins a task again whose worker or node dies.
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

from bam_search.errors import RunError, UserError, first_line
from bam_search.score.device import claim
from bam_search.score.evaluate import ATTEMPTS, Job, Result, Task, evaluate, prepare, worker_died

if TYPE_CHECKING:
    from ray import ObjectRef


@contextlib.contextmanager
def on_ray(task: Task, workers: int, address: str) -> Iterator[Callable[[Job], "Future[Result]"]]:
    """A function that takes jobs, of which `workers` run at once on the cluster at `address`.

    "auto" is the cluster that this machine belongs to, "local" one that is started here and ended
    with the study. Each job has a core, and on CUDA its share of a GPU: all of one, if there are as
    many as workers. Raises UserError.
    """
    ray = _connected(address)
    try:
        share = (
            _share(ray.cluster_resources().get("GPU", 0), workers)
            if task.device.type == "cuda"
            else 0
        )
        kept = ray.put(replace(task, threads=1))
        remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=ATTEMPTS - 1)(_on_node)

        def submit(job: Job) -> "Future[Result]":
            future: Future[Result] = Future()
            # In a list: Ray would fetch the task for each job, and each would prepare its images
            # anew.
            asked: Future[Result] = remote.remote([kept], job, str(Path.cwd())).future()
            asked.add_done_callback(lambda done: _settle(future, done))
            return future

        yield submit
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise UserError(
            "--executor ray needs Ray, which is not installed", "pip install '.[ray]'"
        ) from None
    if ":" in address:
        _check_there(address)
    answer = signal.getsignal(signal.SIGTERM)
    try:
        dashboard = False if address == "local" else None  # nothing listens that was not asked for
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard
        )
    except (
        ConnectionError,
        ValueError,
        RuntimeError,
    ) as error:  # RuntimeError: another version of Ray or Python
        raise _unreachable(address, error) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, answer
        )  # Ray has put its own in place: the driver would end without finishing its books
    return ray


def _unreachable(address: str, error: Exception) -> UserError:
    return UserError(
        f"--address {address!r}: {first_line(error)}",
        "start a cluster with `ray start --head`, or use --address local",
    )


def _check_there(address: str) -> None:
    """Raises UserError if nothing listens at HOST:PORT or ray://HOST:PORT; Ray itself tries for
    minutes.
    """
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _share(gpus: float, workers: int) -> float:
    """The GPUs that each of so many workers has: one, or as small a part of one as lets all of them
    train at once.
    """
    if not gpus:
        raise UserError(
            "the Ray cluster has no GPU", "start its nodes with --num-gpus, or use --device cpu"
        )
    return 1 / math.ceil(workers / gpus)


def _settle(future: "Future[Result]", done: "Future[Result]") -> None:
    """What came of a task: its result; a record of what its workers died of; or a Breakdown, where
    it is the cluster's fault.
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
        future.set_exception(
            RunError(
                f"the Ray cluster cannot train: {text.splitlines()[-1]}",
                "finished candidates are kept",
            )
        )


def _on_node(kept: "list[ObjectRef[Task]]", job: Job, folder: str) -> Result:
    """In a worker of the cluster."""
    with contextlib.suppress(
        OSError
    ):  # the space may be a file named from there; one that ships needs no folder
        os.chdir(folder)
    # Ray's arrays are read-only, as all workers of a node share them: nothing here writes to them.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    task = _fetched(kept[0])
    claim(task.device, 0)  # of the GPUs that Ray lets this process see
    prepare(task)
    try:
        return evaluate(task, job)
    except (
        Exception
    ):  # the device failed, not the candidate: Ray begins it again in a fresh process
        traceback.print_exc()
        os._exit(1)


@functools.lru_cache(maxsize=1)
def _fetched(kept: "ObjectRef[Task]") -> Task:
    import ray

    return ray.get(kept)
