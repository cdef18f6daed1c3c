"""Images in tar archives, as WebDataset has them: an index of each archive, and bytes out of its middle.

Nothing is unpacked, and nothing but plain files is looked at: no link, and no name, leads out of an archive.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from deepmac_distill.dataset.cache import read_checked, write_checked
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_json
from deepmac_distill.regular import opened
from deepmac_distill.storage.copies import cache_folder
from deepmac_distill.storage.location import Location, place_of, shown
from deepmac_distill.storage.store import Object, store_of

SUFFIX = ".tar"
_AT_ONCE = 8  # archives that are indexed together
_AHEAD = 2**16  # bytes that one request for a header brings
_WILD = "*?["


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file of an archive is."""

    archive: Path | Location
    start: int
    object: Object  # its size, and the time of the archive


@dataclass(frozen=True, slots=True)
class Archives:
    """The members of all archives that a path or URI names, which may have wildcards in its last part."""

    named: Path

    def entries(self) -> Mapping[str, Object]:
        """See `stored_images.Shelf.entries`.

        Raises:
            DataError: there is no archive, one is broken, or two have a member of one name.
        """
        return _entries(self.named)

    def read(self, name: str) -> bytes:
        """See `stored_images.Shelf.read`.

        Raises:
            DataError: the archive has become shorter.
        """
        member = _members(self.named)[name]
        if isinstance(member.archive, Location):
            return store_of(member.archive).read(member.archive, member.start, member.object.size)
        with opened(member.archive) as file:
            file.seek(member.start)
            content = file.read(member.object.size)
        if len(content) != member.object.size:
            raise DataError(f"{member.archive}: is cut off in {name}; expected a whole archive")
        return content


def is_archives(named: Path) -> bool:
    """Whether a place of images is one of archives, by its name alone."""
    return named.suffix == SUFFIX


@lru_cache(maxsize=8)
def _members(named: Path) -> dict[str, Member]:
    archives = _archives(named)
    if not archives:
        raise DataError(f"{shown(named)}: no archive of that name; expected {SUFFIX} files")
    members: dict[str, Member] = {}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(lambda one: _index(*one), archives)
        for (archive, stamp), index in zip(archives, found, strict=True):
            for name, start, size in index:
                if (other := members.get(name)) is not None:
                    raise DataError(f"{archive}: has {name}, and {other.archive} has it too; expected one")
                members[name] = Member(archive, start, Object(size, stamp.changed_ns))
    return members


@lru_cache(maxsize=8)
def _entries(named: Path) -> dict[str, Object]:
    return {name: member.object for name, member in _members(named).items()}


def _archives(named: Path) -> list[tuple[Path | Location, Object]]:
    """The archives that a name means, in the order of their names."""
    place = place_of(named)
    if isinstance(place, Location):
        if not any(sign in place.name for sign in _WILD):
            one = store_of(place).info(place)
            return [] if one is None else [(place, one)]
        listed = store_of(place.parent).listed(place.parent)
        return [
            (place.parent / name, found)
            for name, found in sorted(listed.items())
            if "/" not in name and fnmatchcase(name, place.name)
        ]
    wild = any(sign in place.name for sign in _WILD)
    paths = sorted(place.parent.glob(place.name)) if wild else [place] if place.is_file() else []
    stats = [(path, path.stat()) for path in paths]
    return [(path, Object(stat.st_size, stat.st_mtime_ns)) for path, stat in stats]


def _index(archive: Path | Location, stamp: Object) -> Sequence[tuple[str, int, int]]:
    """Name, start and size of each plain file of an archive; kept until the archive changes."""
    where = str(archive if isinstance(archive, Location) else archive.resolve())
    kept = cache_folder() / "archives" / f"{sha256_of_json(where)}.json"
    now = [stamp.size, stamp.changed_ns]
    if (known := read_checked(kept)) is not None and known.get("stamp") == now:
        return [(name, start, size) for name, start, size in known["members"]]
    if isinstance(archive, Location):
        index = store_of(archive).opened(archive, lambda file: _read_index(_buffered(file), archive, stamp))
    else:
        with opened(archive) as file:
            index = _read_index(file, archive, stamp)
    with suppress(OSError):  # a cache that cannot be written costs time alone
        write_checked(kept, {"archive": where, "stamp": now, "members": [list(one) for one in index]})
    return index


def _read_index(file: IO[bytes], archive: Path | Location, stamp: Object) -> list[tuple[str, int, int]]:
    try:
        return list(_files(file, archive, stamp))
    except (tarfile.TarError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{archive}: cannot be read ({reason}); expected a tar archive that is not compressed"
        ) from error


def _files(file: IO[bytes], archive: Path | Location, stamp: Object) -> Iterator[tuple[str, int, int]]:
    seen: set[str] = set()
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if not member.isreg() or member.issparse():
                continue
            if member.offset_data + member.size > stamp.size:
                raise DataError(f"{archive}: is cut off in {member.name}; expected a whole archive")
            name = member.name.removeprefix("./")
            if name in seen:
                raise DataError(f"{archive}: has {name} twice; expected it once")
            seen.add(name)
            tar.members.clear()  # type: ignore[attr-defined]  # which tarfile would keep
            yield name, member.offset_data, member.size


def _buffered(file: Any) -> IO[bytes]:
    return io.BufferedReader(file, _AHEAD)
