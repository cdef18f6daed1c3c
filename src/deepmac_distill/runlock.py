"""Who may work in a run: one process at a time, on every system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deepmac_distill.errors import RunError

NAME = ".lock"
PATIENCE_SECONDS = 0.2  # whoever only asks whether somebody works holds the lock for less


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run, whose folder is made where it is missing; the system lets go when a process dies.

    Raises:
        RunError: another process works in it, or the lock is a link, which is not followed.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / NAME
    if path.is_symlink():
        raise RunError(f"{path}: is a link; expected a file that this run made, or none")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS, poll_interval=PATIENCE_SECONDS / 4)
    except Timeout:
        raise RunError(f"{run}: another process works in this run; expected one at a time") from None
    try:
        yield
    finally:
        lock.release()


def is_held(run: Path) -> bool:
    """Whether a process works in the run now; nothing is written."""
    path = run / NAME
    if path.is_symlink() or not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a run that may only be read, a disk without locks
        return False
    lock.release()
    return False
