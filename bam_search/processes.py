"""How other processes of this program start: how many, their environment, and what they inherit.

A process that trains on a CPU is a fork of one that has imported what training needs, so that this
takes its seconds once. It imports torch by that alone: this file does not.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

MEMORY = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={2**30}:glibc.malloc.trim_threshold={2**33}",
}
"""The environment of a process that trains on a CPU.

Memory comes in large pages, and stays with the process for the next step.
"""
IMPORTED = ["bam_search.search.executors", "bam_search.score.estimate"]
"""What processes are forked with; one that cannot be imported there is imported after the fork."""
ALONE = 1.0
"""Seconds that a process lives at most without what it is a fork of."""
DRIVERS = {signal.SIGINT, signal.SIGTERM}
"""The signals that the driver answers for all of its processes: Ctrl-C, and a scheduler's."""


def cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def context_of(device: str, threads: int | None = None) -> SpawnContext | ForkServerContext:
    """How processes that use a device of this type, with `threads` to compile in, start.

    CUDA must not have been begun before a fork, and any import may begin it, so processes of a GPU
    import all by themselves; so they do where forks are not safe.

    Where a program has a fork server already, processes are forks of that: they import what it has
    not, and inherit no blocked signals, so they call `belong_to_driver` themselves.
    """
    compiling = {} if threads is None else {"TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
    for name, value in {**MEMORY, **compiling}.items():
        os.environ.setdefault(name, value)  # processes read it as they start
    if device == "cuda" or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    # Its start unblocks the signals that are blocked here, so it comes first.
    resource_tracker.ensure_running()
    with leaving_signals_to_driver():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def leaving_signals_to_driver() -> Iterator[None]:
    """Block DRIVERS in this thread; processes that it starts inherit that, and keep it."""
    before = leave_signals_to_driver()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_driver() -> set[int]:
    """Block DRIVERS in this thread for good, and return what was blocked before."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, DRIVERS))


def belong_to_driver() -> None:
    """Leave signals to the driver, and end with it: to be called as a process begins."""
    leave_signals_to_driver()
    threading.Thread(target=_end_with_others, daemon=True).start()


def _end_with_others() -> None:
    """End this process with the driver, or with what it is a fork of: none could end it then."""
    driver, forked_by = multiprocessing.parent_process(), os.getppid()
    assert driver is not None
    while driver.is_alive() and os.getppid() == forked_by:
        driver.join(ALONE)
    os._exit(1)
