"""Who evaluates: this process, local worker processes, or a Ray cluster.

All have one small interface, that of concurrent.futures.

A job whose worker dies is started again. After ATTEMPTS dead workers its result is a failure that
says so. A worker that cannot start at all is the machine's fault, not the candidate's: that raises
RunError, and no result is kept.
"""

import contextlib
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from bam_search.errors import RunError, last_line
from bam_search.processes import belong_to_driver, context_of, leaving_signals_to_driver
from bam_search.score.device import claim, trainings_beside
from bam_search.score.evaluate import (
    ATTEMPTS,
    Experiment,
    Job,
    Result,
    evaluate,
    prepare,
    worker_died,
)
from bam_search.search.on_ray import on_ray
from bam_search.tasks.load_task import load_task

Submit = Callable[[Job], "Future[Result]"]
Executor = Callable[[Experiment, int, str], contextlib.AbstractContextManager[Submit]]

KEPT = "finished candidates are kept, and the same command continues"
GRACE = 60.0
"""Seconds above a training's own time limit after which a worker counts as hung.

They cover building the model, measuring it and answering.
"""
PAUSE = 0.2
"""Seconds until a process that could not start is tried again."""


@contextlib.contextmanager
def local(experiment: Experiment, workers: int, address: str) -> Iterator[Submit]:
    """A function that takes jobs and evaluates them on this machine.

    With one worker on a CPU it evaluates in this process, at once; otherwise in `workers`
    processes, among which the GPUs are shared out evenly. Leaving the context ends the processes,
    also those that are still training.
    """
    del address
    beside = trainings_beside(experiment.device, workers)
    experiment = replace(experiment, beside=beside)
    if workers == 1 and experiment.device.type == "cpu":
        yield lambda job: _finished(evaluate(experiment, job))
        return
    pool = _Pool(experiment, workers)
    try:
        yield pool.submit
    finally:
        pool.close()


EXECUTORS: Mapping[str, Executor] = {"local": local, "ray": on_ray}
"""Executors by name: each takes the experiment, the number of workers, and a cluster's address."""


def _finished(result: Result) -> "Future[Result]":
    future: Future[Result] = Future()
    future.set_result(result)
    return future


class _Died(Exception):
    """A worker process ended, or its device is lost to it; the text says how."""


class _Pool:
    """Worker processes, each fed by a thread of this process.

    A worker that dies affects no other.
    """

    def __init__(self, experiment: Experiment, workers: int) -> None:
        self._experiment = experiment
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Result]] | None] = queue.SimpleQueue()
        self._processes: dict[int, BaseProcess] = {}
        self._starting = threading.Lock()
        self._closed = False
        self._context = context_of(experiment.device.type, experiment.threads)
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
        """A thread: take jobs until `close`, and have worker `number` evaluate them."""
        connection: Connection | None = None
        for job, future in iter(self._jobs.get, None):
            try:
                result, connection = self._evaluate(number, connection, job)
                future.set_result(result)
            except _Died:  # the pool was closed
                return
            except RunError as error:
                future.set_exception(error)
                connection = None
            except Exception as error:  # whatever it is, the study must hear of it
                future.set_exception(RunError(f"a worker cannot be used: {error}", KEPT))
                connection = None

    def _evaluate(
        self, number: int, connection: Connection | None, job: Job
    ) -> tuple[Result, Connection | None]:
        """The result of a job, and the connection for the next one.

        The connection is None if the next job needs a new process. Raises _Died if the pool was
        closed, and RunError if no process can start.
        """
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                connection = connection or self._start(number)
                result = self._ask(number, connection, job)
                return result, None if connection.closed else connection
            except _Died as died:
                if self._closed:
                    raise
                reason, connection = str(died), None
        return worker_died(reason), None

    def _start(self, number: int) -> Connection:
        """Start the process of this number. Raises RunError if it does not come up."""
        problem: Result | str | None = ""
        for _ in range(ATTEMPTS):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_work, args=(theirs, number), daemon=True)
            try:
                self._begin(number, process)
            except (OSError, EOFError) as error:  # what it is a fork of has died
                problem = last_line(str(error))
                time.sleep(PAUSE)
                continue
            theirs.close()
            try:
                problem = self._hand_over(number, ours)
            except _Died as died:
                problem = str(died)
            if not problem:
                return ours
            self._discard(number, ours)
        raise RunError(f"a worker process cannot start: {last_line(str(problem))}", KEPT)

    def _begin(self, number: int, process: BaseProcess) -> None:
        """Start a process. Raises _Died if the pool was closed, and what a system says."""
        with self._starting, leaving_signals_to_driver():
            if self._closed:
                raise _Died("the study ended")
            process.start()
            self._processes[number] = process

    def _hand_over(self, number: int, connection: Connection) -> Result | str | None:
        """Send the experiment to a process; return what it says, "" if it is ready. Raises _Died.

        Not as an argument of the process: that is sent while the pipe's other end is still open
        here, and a death would go unnoticed. The task comes first: it has the samples' classes.
        """
        self._send(number, connection, self._experiment.task)
        problem = self._answer(number, connection, None)
        if problem:
            return problem
        self._send(number, connection, self._experiment)
        return self._answer(number, connection, None)

    def _ask(self, number: int, connection: Connection, job: Job) -> Result:
        """The result of a job. Raises _Died."""
        limit = self._experiment.recipe.seconds
        # A training may be tried a second time, with half batches.
        patience = None if limit is None else 2 * limit + GRACE
        self._send(number, connection, job)
        answer = self._answer(number, connection, patience)
        if answer is None:
            self._discard(number, connection)
            return Result(
                None,
                f"TooSlow: the worker gave no answer in {patience:g} s, "
                f"with a time limit of {limit:g} s, and was ended",
            )
        if isinstance(answer, str):
            raise _Died(answer)
        if answer.discard_process:
            self._discard(number, connection)
        return answer

    def _discard(self, number: int, connection: Connection) -> None:
        """End a process; its closed connection says that the next job needs another."""
        self._processes[number].kill()
        self._processes[number].join(10)
        connection.close()

    def _send(self, number: int, connection: Connection, message: str | Experiment | Job) -> None:
        """Send a message to the process. Raises _Died."""
        try:
            connection.send(message)
        except OSError:
            raise _Died(self._end(number)) from None

    def _answer(
        self, number: int, connection: Connection, seconds: float | None
    ) -> Result | str | None:
        """The process's next answer; None if that takes longer than `seconds`. Raises _Died."""
        try:
            return connection.recv() if connection.poll(seconds) else None
        except (EOFError, OSError):
            raise _Died(self._end(number)) from None

    def _end(self, number: int) -> str:
        """How a process ended: its signal or its exit code."""
        process = self._processes[number]
        process.join(10)
        code = process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            if name == "SIGKILL":
                return "killed by SIGKILL, as a system does that runs out of memory"
            return f"killed by {name}"
        return f"ended with exit code {code}"


def _work(connection: Connection, number: int) -> None:
    """A worker process: it receives its experiment, then answers each job with a Result.

    It says "" when it has the task, and when it is ready. Any other text says why it cannot go on,
    and is its last message.
    """
    belong_to_driver()
    try:
        load_task(connection.recv())
        connection.send("")
        experiment: Experiment = connection.recv()
        claim(experiment.device, number)
        prepare(experiment)
        connection.send("")
        while True:
            connection.send(evaluate(experiment, connection.recv()))
    except (EOFError, OSError):  # the driver has closed the pipe
        return
    except Exception as error:
        # The device failed, not the candidate: a fresh process may have better luck.
        connection.send("".join(traceback.format_exception_only(error)).strip())
