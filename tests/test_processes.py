"""How other processes start: with what environment, imports and signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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


DRIVER = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from bam_search.processes import belong_to_driver
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, belong_to_driver)
    print(pool.submit(os.getpid).result(100), flush=True)
    pool.submit(time.sleep, 100)
    time.sleep(100)
"""


def test_a_process_ends_with_the_driver_however_that_ends(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, tmp_path / "driver.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        worker = int(driver.stdout.readline())
        driver.kill()
    until = time.monotonic() + 20
    while Path(f"/proc/{worker}/stat").exists() and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
