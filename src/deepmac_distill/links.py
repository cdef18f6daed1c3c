"""A run that may be a stranger's is written through no symbolic link."""

from __future__ import annotations

from pathlib import Path

from deepmac_distill.errors import RunError


def inner(folder: Path, *names: str) -> Path:
    """A path below a folder that may be a stranger's.

    Raises:
        RunError: one of the names is a link, so that what is written there may be written anywhere, or is no
            file at all.
    """
    for name in names:
        if (folder := folder / name).is_symlink():
            raise written_through(folder)
        if folder.exists() and not (folder.is_dir() or folder.is_file()):  # to open a pipe would wait
            raise RunError(f"{folder}: is a pipe or a device; expected an ordinary file or none; remove it")
    return folder


def written_through(link: Path) -> RunError:
    """The error where a run would write through a link."""
    return RunError(f"{link}: is a link, and this run would write through it; expected no link; remove it")
