"""How other processes start: with what environment, imports and signals."""

import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import pytest

from bam_search.processes import DRIVERS, MEMORY, context_of, leaving_signals_to_driver


def struck(signals: Sequence[int]) -> tuple[bool, dict[str, str]]:
    """Whether a process has torch as it starts, and its environment, told after these signals."""
    has_torch = "torch" in sys.modules
    for number in signals:
        os.kill(os.getpid(), number)
    return has_torch, dict(os.environ)


@pytest.mark.usefixtures("own_forks")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_process_leaves_signals_to_the_driver_and_keeps_memory(device: str) -> None:
    context = context_of(device, threads=1)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with leaving_signals_to_driver():
            job = pool.submit(struck, sorted(DRIVERS))
        has_torch, environment = job.result(100)
    assert {name: environment[name] for name in MEMORY} == MEMORY
    assert environment["TORCHINDUCTOR_COMPILE_THREADS"]
    # One that uses a GPU must import all by itself.
    assert has_torch == (device == "cpu" and sys.platform == "linux")
    assert not DRIVERS & signal.pthread_sigmask(signal.SIG_BLOCK, ())
