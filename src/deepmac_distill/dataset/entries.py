"""Rows of tables as the entries of a COCO document, some at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

AT_ONCE = 8192
Entry = dict[str, Any]
MadeOf = Callable[[pa.Table], Iterator[Entry]]  # rows to entries


class ChosenRows:
    """Rows of a table by number, in any order; only those are copied, however large the table is.

    `pyarrow.Table.take` joins whole columns first.
    """

    def __init__(self, table: pa.Table) -> None:
        self._schema, self._batches = table.schema, table.to_batches()
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])[:-1]

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """The rows of these numbers."""
        if not len(rows):
            return self._schema.empty_table()
        which = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(which, kind="stable")
        numbers, first = np.unique(which[order], return_index=True)
        parts = [
            self._batches[number].take(pa.array(rows[some] - self._starts[number]))
            for number, some in zip(numbers, np.split(order, first[1:]), strict=True)
        ]
        found = pa.Table.from_batches(parts, self._schema).combine_chunks()
        if (order[1:] > order[:-1]).all():
            return found
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return found.take(pa.array(place))


class Entries:
    """The entries that a table holds, in the order of their file, made whenever they are asked for."""

    def __init__(self, table: pa.Table, made_of: MadeOf) -> None:
        self._order = np.argsort(table["position"].to_numpy(), kind="stable")
        self._rows, self._made_of = ChosenRows(table), made_of

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._order)

    def __iter__(self) -> Iterator[Entry]:
        """Each of them once."""
        for start in range(0, len(self._order), AT_ONCE):
            rows = self._order[start : start + AT_ONCE]
            yield from self._made_of(self._rows.take(rows))


def image_entries(rows: pa.Table) -> Iterator[Entry]:
    """Rows of images with the keys of their file."""
    for row in rows.to_pylist():
        known = {key: row[key] for key in ("file_name", "height", "width")}
        yield {"id": row["image_id"], **known} | _extra(row)


def annotation_entries(rows: pa.Table, sizes: NDArray[np.int64]) -> Iterator[Entry]:
    """Rows of annotations with the keys of their file; masks are as they were drawn.

    Args:
        sizes: (R, 2) height and width of the image of each.
    """
    for row, size in zip(rows.to_pylist(), sizes.tolist(), strict=True):
        known = {key: row[key] for key in ("image_id", "category_id", "bbox")}
        entry = {"id": row["annotation_id"], **known, "iscrowd": int(row["iscrowd"])}
        if row["segmentation"] is not None:
            entry["segmentation"] = json.loads(row["segmentation"])
        elif row["polygons"] is not None:
            entry["segmentation"] = row["polygons"]
        elif row["rle_counts"] is not None:
            entry["segmentation"] = {"size": size, "counts": row["rle_counts"].decode("ascii")}
        entry |= {key: row[key] for key in ("area", "mask_score") if row[key] is not None}
        yield entry | _extra(row)


def _extra(row: Entry) -> Entry:
    return json.loads(row["extra"]) if row["extra"] else {}
