"""Stages for `test_gpu_benchmark.py` in which things go wrong.

Apart, so that their processes import little.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.parts import Absent, Part, Unfinished, Work


def asleep(partly: Any) -> Iterator[Any]:
    """Finds something, and hangs."""
    yield partly
    time.sleep(600)


def deaf() -> None:
    """Hangs, and cannot be asked to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(600)


def fail(error: Exception) -> None:
    raise error


def troubled(_work: Work) -> list[Part]:
    return [
        Part("well", 60, lambda: {"number": 1}),
        Part("fails", 60, lambda: fail(ValueError("it is\nso"))),
        Part("crashes", 60, os.abort),
        Part("hangs", 1, lambda: asleep({"partly": 2})),
        Part("is deaf", 1, deaf),
        Part("is absent", 60, lambda: fail(Absent("there is none"))),
        Part("starts", 60, lambda: subprocess.Popen(["sleep", "600"]).pid),
        Part("last", 60, lambda: 3),
    ]


def slow(work: Work) -> list[Part]:
    earlier = work.found("stage", "long")

    def long() -> Any:
        return earlier | {"spent": work.spent["long"] > 0} if earlier else asleep({"from": 0})

    return [Part("quick", 60, lambda: 1), Part("long", 600, long)]


def unfinished(_work: Work) -> list[Part]:
    return [Part("one", 60, lambda: fail(Unfinished("more to come"))), Part("two", 60, lambda: 2)]


def broken(_work: Work) -> list[Part]:
    raise OSError("no such thing")
