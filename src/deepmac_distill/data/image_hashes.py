"""Hashes of image files, each file read once: again only where its size or times changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.cache import SETTLED_SECONDS
from deepmac_distill.files import sha256_of_file, sha256_of_json, written_whole
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.storage.copies import cache_folder

WORTH_A_BAR = 2**30  # bytes: seconds of a disk
_STAMP = ("size", "pixels_ns", "entry_ns", "file")  # and times of a file's bytes and of its entry
# A table: as JSON each of millions of files would take a kilobyte of memory.
_KNOWN = pa.schema(
    [("path", pa.large_binary()), *((name, pa.int64()) for name in _STAMP), ("sha256", pa.binary(32))]
)
_DIGEST_BYTES = 32


def sha256_of_files(folder: Path, paths: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """SHA-256 of each file.

    Args:
        folder: under whose name the hashes are kept, beside the tables of annotation files.
        progress: shows a bar where more than `WORTH_A_BAR` bytes are to be read.
    """
    kept = cache_folder() / "images" / f"{sha256_of_json(str(folder.resolve()))}.arrow"
    known = _read(kept)
    names = pa.array([os.fsencode(path) for path in paths], pa.large_binary())
    stamps = np.empty((len(paths), len(_STAMP)), dtype=np.int64)
    for at, path in enumerate(paths):
        stamps[at] = _stamp(path)
    rows = _rows_of(known, names, stamps)
    digests = known["sha256"].take(pa.array(rows, mask=rows < 0)).to_pylist()
    fresh = np.flatnonzero(rows < 0)
    large = stamps[fresh, 0].sum() > WORTH_A_BAR
    shown = progress if progress is not None and large else Silent()
    with shown.bar("hashing images", len(fresh), unit="image") as bar:
        settled = []
        for at in fresh.tolist():
            digests[at] = bytes.fromhex(sha256_of_file(paths[at]))
            if time.time() - stamps[at, 1:3].max() / 1e9 > SETTLED_SECONDS:
                settled.append(at)
            bar.advance()
    if settled:
        _keep(
            kept,
            known,
            _table(names.take(pa.array(settled)), stamps[settled], [digests[at] for at in settled]),
        )
    return [digest.hex() for digest in digests]


def _rows_of(known: pa.Table, names: pa.Array, stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) which known row has the hash of each file; -1 where none has, or the file was changed."""
    found = pc.index_in(names, value_set=known["path"].combine_chunks())
    rows: NDArray[np.int64] = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    for column, name in enumerate(_STAMP):
        held = np.append(known[name].to_numpy(), 0)  # the last one is that of row -1
        rows[held[rows] != stamps[:, column]] = -1
    return rows


def _table(names: pa.Array, stamps: NDArray[np.int64], digests: Sequence[bytes]) -> pa.Table:
    return pa.table(
        [names, *(pa.array(column) for column in stamps.T), pa.array(digests, pa.binary(32))], _KNOWN
    )


def _read(kept: Path) -> pa.Table:
    """What `_keep` wrote; no row where it is absent, or not what was written."""
    with suppress(OSError):
        held = kept.read_bytes()
        digest, words = held[:_DIGEST_BYTES], pa.py_buffer(held)[_DIGEST_BYTES:]
        if hashlib.sha256(words).digest() == digest:
            return pa.ipc.open_stream(words).read_all()
    return _KNOWN.empty_table()


def _keep(kept: Path, known: pa.Table, fresh: pa.Table) -> None:
    old = pc.is_in(known["path"], value_set=fresh["path"].combine_chunks())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _KNOWN) as stream:
        stream.write_table(pa.concat_tables([known.filter(pc.invert(old)), fresh]))
    words = sink.getvalue()
    with suppress(OSError):  # a cache that cannot be written costs time alone
        kept.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(kept) as aside, aside.open("wb") as file:
            file.write(hashlib.sha256(words).digest())
            file.write(words)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & (2**63 - 1)
