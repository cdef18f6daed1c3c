"""A run that may be a stranger's is written through no symbolic link."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.errors import RunError


def inner(folder: Path, *names: str) -> Path:
    """A path below a folder that may be a stranger's.

    Raises:
        RunError: one of the names is a link, so that what is written there may be written anywhere.
    """
    for name in names:
        if (folder := folder / name).is_symlink():
            raise written_through(folder)
    return folder


def written_through(link: Path) -> RunError:
    """The error where a run would write through a link."""
    return RunError(f"{link}: is a link, and this run would write through it; expected no link; remove it")
