"""Writing files whole. May touch the file system, and nothing else."""

import os
import tempfile
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a UTF-8 file at once or not at all. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a machine that dies now leaves the old file or the new one, not an empty one
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
