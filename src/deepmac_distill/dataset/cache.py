"""Where tables of annotation files are kept between commands; what does not fit is made again."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepmac_distill.dataset import foreign
from deepmac_distill.dataset.document import BrokenDocument
from deepmac_distill.dataset.image_entries import SizeSource
from deepmac_distill.dataset.ingest import ingest
from deepmac_distill.dataset.parquet import files_of
from deepmac_distill.dataset.problems import Problem
from deepmac_distill.dataset.tables import (
    ANNOTATIONS_FILE,
    FINDINGS_FILE,
    IMAGES_FILE,
    Tables,
    open_table,
    write_table,
)
from deepmac_distill.errors import DataError
from deepmac_distill.files import sha256_of_file, sha256_of_json, write_json
from deepmac_distill.regular import MOST_LIST_BYTES, read_small, require_regular
from deepmac_distill.storage.copies import cache_folder

FORMAT = 10  # raised with every change of what the tables hold or of how a file is read
SETTLED_SECONDS = 2.0  # a file that was changed just now may change again without another time
_TABLES = (ANNOTATIONS_FILE, IMAGES_FILE, FINDINGS_FILE)
Json = dict[str, Any]


class TableCache:
    """Tables by the hash of the file they were made of."""

    def __init__(self, root: Path | None = None) -> None:
        """
        Args:
            root: None takes `cache_folder()`; one that cannot be written gives way to a temporary folder.
        """
        self.root = root or cache_folder()
        self.note = ""  # what the user should know
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.root).close()
        except OSError as error:
            self.note = (
                f"cache {self.root}: cannot be written ({error.strerror}); annotation files are read anew by "
                "every command (DEEPMAC_CACHE names another folder)"
            )
            self.root = Path(_temporary().name)

    def tables(self, path: Path, sizes: SizeSource | None = None) -> tuple[Tables, Path]:
        """The tables of a file, made if they are not there, and their folder.

        Raises:
            BrokenDocument: the file cannot be read, or is no COCO document.
        """
        before = _stamps(path)
        sha256 = self._sha256(path, before)
        entry = self.root / "tables" / f"{sha256}-{FORMAT}"
        tables = _load(entry, sha256)
        if tables is None and sizes is not None:  # tables for this place of the images
            sized = entry.with_name(f"{entry.name}-{sha256_of_json(repr(sizes))[:16]}")
            if (tables := _load(sized, sha256, sizes)) is not None:
                return tables, sized
        if tables is None:
            tables, entry = _build(path, entry, sha256, sizes)
            if _stamps(path) != before:
                shutil.rmtree(entry, ignore_errors=True)
                raise DataError(f"{path}: changed while it was read; expected a file that nobody writes to")
        return tables, entry

    def _sha256(self, path: Path, stamp: list[list[int]]) -> str:
        known = self.root / "files" / f"{sha256_of_json(str(path.resolve()))}.json"
        if (found := read_checked(known)) is not None and found.get("stamp") == stamp:
            return str(found["sha256"])
        hashes = [sha256_of_file(file) for file in files_of(path)]
        sha256 = hashes[0] if len(hashes) == 1 else sha256_of_json(hashes)
        if time.time() - max(at for one in stamp for at in one[1:3]) / 1e9 > SETTLED_SECONDS:
            write_checked(known, {"path": str(path.resolve()), "stamp": stamp, "sha256": sha256})
        return sha256


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """One folder for all of this process, removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="deepmac-distill-")


def _stamps(path: Path) -> list[list[int]]:
    return [_stamp(file) for file in files_of(path)]


def _stamp(path: Path) -> list[int]:
    """What changes when a file does: size, times and the file itself."""
    try:
        stat = path.stat()
        if path.is_file():
            require_regular(path)
            return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        reason = "Is a directory" if path.is_dir() else "Is a pipe or a device, which is read once at most"
    except OSError as error:
        reason = str(error.strerror)
    advice = foreign.advice(foreign.of_folder(path), path) if path.is_dir() else ""
    message = f"cannot be read: {reason}; expected a COCO JSON file{advice}"
    raise BrokenDocument([Problem("error", str(path), message)])


def _build(path: Path, entry: Path, sha256: str, sizes: SizeSource | None) -> tuple[Tables, Path]:
    entry.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=entry.parent))
    try:
        tables = ingest(path, aside, sizes)
        if tables.counts["sizes_from_images"]:
            entry = entry.with_name(f"{entry.name}-{sha256_of_json(repr(sizes))[:16]}")
        if not tables.sound:
            return tables, entry  # its errors are all that anybody looks at
        for name, table in ((IMAGES_FILE, tables.images), (FINDINGS_FILE, tables.findings)):
            with write_table(aside / name, table.schema) as file:
                file.write_table(table)
        _write_manifest(aside, tables, sha256, sizes)
        _publish(aside, entry, lambda: _load(entry, sha256, sizes) is not None)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _load(entry, sha256, sizes) or tables, entry


def _publish(aside: Path, entry: Path, is_good: Callable[[], bool]) -> None:
    """Rename into place; what another process put there in the meantime is as good, what was stale is not.

    What is good stays, since others may write to it.
    """
    for _ in range(2):
        try:
            aside.rename(entry)
            return
        except OSError:
            if is_good():
                return
            stale = Path(tempfile.mkdtemp(prefix=".", suffix=".stale", dir=entry.parent))
            with suppress(OSError):  # another process was quicker
                entry.rename(stale / "entry")
            shutil.rmtree(stale, ignore_errors=True)


def _write_manifest(folder: Path, tables: Tables, sha256: str, sizes: SizeSource | None) -> None:
    write_checked(
        folder / "manifest.json",
        {
            "format": FORMAT,
            "file_sha256": sha256,
            "tables": {
                name: {"sha256": sha256_of_file(folder / name), "stamp": _stamp(folder / name)}
                for name in _TABLES
            },
            "images": _state_of_images(tables, sizes),
            "categories": tables.categories,
            "other": tables.other,
            "counts": tables.counts,
        },
    )


def _state_of_images(tables: Tables, sizes: SizeSource | None) -> str:
    """Of the images that gave sizes; empty where none did."""
    if sizes is None or not tables.counts["sizes_from_images"]:
        return ""
    return sizes.state_of(tables.images["file_name"].to_pylist())


def _load(entry: Path, sha256: str, sizes: SizeSource | None = None) -> Tables | None:
    """The tables in a folder if they are whole, of this version, of this file and of these images."""
    manifest = read_checked(entry / "manifest.json")
    if manifest is None or (manifest.get("format"), manifest.get("file_sha256")) != (FORMAT, sha256):
        return None
    try:
        for name, said in manifest["tables"].items():
            if _stamp(entry / name) != said["stamp"] and sha256_of_file(entry / name) != said["sha256"]:
                return None
        annotations, images, findings = (open_table(entry / name) for name in _TABLES)
    except (OSError, DataError, pa.ArrowException):
        return None
    tables = Tables(
        images, annotations, manifest["categories"], manifest["other"], findings, manifest["counts"]
    )
    return tables if manifest.get("images") == _state_of_images(tables, sizes) else None


def write_checked(path: Path, value: Json) -> None:
    """Write JSON with its own hash, so that `read_checked` knows it from an edited file."""
    write_json(path, {"sha256": sha256_of_json(value), "value": value})


def read_checked(path: Path) -> Json | None:
    """What `write_checked` wrote, or None where it is absent or was edited."""
    try:
        found = json.loads(read_small(path, MOST_LIST_BYTES).decode())
        value: Json = found["value"]
        return value if found["sha256"] == sha256_of_json(value) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
