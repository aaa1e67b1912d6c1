"""Sentences instead of tracebacks: what a user can mend, and what went wrong around a study.

May touch nothing.
"""

import difflib
from collections.abc import Iterable


class ExplainedError(Exception):
    """`message` states what is wrong with the value that is, `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(ExplainedError):
    """A mistake in what was asked for. The CLI exits with 2."""


class RunError(ExplainedError):
    """A disk, a database, a device or a worker that failed a study on its way; what is finished is
    kept. The CLI exits with 1.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, its name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name closest to `name`, or the list of them all."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"known: {shown}" if names else "there are none"
