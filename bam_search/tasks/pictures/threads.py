"""Do the same with many things, in threads, and take the results in order."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bam_search.processes import cores

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """Yield `function(job)` of each job, in the order of the jobs; a thread a core works on them.

    Only some jobs are under way, so that results do not fill the memory. When the caller stops,
    what is not begun is not done.
    """
    threads = cores()
    waiting: collections.deque[Future[Result]] = collections.deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def chunks(count: int, size: int) -> Iterator[range]:
    """Yield the numbers below `count`, in ranges of `size`."""
    for first in range(0, count, size):
        yield range(first, min(first + size, count))
