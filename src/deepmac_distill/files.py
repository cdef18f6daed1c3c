"""Writes files and folders whole or not at all, on the disk before they have their name, and hashes them."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepmac_distill.regular import opened, read_small

OLD = ".old"  # suffix of a folder that its successor replaces
MAX_NAME_BYTES = 200  # of a name to which suffixes are added; file systems take 255
_LEFT = ".*.part"  # of a writer that was killed
# Answers of a disk that cannot do it for a folder; the work is no worse for it.
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.EACCES, errno.EBADF, errno.EISDIR, errno.EOPNOTSUPP)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it into place when the block ends well.

    A block that raises leaves nothing behind, so a reader never meets half a file; nor does one after the
    machine has failed, since the bytes reach the disk first. A link at `path` is replaced, not followed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")  # what is put around it has to fit too
    aside = path.with_name(f".{name}.{secrets.token_hex(6)}.part")  # no other writer's, on any machine
    try:
        yield aside
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def written_sealed(path: Path) -> Iterator[Path]:
    """`written_whole`, with the hash of the bytes in a file beside it, by which `is_sealed` finds any damage.

    The hash is there before the file, so a kill in between leaves no file without one.
    """
    with written_whole(path) as aside:
        yield aside
        write_text(seal_of(path), sha256_of_file(aside))


def is_sealed(path: Path) -> bool:
    """Whether a file is byte for byte what `written_sealed` wrote."""
    try:
        return read_small(seal_of(path)).decode() == sha256_of_file(path)
    except (OSError, UnicodeDecodeError):
        return False


def seal_of(path: Path) -> Path:
    """Where the hash of a sealed file is."""
    return path.with_name(f"{path.name}.sha256")


def sync(path: Path) -> None:
    """Return when a file's bytes, or a folder's names, are on the disk."""
    if path.is_dir() and os.name == "nt":  # where a folder cannot be opened
        return
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NOT_FOR_FOLDERS):
            raise
    finally:
        os.close(file)


def replace_folder(part: Path, whole: Path) -> None:
    """Rename a folder that is whole to `whole`; what has that name goes aside first, and is removed last.

    A kill at any moment leaves both, or the new one; `settle_folder` ends what it has stopped.
    """
    for path in (*part.rglob("*"), part):
        sync(path)
    old = old_of(whole)
    if os.path.lexists(whole):
        remove(old)
        whole.rename(old)
    part.rename(whole)
    sync(whole.parent)
    remove(old)


def settle_folder(whole: Path) -> None:
    """End a replacement that was stopped between its renames, where nothing is left to take the name."""
    old = old_of(whole)
    if not os.path.lexists(old):
        return
    if os.path.lexists(whole):
        remove(old)
    else:
        old.rename(whole)


def old_of(whole: Path) -> Path:
    """Where a folder waits until its successor has its name."""
    return whole.with_name(f"{whole.name}{OLD}")


def remove(path: Path) -> None:
    """Remove a folder, a file or a link, whose target stays; nothing at all is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder; a kill in between leaves none of its name, so half of it is never taken for it."""
    if folder.exists():
        old = old_of(folder)
        remove(old)
        folder.rename(old)
        remove(old)


def is_plain_name(name: str) -> bool:
    """Whether a name stays in the folder where it is put, on every system, with room for a suffix.

    >>> is_plain_name("demo"), is_plain_name("../../escaped"), is_plain_name(".."), is_plain_name("n" * 201)
    (True, False, False, False)
    """
    stays = Path(name).name == name and name not in ("", "..") and "\\" not in name and name.isprintable()
    return stays and len(name.encode()) <= MAX_NAME_BYTES


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but the unfinished files of killed writers."""
    return all(map(is_leftover, folder.iterdir()))


def is_leftover(path: Path) -> bool:
    """Whether this is the unfinished file of a killed writer."""
    return path.match(_LEFT)


def first_odd(folder: Path) -> Path | None:
    """The folder itself, or a path in it, that is a link, a pipe or a device; None where all is its own.

    What another process renames or removes meanwhile is no longer there, and not odd.
    """
    return next((path for path in (folder, *sorted(folder.rglob("*"))) if _is_odd(path)), None)


def _is_odd(path: Path) -> bool:
    return path.is_symlink() or not (path.is_dir() or path.is_file() or not os.path.lexists(path))


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of killed writers under `folder`."""
    for aside in list(folder.rglob(_LEFT)):
        remove(aside)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a closing newline, whole or not at all."""
    write_text(path, in_utf8(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


def in_utf8(text: str) -> str:
    """Text with halves of characters (lone surrogates) as JSON's escapes: no file in UTF-8 can hold them.

    >>> in_utf8(json.loads('"caf\\u00e9"')), in_utf8(json.loads('"a \\ud83d"'))
    ('café', 'a \\\\ud83d')
    """
    return text.encode(errors="backslashreplace").decode()


def read_text(path: Path) -> str:
    """The text of a file that a person wrote, in UTF-8, or in UTF-16 as Windows writes it with its mark.

    Every line ends with a line feed alone.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is in neither.
    """
    content = read_small(path)
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if marked else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order.

    >>> sha256_of_json({"a": 1, "b": 2}) == sha256_of_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
