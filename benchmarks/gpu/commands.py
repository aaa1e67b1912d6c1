"""Running a command of the project as a user would, hearing each line as it comes."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from benchmarks.gpu.machine import ROOT


@contextlib.contextmanager
def started(module: str, words: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """`python -m MODULE WORDS` in the checkout; its `stdout` gives both its outputs, line by line.

    Within the context an interrupt is for the command, which gets it too and ends in its own way.
    """
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    command = [sys.executable, "-m", module, *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    print("$ python -m", module, *words, flush=True)
    try:
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            yield process
    finally:
        signal.signal(signal.SIGINT, before)


def lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    """Each line that it prints, which goes to the log as well."""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        yield line.rstrip("\n")
