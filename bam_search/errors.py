"""The one exception for what a user can mend: a sentence, and a hint. May touch nothing."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: `message` states it with the value given, `hint` says what to do. The CLI exits with 2."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name closest to `name`, or the list of them all."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"known: {shown}" if names else "there are none"
