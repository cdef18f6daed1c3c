"""Where local copies of objects are kept, and which object a copy is of."""

from __future__ import annotations

import os
import re
from pathlib import Path

from deepmac_distill.storage.location import Location


def cache_folder() -> Path:
    """$DEEPMAC_CACHE, else the folder `deepmac-distill` where the system keeps caches (XDG)."""
    if given := os.environ.get("DEEPMAC_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "deepmac-distill"


def objects_folder() -> Path:
    """Where copies of objects are, as SCHEME/BUCKET/KEY below it."""
    return cache_folder() / "objects"


def scratch_of(run: Location, shard: str = "") -> Path:
    """Where the work is done for a run in a bucket, below $DEEPMAC_SCRATCH, else `runs` in the cache.

    Args:
        shard: such as 2/7, which works apart.
    """
    root = Path(os.environ.get("DEEPMAC_SCRATCH") or cache_folder() / "runs")
    part = f"shard {shard.replace('/', ' of ')}" if shard else "whole"
    return root.joinpath(part, run.scheme, run.bucket, *filter(None, run.key.split("/")))


def copy_of(place: Location) -> Path:
    """Where the copy of an object is kept."""
    return objects_folder().joinpath(place.scheme, place.bucket, *filter(None, place.key.split("/")))


def origin_of(path: Path) -> Location | None:
    """The object that a path is the copy of; None of a path that is none.

    >>> str(origin_of(copy_of(Location("s3", "bucket", "coco/a.json"))))
    's3://bucket/coco/a.json'
    """
    try:
        scheme, bucket, *key = path.absolute().relative_to(objects_folder().absolute()).parts
    except ValueError:
        return None
    return Location(scheme, bucket, "/".join(key))


def lasting_name(path: Path) -> str:
    """What a path is found by on any day and, of the copy of an object, on any machine."""
    origin = origin_of(path)
    return str(path.resolve()) if origin is None else str(origin)


def with_uris(text: str, folder: Path | None = None) -> str:
    """A text in which copies of objects are called as the objects are.

    Args:
        folder: that of the copies; None: `objects_folder()`.

    >>> with_uris("/c/objects/s3/bucket/a.json: image 3", Path("/c/objects"))
    's3://bucket/a.json: image 3'
    """
    scratch = os.environ.get("DEEPMAC_SCRATCH") or str(cache_folder() / "runs")
    part_of_run = r"/(?:shard [0-9]+ of [0-9]+|whole)"
    for begin, part in ((str(folder or objects_folder()), ""), (scratch, part_of_run)):
        if begin in text:
            text = re.sub(rf"{re.escape(begin)}{part}/(s3|gs)/", r"\1://", text)
    return text


def is_copy(path: Path, size: int, changed_ns: int) -> bool:
    """Whether a file is the copy of an object of this size and time."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (stat.st_size, stat.st_mtime_ns) == (size, changed_ns)


def is_safe(name: str) -> bool:
    """Whether a key may become a path: a bucket may be a stranger's.

    >>> [is_safe(name) for name in ("teacher/a.json", "../a", "/a", "a//b")]
    [True, False, False, False]
    """
    return all(part not in ("", ".", "..") for part in name.split("/")) and "\0" not in name
