"""Who evaluates: the driver itself, or a pool of local processes. One small interface, that of concurrent.futures."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from bam_search.score.evaluate import Job, Result, Task, evaluate

Submit = Callable[[Job], "Future[Result]"]

_task: Task | None = None
"""In a worker process only: what its jobs share, sent once when the process starts."""


@contextlib.contextmanager
def executor(task: Task, workers: int) -> Iterator[Submit]:
    """A function that takes jobs: with one worker in this process, at once; with more in as many processes.

    Leaving the context ends the processes, also those that are still training.
    """
    if workers == 1:
        yield lambda job: _finished(evaluate(task, job))
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(task,))
    try:
        yield lambda job: pool.submit(_evaluate, job)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _finished(result: Result) -> "Future[Result]":
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def _start(task: Task) -> None:
    global _task
    _task = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _evaluate(job: Job) -> Result:
    assert _task is not None
    return evaluate(_task, job)
