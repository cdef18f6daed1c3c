"""Hashes of image files, each file read once: again only where its size or times changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from deepmac_distill.dataset.cache import SETTLED_SECONDS, read_checked, write_checked
from deepmac_distill.files import sha256_of_file, sha256_of_json
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.storage.copies import cache_folder

WORTH_A_BAR = 2**30  # bytes: seconds of a disk
Stamp = tuple[int, int, int, int]  # size, time of the pixels, time of the entry, file


def sha256_of_files(folder: Path, paths: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """SHA-256 of each file.

    Args:
        folder: under whose name the hashes are kept, beside the tables of annotation files.
        progress: shows a bar where more than `WORTH_A_BAR` bytes are to be read.
    """
    kept = cache_folder() / "images" / f"{sha256_of_json(str(folder.resolve()))}.json"
    known = dict(_known(kept))
    stamps = [_stamp(path) for path in paths]
    pairs = [
        (path, stamp) for path, stamp in zip(paths, stamps, strict=True) if not _is_known(known, path, stamp)
    ]
    large = sum(stamp[0] for _, stamp in pairs) > WORTH_A_BAR
    shown = progress if progress is not None and large else Silent()
    fresh: dict[Path, str] = {}
    with shown.bar("hashing images", len(pairs), unit="image") as bar:
        for path, stamp in pairs:
            fresh[path] = sha256_of_file(path)
            if time.time() - max(stamp[1:3]) / 1e9 > SETTLED_SECONDS:
                known[str(path)] = (stamp, fresh[path])
            bar.advance()
    if fresh:
        _keep(kept, known)
    return [fresh[path] if path in fresh else known[str(path)][1] for path in paths]


def _is_known(known: Mapping[str, tuple[Stamp, str]], path: Path, stamp: Stamp) -> bool:
    entry = known.get(str(path))
    return entry is not None and entry[0] == stamp


def _known(kept: Path) -> dict[str, tuple[Stamp, str]]:
    return _read(kept, _stamp(kept)) if kept.is_file() else {}


@lru_cache(maxsize=4)
def _read(kept: Path, stamp: Stamp) -> dict[str, tuple[Stamp, str]]:
    """The file as it is at this time; stages ask for the same images several times."""
    del stamp
    held = read_checked(kept) or {}
    return {name: ((at[0], at[1], at[2], at[3]), sha256) for name, (at, sha256) in held.items()}


def _keep(kept: Path, known: dict[str, tuple[Stamp, str]]) -> None:
    try:
        write_checked(kept, {name: [list(stamp), sha256] for name, (stamp, sha256) in known.items()})
    except OSError:  # a cache that cannot be written costs time alone
        return


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
