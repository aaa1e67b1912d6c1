"""The folder where packed images are kept between runs, and how files come to it."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from bam_search.errors import UserError

VARIABLE = "BAM_SEARCH_CACHE"
"""The environment variable that names another folder."""
MARGIN = 64 * 2**20
"""Bytes of the disk that are left free."""
LEFT = 24 * 3600
"""Seconds after which an unfinished file is one of a process that was killed."""


def cache_folder() -> Path:
    """Where packed images lie; it is made. Raises UserError if that cannot be."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bam_search"
    folder = Path(os.environ.get(VARIABLE) or usual)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("it cannot be written")
    except OSError as error:
        raise UserError(f"no cache for images at {folder}: {error}", _ELSEWHERE) from None
    return folder


_ELSEWHERE = f"name another folder in the environment variable {VARIABLE}"


def check_space(folder: Path, needed: int) -> None:
    """Raise UserError if the disk of `folder` has no room for so many bytes.

    Files that killed processes left unfinished there are removed first.
    """
    for path in folder.glob(".*"):
        with contextlib.suppress(OSError):  # another process may have finished it
            if time.time() - path.stat().st_mtime > LEFT:
                path.unlink()
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN:
        raise UserError(
            f"the images take {_megabytes(needed)} in {folder}, and {_megabytes(free)} are free",
            f"{_ELSEWHERE}, or make them smaller with data.size",
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
