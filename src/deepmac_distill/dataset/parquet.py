"""Annotations as Parquet: a folder of three tables whose columns are the keys of COCO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepmac_distill.dataset.document import TABLES, BrokenDocument, Document, Entry, Head
from deepmac_distill.dataset.problems import Problem
from deepmac_distill.dataset.row_batches import read_rows, rows_of
from deepmac_distill.regular import require_regular

# What Arrow raises of broken files: names that are no UTF-8 and sizes beyond all memory are among them.
READING_FAILS = (OSError, pa.ArrowException, ValueError, MemoryError)
_REFERENCES = ("id", "image_id", "category_id")


def is_parquet(path: Path) -> bool:
    """Whether a path is a folder of Parquet tables."""
    return (path / "annotations.parquet").is_file()


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold annotations: the JSON file, or the tables of a folder."""
    return tuple(path / f"{name}.parquet" for name in TABLES) if is_parquet(path) else (path,)


def parse_parquet(folder: Path) -> Document:
    """Read ``images``, ``annotations`` and ``categories.parquet``; annotations are read when asked for.

    Masks are in the column `segmentation` (polygons, lists of lists of numbers) or `segmentation_rle`
    (a struct of `size` and `counts`). Null is a key that is not there.

    Raises:
        BrokenDocument: a table is missing or cannot be read.
    """
    try:
        images, categories = (
            [_entry(row) for row in read_rows(folder / f"{name}.parquet").to_pylist()]
            for name in ("images", "categories")
        )
        require_regular(folder / "annotations.parquet")
        annotations = _Rows(folder, pq.ParquetFile(folder / "annotations.parquet", memory_map=True))
    except READING_FAILS as error:
        raise _unreadable(folder, error) from error
    if not categories:
        message = "categories: got none, expected at least one"
        raise BrokenDocument([Problem("error", str(folder), message)])
    return Document(images, categories, annotations, {})


class _Rows:
    """Annotations in row groups; neighbors in the table should be neighbors in the file."""

    def __init__(self, folder: Path, file: pq.ParquetFile) -> None:
        self._folder, self._file, self._path = folder, file, folder / "annotations.parquet"
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group = lru_cache(maxsize=4)(self._read_group)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def heads(self) -> Sequence[Head]:
        """See `document.Entries`."""
        given = [name for name in _REFERENCES if name in self._file.schema_arrow.names]
        columns = dict(zip(given, self._read(given), strict=True))
        rows = (columns.get(name, [None] * len(self)) for name in _REFERENCES)
        return [Head(*values) for values in zip(*rows, strict=True)]

    def at(self, positions: Sequence[int]) -> list[Entry]:
        """See `document.Entries`."""
        groups = (np.searchsorted(self._starts, positions, side="right") - 1).tolist()
        return list(self._entries(positions, groups))

    def twice(self, positions: Sequence[int], entries: Sequence[Entry]) -> list[tuple[int, str]]:
        """See `document.Entries`; a table has each column once."""
        del positions, entries
        return []

    def _entries(self, positions: Sequence[int], groups: list[int]) -> Iterator[Entry]:
        pairs = zip(groups, positions, strict=True)
        for group, members in groupby(pairs, key=lambda pair: pair[0]):
            rows = [position - int(self._starts[group]) for _, position in members]
            yield from self._of_group(group, rows)

    def _of_group(self, group: int, rows: list[int]) -> list[Entry]:
        try:
            return [_entry(row) for row in self._group(group).take(rows).to_pylist()]
        except READING_FAILS as error:
            raise _unreadable(self._folder, error) from error

    def _read_group(self, group: int) -> pa.Table:
        return rows_of(self._path, self._file, groups=[group])

    def _read(self, names: list[str]) -> list[list[Any]]:
        try:
            return [column.to_pylist() for column in rows_of(self._path, self._file, names).columns]
        except READING_FAILS as error:
            raise _unreadable(self._folder, error) from error


def _unreadable(folder: Path, error: Exception) -> BrokenDocument:
    reason = " ".join(str(error).split())
    message = f"cannot be read ({reason}); expected images, annotations and categories.parquet"
    return BrokenDocument([Problem("error", str(folder), message)])


def _entry(row: dict[str, Any]) -> Entry:
    entry = {key: value for key, value in row.items() if value is not None}
    if rle := entry.pop("segmentation_rle", None):
        counts = rle["counts"]
        entry["segmentation"] = rle | {"counts": counts.decode() if isinstance(counts, bytes) else counts}
    return entry
