"""What a stage consists of, and the process that works through it.

A stage is a list of parts. Its process tells each part as it begins, each figure as it is found,
and how the part ended, so that whoever listens knows all that was measured however the process
ends. Imports no torch: the listener needs none.
"""

import datetime
import importlib
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

Known = Mapping[str, Mapping[str, Any]]
"""What was found, by stage and part."""

DONE, FAILED, ABSENT, CUT_OFF = "done", "failed", "absent", "cut off"
SETTLED = (DONE, FAILED, ABSENT)
"""How a part ended that is not tried again unless its stage is named."""
LISTED, BEGAN, FOUND, ENDED = "listed", "began", "found", "ended"
FINISHED, BROKE = "finished", "broke"
"""What the process of a stage tells: its parts; of a part that it began, what it found, how it
ended; that nothing is left, or why there are no parts."""
SMALL = "small"
"""The space of a tiny run, whatever is asked for."""


class Absent(Exception):
    """This machine lacks what the part needs; the text says what."""


class Unfinished(Exception):
    """The part was stopped in good order, and the next call goes on with it; the text says why."""


@dataclass(frozen=True)
class Part:
    """A piece of a stage, and the seconds that it may take.

    `measure` returns what it found, for JSON, or is a generator whose values are the same, more
    complete each time.
    """

    name: str
    limit: float
    measure: Callable[[], Any]


@dataclass(frozen=True)
class Work:
    """What a stage is told.

    `seconds` are left to it. `temporary` is a folder that lasts as long as the call. `known` is
    what all stages have found so far, by stage and part, and `spent` the seconds that the stage's
    own parts have taken before; of its parts those are measured whose name has one of `only`, or
    all; `tiny` asks for sizes with which a CPU is done in seconds.
    """

    data: str
    device: str
    tiny: bool
    seconds: float
    temporary: Path
    only: tuple[str, ...] = ()
    known: Known = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)

    def chosen(self, parts: list[Part]) -> list[Part]:
        """Those of a stage's parts that are to be measured."""
        return [p for p in parts if not self.only or any(text in p.name for text in self.only)]

    def space(self, name: str) -> str:
        """The search space to measure where `name` is meant."""
        return SMALL if self.tiny else name

    def found(self, stage: str, part: str) -> Any:
        """What a part found, at last; an empty mapping for nothing."""
        return self.known.get(stage, {}).get(part) or {}


def serve(
    connection: Connection, target: str, work: Work, settled: Collection[str], log: Path
) -> None:
    """The process of a stage: work through the parts that are not settled.

    `target` is "module:function"; never returns.

    The function takes the Work and gives the parts. A part that fails ends the process, since it
    may have spoilt the device; another one goes on with the rest.
    """
    os.setsid()  # whoever ends it can end all that it started
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_listener, daemon=True).start()
    _write_to(log)
    code = 1
    try:
        code = _work(connection, target, work, settled)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    except BaseException:
        traceback.print_exc()
    os._exit(code)  # what it started may hang, and is ended from outside


def _work(connection: Connection, target: str, work: Work, settled: Collection[str]) -> int:
    try:
        parts = work.chosen(call(target, work))
    except Exception as error:
        traceback.print_exc()
        connection.send((BROKE, sentence(error)))
        return 1
    connection.send((LISTED, [part.name for part in parts]))
    for part in parts:
        if part.name not in settled and not _attempt(connection, part):
            return 1
    connection.send((FINISHED,))
    return 0


def call(target: str, *args: Any) -> Any:
    """What the function "module:function" gives; its module is imported here and now."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(*args)


def _attempt(connection: Connection, part: Part) -> bool:
    """Measure one part, and tell; whether the process can go on."""
    print(f"-- {part.name}, at most {part.limit:.0f} s", flush=True)
    connection.send((BEGAN, part.name, part.limit))
    try:
        for found in _values(part.measure()):
            plain = json.loads(json.dumps(found, default=str))
            connection.send((FOUND, part.name, plain))
            print(json.dumps(plain)[:2000], flush=True)
    except Absent as error:
        connection.send((ENDED, part.name, ABSENT, str(error)))
    except Unfinished as error:
        connection.send((ENDED, part.name, CUT_OFF, str(error)))
    except Exception as error:
        traceback.print_exc()
        connection.send((ENDED, part.name, FAILED, sentence(error)))
        return False
    else:
        connection.send((ENDED, part.name, DONE, ""))
    return True


def _values(found: Any) -> Iterator[Any]:
    return found if isinstance(found, Iterator) else iter((found,))


def now() -> str:
    """Date and time."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def sentence(error: BaseException) -> str:
    """What an error says, in a line."""
    said = next(iter(str(error).strip().splitlines()), "")[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _end_with_listener() -> None:
    """A machine must not go on measuring for somebody who was killed."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _write_to(log: Path) -> None:
    """All that this process and those that it starts say goes to the end of the log."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
