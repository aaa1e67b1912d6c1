"""Errors that are shown as a sentence instead of a traceback.

They say what a user can mend, or what went wrong around a study. Imports nothing of bam_search.
"""

import difflib
from collections.abc import Iterable


class ExplainedError(Exception):
    """An error with a `message` that says what is wrong, and a `hint` that says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(ExplainedError):
    """A mistake in what was asked for. The CLI exits with 2.

    >>> from bam_search import Placement, UserError
    >>> try:
    ...     Placement.parse("layer1:bam")
    ... except UserError as error:
    ...     print(error.message, error.hint, sep="\\n")
    cannot read ...
    """


class RunError(ExplainedError):
    """A failure of a disk, a database, a device or a worker that ends a study.

    What is finished is kept. The CLI exits with 1.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, or the name of its type without one."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def last_line(failure: str) -> str:
    """Return the last line of a traceback, which says what went wrong; an empty text for none."""
    return failure.strip().splitlines()[-1] if failure else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known name closest to `name`, or a list of the known names."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not names:
        return "there are none"
    more = ", ..." if len(names) > 20 else ""
    return f"known: {', '.join(names[:20])}{more}"
