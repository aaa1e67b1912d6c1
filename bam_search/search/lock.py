"""One process at a time runs a study: it holds a lock on the study's folder.

The operating system ends the lock with the process, however that ends. Processes that it starts do
not inherit the lock.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import portalocker
from portalocker import AlreadyLocked, LockException, LockFlags

from bam_search.errors import UserError
from bam_search.files import write
from bam_search.search.status import STATUS, StatusFile, read_status, when

LOCK = "lock"
"""An empty file, which stays; only who has it locked counts."""
PATIENCE = 1.0
"""Seconds to wait for the lock: a process that only checks the lock holds it for an instant."""
CHECK = LockFlags.SHARED | LockFlags.NON_BLOCKING
"""How to check a lock: shared, so that two checks do not take each other for a run."""


@contextlib.contextmanager
def locked(folder: Path, command: str) -> Iterator[StatusFile]:
    """Hold the lock of the study in `folder`, which is made if it does not exist.

    Yields the status of this process. A UserError in the context leaves the folder as it was
    before. Raises UserError if another process runs the study, or the folder cannot be used.
    """
    new = not folder.exists()
    lock = portalocker.Lock(folder / LOCK, timeout=PATIENCE, check_interval=0.02)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock)
            before = _text(folder / STATUS)
            status = StatusFile(folder, command)
        except AlreadyLocked:
            hint = f"wait, or end it with `python -m bam_search stop {folder}`"
            raise UserError(_busy(folder), hint) from None
        except (OSError, LockException) as error:
            message = f"the study folder {str(folder)!r} cannot be used: {error.strerror or error}"
            raise UserError(message, "try another --out") from None
        try:
            yield status
        except UserError:
            _as_it_was(folder, before, new)
            raise


def is_locked(folder: Path) -> bool:
    """Whether a process runs the study in `folder` now; it writes nothing."""
    try:
        with portalocker.Lock(folder / LOCK, "rb", timeout=0, flags=CHECK):
            return False
    except FileNotFoundError:
        return False
    except AlreadyLocked:
        return True


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _as_it_was(folder: Path, before: str | None, new: bool) -> None:
    """Restore the folder: its status before, or no folder if it is new."""
    if before is not None:
        write(folder / STATUS, before)
    else:
        (folder / STATUS).unlink(missing_ok=True)
    if new:
        (folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else came there
            folder.rmdir()


def _busy(folder: Path) -> str:
    """Who runs the study, as a sentence."""
    status = read_status(folder)
    if status is None:
        return f"{folder} is being started by another process"
    return (
        f"{folder} is driven by process {status.pid} on {status.host}, "
        f"since {when(status.since)}: {status.command}"
    )
