"""What the machine refuses: memory, disk, files, locks. It is one line, and kept apart from bugs."""

from __future__ import annotations

import errno
import re

from deepmac_distill.regular import UnfitFile

_EXPECTED = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space in the quota of the disk",
    errno.EFBIG: "a higher limit of file sizes (ulimit -f), or a file system that takes such files",
    errno.EROFS: "a file system that can be written to",
    errno.EACCES: "a path that can be used",
    errno.EPERM: "a path that can be used",
    errno.ENOLCK: "a file system that has locks, such as a local disk",
    errno.EOPNOTSUPP: "a file system that has locks, such as a local disk",
    errno.EMFILE: "a higher limit of open files (ulimit -n)",
    errno.ENFILE: "a higher limit of open files",
    errno.ENOMEM: "more free memory",
    errno.ENAMETOOLONG: "a shorter name",
    errno.EIO: "a disk that can be read",
    errno.ESTALE: "a disk that can be read",
    errno.ENOTCONN: "a disk that is mounted",
    errno.ETIMEDOUT: "a disk that answers",
    errno.EAGAIN: "a higher limit of processes (ulimit -u)",
}
_NO_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory"),
    *("bad_alloc", "STATUS_ALLOC_FAILED"),  # of C++, and of cuBLAS and cuDNN
    "failed to map segment",  # of a library that is loaded
)
_WHAT = re.compile(r"[^\]\n.:]*llocate(?:[^.\n]|\.(?! [A-Z])|\.(?= [KMGT]iB))*")  # a sentence with its number
_OF_LIBRARIES = {  # words of libraries that hide the system's number
    "No space left on device": errno.ENOSPC,
    "file write failed": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Too many open files": errno.EMFILE,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
    "File name too long": errno.ENAMETOOLONG,
    "can't start new thread": errno.EAGAIN,
}


def is_of_the_machine(error: BaseException) -> bool:
    """Whether memory, a limit, a permission or a disk stopped work on a file, and not what is in the file.

    >>> is_of_the_machine(OSError(errno.EIO, "Input/output error")), is_of_the_machine(OSError("truncated"))
    (True, False)
    """
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _EXPECTED)


def out_of_memory(error: BaseException) -> str | None:
    """In short what could not be had, of the CPU's memory or a GPU's; None where an error is another."""
    text = str(error)
    if "Operation not permitted" in text:  # a library on a disk that is mounted without execution
        return None
    if not (isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)):
        return None
    if isinstance(error, ImportError):
        return " ".join(text.split())
    found = _WHAT.search(text)
    return found.group().strip() if found else type(error).__name__


def refused_by_the_machine(error: BaseException) -> str | None:
    """One line for an error that the machine or its user caused; None where it is another, so a bug."""
    if (short := out_of_memory(error)) is not None:
        return f"out of memory: {short}; expected less at a time, or more free memory"
    if isinstance(error, UnfitFile):
        return f"{error.filename}: {error.strerror}; expected {error.expected}"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        what = error.strerror or " ".join(str(error).split()) or type(error).__name__
        number = error.errno or next((at for words, at in _OF_LIBRARIES.items() if words in what), 0)
        return f"{place}{what}; expected {_EXPECTED.get(number, 'a path that can be used')}"
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"{error.object!r}: holds bytes that are not UTF-8; expected a name in UTF-8"
    for words, number in _OF_LIBRARIES.items():
        if words in str(error):
            return f"{words}; expected {_EXPECTED[number]}"
    return None
