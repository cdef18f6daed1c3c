"""Rows of a Parquet file that may be a stranger's: some at a time, and no more than its size can mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deepmac_distill.regular import require_regular

ROWS_AT_ONCE = 2048
MOST_RATIO = 100  # of what rows hold to the bytes of their file; IoUs and codes reach 10
SMALL_BYTES = 2**28  # that a file of any size may hold
_AT_ONCE_BYTES = 2**27  # of the longest value that a column may have, times the rows at once


def read_rows(path: Path) -> pa.Table:
    """All rows of a file, with the metadata of its schema.

    Raises:
        ValueError: the rows hold more than a file of this size can mean.
        OSError, pyarrow.ArrowException: it is no Parquet, or broken.
    """
    require_regular(path)
    with pq.ParquetFile(path) as file:
        return rows_of(path, file)


def rows_of(
    path: Path,
    file: pq.ParquetFile,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> pa.Table:
    """`row_batches` as a table."""
    batches, schema = list(row_batches(path, file, columns, groups)), file.schema_arrow
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
    return pa.Table.from_batches([batch.select(schema.names) for batch in batches], schema)


def row_batches(
    path: Path,
    file: pq.ParquetFile,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a file, or of some of its row groups, not all at once.

    A word that stands once in a file may stand in each of a million rows, so neither the size of a file nor
    its footer states what the rows take: that is added up as they are read.

    Raises:
        ValueError: what was read so far is more than a file of this size can mean.
        OSError, pyarrow.ArrowException: it is no Parquet, or broken.
    """
    size, held = path.stat().st_size, 0
    most = max(SMALL_BYTES, MOST_RATIO * size)
    # One iterator over the whole file would keep every row group that it has read.
    for group in range(file.num_row_groups) if groups is None else groups:
        for batch in file.iter_batches(_rows_at_once(file, group), row_groups=[group], columns=columns):
            held += batch.nbytes
            if held > most:
                raise ValueError(f"rows of more than {most / 2**20:.0f} MiB in a file of {size} bytes")
            batch.validate(full=True)  # text that is no UTF-8 would fail whoever reads it, later
            yield batch


def _rows_at_once(file: pq.ParquetFile, group: int) -> int:
    """Fewer where a value may be long: it is at most as long as the pages of its row group.

    The row group is asked, and not its columns: where a column's part of the footer is broken, pyarrow 26
    ends the process as soon as that column is looked at.
    """
    longest: int = file.metadata.row_group(group).total_byte_size
    return min(ROWS_AT_ONCE, max(_AT_ONCE_BYTES // max(longest, 1), 16))
