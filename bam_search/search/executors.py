"""Who evaluates: this process, local worker processes, or a Ray cluster.

One small interface, that of concurrent.futures.

A job that loses its worker is begun again; one that loses ATTEMPTS of them is a result that says
so. What is nobody's fault but the machine's, a worker that cannot even start, is a Breakdown, and
no result.
"""

import contextlib
import multiprocessing
import multiprocessing.resource_tracker
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from bam_search.errors import RunError
from bam_search.score.device import MEMORY, claim
from bam_search.score.evaluate import ATTEMPTS, Job, Result, Task, evaluate, prepare, worker_died
from bam_search.search.on_ray import on_ray

Submit = Callable[[Job], "Future[Result]"]
Executor = Callable[[Task, int, str], contextlib.AbstractContextManager[Submit]]

KEPT = "finished candidates are kept, and the same command continues"
GRACE = 60.0
"""Seconds beside a training's own time limit, for building, measuring and an answer; then the
worker is taken to hang.
"""


@contextlib.contextmanager
def local(task: Task, workers: int, address: str) -> Iterator[Submit]:
    """A function that takes jobs: on a CPU with one worker in this process, at once; else in
    `workers` processes.

    Processes share the GPUs out evenly. Leaving the context ends them, also those that are still
    training.
    """
    del address
    if workers == 1 and task.device.type == "cpu":
        yield lambda job: _finished(evaluate(task, job))
        return
    pool = _Pool(task, workers)
    try:
        yield pool.submit
    finally:
        pool.close()


EXECUTORS: Mapping[str, Executor] = {"local": local, "ray": on_ray}
"""Executors by name: each takes the task, the number of workers, and the address of a cluster."""


def _finished(result: Result) -> "Future[Result]":
    future: Future[Result] = Future()
    future.set_result(result)
    return future


class _Died(Exception):
    """A worker process ended, or its device is lost to it; the text says how."""


class _Pool:
    """As many threads as workers; each feeds a process of its own, so that one that dies takes
    nobody along.
    """

    def __init__(self, task: Task, workers: int) -> None:
        self._task = task
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Result]] | None] = queue.SimpleQueue()
        self._processes: dict[int, SpawnProcess] = {}
        self._starting = threading.Lock()
        self._closed = False
        # Started by the first process otherwise, in its thread, and it would take the signal mask
        # of that away.
        multiprocessing.resource_tracker.ensure_running()
        for name, value in {**MEMORY, "TORCHINDUCTOR_COMPILE_THREADS": str(task.threads)}.items():
            os.environ.setdefault(
                name, value
            )  # read as a process starts, so these reach the workers alone
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> "Future[Result]":
        """The future result of a job, which waits for a free worker."""
        future: Future[Result] = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """End all processes, whatever they do."""
        with self._starting:
            self._closed = True
            for process in self._processes.values():
                process.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        for process in self._processes.values():
            process.join(10)

    def _serve(self, number: int) -> None:
        # Processes inherit the mask: Ctrl-C and a scheduler's SIGTERM are the driver's to answer.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        connection: Connection | None = None
        while (item := self._jobs.get()) is not None:
            job, future = item
            said = ""
            for _ in range(ATTEMPTS):
                try:
                    connection = connection or self._start(number)
                    future.set_result(self._ask(number, connection, job))
                    connection = None if connection.closed else connection
                    break
                except _Died as died:
                    said, connection = str(died), None
                    if self._closed:
                        return
                except Exception as error:  # whatever it is, the study must hear of it
                    future.set_exception(
                        error
                        if isinstance(error, RunError)
                        else RunError(f"a worker cannot be used: {error}", KEPT)
                    )
                    connection = None
                    break
            else:
                future.set_result(worker_died(said))

    def _start(self, number: int) -> Connection:
        """Start the process of this number. Raises Breakdown if it does not come up."""
        for _ in range(ATTEMPTS):
            ours, theirs = multiprocessing.get_context("spawn").Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=_work, args=(theirs, number), daemon=True
            )
            with self._starting:
                if self._closed:
                    raise _Died("the study ended")
                process.start()
                self._processes[number] = process
            theirs.close()
            try:
                # Not as an argument: that is written while the pipe's other end is still open here,
                # and a death would go unnoticed.
                self._tell(number, ours, self._task)
                said = self._answer(number, ours, None)
            except _Died as died:
                said = str(died)
            if not said:
                return ours
            self._discard(number, ours)
        raise RunError(f"a worker process cannot start: {str(said).strip().splitlines()[-1]}", KEPT)

    def _ask(self, number: int, connection: Connection, job: Job) -> Result:
        """The result of a job. Raises _Died."""
        limit = self._task.recipe.seconds
        patience = (
            None if limit is None else 2 * limit + GRACE
        )  # it may be tried again with half batches
        self._tell(number, connection, job)
        answer = self._answer(number, connection, patience)
        if answer is None:
            self._discard(number, connection)
            return Result(
                None,
                f"TooSlow: the worker gave no answer in {patience:g} s, with a time limit of {limit:g} s, and was ended",
            )
        if isinstance(answer, str):
            raise _Died(answer)
        if answer.discard_process:
            self._discard(number, connection)
        return answer

    def _discard(self, number: int, connection: Connection) -> None:
        """End a process; the closed connection says that the next job needs another."""
        self._processes[number].kill()
        self._processes[number].join(10)
        connection.close()

    def _tell(self, number: int, connection: Connection, what: Task | Job) -> None:
        """Send something to the process. Raises _Died."""
        try:
            connection.send(what)
        except OSError:
            raise _Died(self._end(number)) from None

    def _answer(
        self, number: int, connection: Connection, seconds: float | None
    ) -> Result | str | None:
        """What the process says next; None if that takes longer than `seconds`. Raises _Died."""
        try:
            return connection.recv() if connection.poll(seconds) else None
        except (EOFError, OSError):
            raise _Died(self._end(number)) from None

    def _end(self, number: int) -> str:
        """How a process ended that ended."""
        process = self._processes[number]
        process.join(10)
        code = process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (
                ", as a system does that runs out of memory" if name == "SIGKILL" else ""
            )
        return f"ended with exit code {code}"


def _work(connection: Connection, number: int) -> None:
    """A worker process: its task, ready, then one answer a job; a text is the last word of one that
    cannot go on.
    """
    threading.Thread(target=_end_with_driver, daemon=True).start()
    try:
        task: Task = connection.recv()
        claim(task.device, number)
        prepare(task)
        connection.send("")
        while True:
            connection.send(evaluate(task, connection.recv()))
    except (EOFError, OSError):  # the driver has closed the pipe
        return
    except (
        Exception
    ) as error:  # the device failed, not the candidate: a fresh process may have better luck
        connection.send("".join(traceback.format_exception_only(error)).strip())


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
