"""Write files at once or not at all. Imports nothing of bam_search."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` at once when the context ends, or not at all.

    Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=beginning(path))
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            # A machine that dies after this leaves the old file or the new one, not an empty one.
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def beginning(path: Path) -> str:
    """Return the prefix of the temporary files that a killed process may leave of `path`."""
    return f".{path.name}."


def write(path: Path, text: str) -> None:
    """Write a UTF-8 file at once or not at all. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode())
