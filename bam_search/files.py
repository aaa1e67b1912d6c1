"""Writing files whole. May touch the file system, and nothing else."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes `path` at once when the context ends, or not at all.

    Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=beginning(path))
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(
                file.fileno()
            )  # a machine that dies now leaves the old file or the new one, not an empty one
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def beginning(path: Path) -> str:
    """How the name begins of what a killed process leaves of `path`."""
    return f".{path.name}."


def write(path: Path, text: str) -> None:
    """Write a UTF-8 file at once or not at all. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode())
