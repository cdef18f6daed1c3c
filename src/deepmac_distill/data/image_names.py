"""How an image is looked for by the name that a file gives it, and what no two names may mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from deepmac_distill.errors import DataError

Key = TypeVar("Key")


def matched(
    names: Sequence[str],
    locate: Callable[[str], Key],
    flat: Callable[[Key], bool],
    as_named: Callable[[str], bool],
    place: object,
) -> list[Key | DataError]:
    """Where each image of a file is, or why it is not to be used: no two names may mean one image.

    Args:
        locate: where one is; raises DataError.
        flat: whether that is directly in the place.
        as_named: whether an image is there under its whole name.
        place: where they are, for messages.
    """
    by_last_part: dict[str, set[str]] = {}
    for name in names:
        by_last_part.setdefault(PurePosixPath(name).name, set()).add(name)
    name_of: dict[Key, str] = {}
    found: list[Key | DataError] = []
    for name in names:
        others = by_last_part[PurePosixPath(name).name] - {name}
        try:
            key = locate(name)
        except DataError as error:
            found.append(error)
            continue
        if (first := name_of.setdefault(key, name)) != name:
            found.append(DataError(f"{key}: is both {first} and {name}; expected one name"))
        elif others and flat(key) and "/" in name:
            found.append(_ambiguous(name, key, min(others), as_named, place))
        else:
            found.append(key)
    return found


def _ambiguous(
    name: str, key: object, other: str, as_named: Callable[[str], bool], place: object
) -> DataError:
    first, second = sorted((name, other))
    if not as_named(other):
        return DataError(f"{key}: is both {first} and {second}; expected one name")
    return DataError(f"{place}/{name}: no such file; {key} may be {other} as well, expected it in its folder")


def forms_of(name: str) -> Iterator[str]:
    """What an image may be called: as named, without its folders, with accents of one or two characters."""
    forms = [name] if name.isascii() else [name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))]
    for form in forms:
        yield form
        yield PurePosixPath(form).name


def no_such_file(path: object, near: str) -> DataError:
    """The error of an image that is missing.

    Args:
        near: what is there and differs in the case of letters alone or not at all, or nothing. A file in
            another case is not taken: on another system it would be another image.
    """
    if near and near == PurePosixPath(str(path)).name:
        return DataError(f"{path}: is no regular file, but a folder, a pipe or a device; expected an image")
    there = f" ({near} is there, in other letter case)" if near else ""
    return DataError(f"{path}: no such file{there}; expected an image")
