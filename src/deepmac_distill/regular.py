"""Opens files that may be a stranger's: ordinary ones alone, and none larger than its kind can be.

A pipe would wait for a writer, a device would give bytes without an end, and a file of holes would fill
memory or time with zeros that take no disk.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

MOST_TEXT_BYTES = 2**26  # of JSON, TOML and lists that are read whole; ours hold kilobytes
MOST_LIST_BYTES = 2**32  # of JSON that lists all detections, or all images of a cache
MOST_HOLES_BYTES = 2**30  # of a file that nobody wrote in full
_KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a pipe",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
    stat.S_IFSOCK: "is a socket",
}


class UnfitFile(OSError):
    """What has the name of a file is none, or is no such file: `expected` names what would be."""

    def __init__(self, what: str, path: Path, expected: str) -> None:
        super().__init__(errno.EINVAL, what, str(path))
        self.expected = expected

    def __str__(self) -> str:
        return self.strerror or ""  # callers name the path


def require_regular(path: Path) -> None:
    """Refuse what is no ordinary file, links followed, or a huge one that is mostly holes.

    Raises:
        UnfitFile: names what it is.
        OSError: it cannot be looked at, or is not there.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "is no file")
        raise UnfitFile(kind, path, "an ordinary file")
    holes = _bytes_of_holes(path, state.st_size) if state.st_size > MOST_HOLES_BYTES else 0
    if holes > max(MOST_HOLES_BYTES, state.st_size // 2):
        raise UnfitFile(f"has holes of {holes >> 20} MiB", path, "a file that was written in full")


def opened(path: Path) -> io.BufferedReader:
    """Open an ordinary file to read its bytes.

    Raises:
        UnfitFile, OSError: as `require_regular`.
    """
    require_regular(path)
    return path.open("rb")


def read_small(path: Path, most: int = MOST_TEXT_BYTES) -> bytes:
    """All bytes of an ordinary file that is no larger than `most`.

    Raises:
        UnfitFile: it is larger, or no file.
        OSError: as `require_regular`.
    """
    with opened(path) as file:
        content = file.read(most + 1)  # some files of the system state no size
    if len(content) > most:
        raise UnfitFile(f"holds more than {most >> 20} MiB", path, "a file of this kind, which is smaller")
    return content


def _bytes_of_holes(path: Path, size: int) -> int:
    """How much of a file was never written; 0 where the system cannot say."""
    if not hasattr(os, "SEEK_HOLE"):
        return 0
    holes, at = 0, 0
    with path.open("rb") as file:
        while at < size:
            try:
                hole = file.seek(at, os.SEEK_HOLE)
            except OSError:  # a file system that does not know, or a file that has become shorter
                return holes
            if hole >= size:
                return holes
            try:
                at = file.seek(hole, os.SEEK_DATA)
            except OSError:  # no data follows
                at = size
            holes += at - hole
    return holes
