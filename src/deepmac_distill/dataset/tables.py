"""The tables of an annotation file, as files that are mapped into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

ANNOTATIONS_FILE, IMAGES_FILE, FINDINGS_FILE = "annotations.arrow", "images.arrow", "findings.arrow"
IMAGES = pa.schema(
    {
        "image_id": pa.int64(),
        "file_name": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "position": pa.int64(),  # in the file
        "extra": pa.binary(),  # keys that nothing here reads, as JSON; null without
    }
)
_ROWS_TOGETHER = 2**13
MOST_HELD_BYTES = 2**24  # of rows that `mapped` keeps in memory
FINDINGS = pa.schema(
    {
        "row": pa.int64(),  # of the annotations; -1 for what is about an image
        "where": pa.string(),
        "level": pa.string(),  # error | doubt
        "about": pa.string(),  # entry | mask: nobody's business where the mask is hidden
        "message": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Tables:
    """All of an annotation file, masks of every class included."""

    images: pa.Table  # IMAGES, ascending ids
    annotations: pa.Table  # chunk.STORED, by image, then by id
    categories: list[dict[str, Any]]  # as in the file, ids as numbers
    other: dict[str, Any]  # all other keys of the file
    findings: pa.Table  # FINDINGS, in the order of the file
    counts: dict[str, int]  # what reading changed, by nature

    @property
    def sound(self) -> bool:
        """Whether nothing but masks has errors; only then the tables can be used."""
        wrong = pc.and_(pc.equal(self.findings["level"], "error"), pc.equal(self.findings["about"], "entry"))
        return not pc.any(wrong).as_py()


@contextmanager
def write_table(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    """A file of record batches, written one after the other."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        yield writer


def open_table(path: Path) -> pa.Table:
    """A table over a mapped file: nothing is read until it is looked at."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def mapped(schema: pa.Schema, tables: Iterable[pa.Table]) -> pa.Table:
    """Tables of one schema as one, in memory where they are small, else over a temporary file that is mapped.

    The file has lost its name when this returns, so that it goes with the table.
    """
    held: list[pa.Table] = []
    rest, size = iter(tables), 0
    for table in rest:
        held.append(table)
        size += table.nbytes
        if size > MOST_HELD_BYTES:
            break
    else:
        return pa.concat_tables([schema.empty_table(), *held])
    with tempfile.TemporaryDirectory(prefix="deepmac-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "rows.arrow"
        with write_table(path, schema) as writer:
            for table in _joined(chain(held, rest)):
                writer.write_table(table)
        return open_table(path)


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of some thousand rows of many of a few: each piece of a column of a mapped file takes memory."""
    some: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        some.append(table)
        rows, size = rows + len(table), size + table.nbytes
        if rows >= _ROWS_TOGETHER or size >= MOST_HELD_BYTES:
            yield pa.concat_tables(some).combine_chunks()
            some, rows, size = [], 0, 0
    if some:
        yield pa.concat_tables(some).combine_chunks()
