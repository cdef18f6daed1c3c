"""masks.parquet: one row for every box of the source, with what the teacher drew or why it drew nothing.

Facts only. What is good enough is decided when the file is read (`select`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepmac_distill.errors import DataError
from deepmac_distill.files import written_whole

SCHEMA_VERSION = 1
_VERSION_KEY, _PROVENANCE_KEY = b"deepmac_distill.schema_version", b"deepmac_distill.provenance"
_PARTS = "unit-*.parquet"

LABELS_SCHEMA = pa.schema(
    [
        pa.field("annotation_id", pa.int64(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int32(), nullable=False),
        pa.field("bbox", pa.list_(pa.float64(), 4), nullable=False),  # xywh, as in the source
        pa.field("height", pa.int32(), nullable=False),  # of the image, in pixels
        pa.field("width", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # human | teacher | none
        pa.field("status", pa.string(), nullable=False),  # labeled | crowd | degenerate | unreadable image
        pa.field("reason", pa.string(), nullable=False),  # why not labeled, or empty
        pa.field("rle_counts", pa.binary()),  # compressed COCO counts at (height, width)
        pa.field("soft", pa.binary()),  # uint8 probabilities over bbox ∩ image, soft_size x soft_size
        pa.field("soft_size", pa.int32()),  # cells a side
        pa.field("mask_area", pa.int64()),  # pixels
        pa.field("mask_score", pa.float32()),  # mean probability inside the mask
        pa.field(
            "mask_bbox_iou", pa.float32()
        ),  # the mask's tight box against bbox; low is bad, high proves nothing
    ]
)
_DICTIONARY = ["image_id", "category_id", "height", "width", "source", "status", "reason", "soft_size"]


def label_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Rows of LABELS_SCHEMA from one sequence per column; a column left out is null.

    Raises:
        ValueError: an unknown column, a column that may not be null left out, or values of another type.
    """
    unknown = set(columns) - set(LABELS_SCHEMA.names)
    if unknown or not columns:
        raise ValueError(f"columns: got {sorted(unknown) or 'none'}, expected some of {LABELS_SCHEMA.names}")
    rows = len(next(iter(columns.values())))
    table = pa.table({name: columns.get(name, [None] * rows) for name in LABELS_SCHEMA.names}, LABELS_SCHEMA)
    for field in LABELS_SCHEMA:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"column {field.name}: got nulls, expected a value in every row")
    table.validate(full=True)
    return table


class LabelWriter:
    """Writes one row group per call, so that memory is bounded by a unit of work."""

    def __init__(self, path: Path, provenance: Mapping[str, Any]) -> None:
        metadata = {
            _VERSION_KEY: str(SCHEMA_VERSION).encode(),
            _PROVENANCE_KEY: json.dumps(provenance, sort_keys=True, ensure_ascii=False).encode(),
        }
        # A dictionary of masks that never repeat only costs time and space.
        self._file = pq.ParquetWriter(
            path,
            LABELS_SCHEMA.with_metadata(metadata),
            compression="zstd",
            compression_level=3,
            use_dictionary=_DICTIONARY,
        )
        self._last = (-(2**63), -(2**63))

    def write(self, rows: pa.Table) -> None:
        """Append rows of LABELS_SCHEMA as one row group; none at all write nothing.

        Raises:
            ValueError: the rows do not go on in the order of (image_id, annotation_id).
        """
        keys = [
            self._last,
            *zip(rows["image_id"].to_pylist(), rows["annotation_id"].to_pylist(), strict=True),
        ]
        if any(before >= after for before, after in pairwise(keys)):
            raise ValueError("label rows: expected in the order of (image_id, annotation_id), each once")
        if len(rows):
            self._file.write_table(rows.combine_chunks(), row_group_size=len(rows))
            self._last = keys[-1]

    def close(self) -> None:
        """Write the footer."""
        self._file.close()


@contextmanager
def label_writer(path: Path, provenance: Mapping[str, Any]) -> Iterator[LabelWriter]:
    """A writer whose file is whole or absent.

    Args:
        path: of the Parquet file to be.
        provenance: JSON values that tell where the labels come from; kept in the file's metadata.
    """
    with written_whole(path) as aside:
        writer = LabelWriter(aside, provenance)
        try:
            yield writer
        finally:
            writer.close()


def write_unit(folder: Path, unit: int, rows: pa.Table) -> None:
    """Keep the rows of one unit of work, whole or not at all, until all units are there."""
    with label_writer(_part(folder, unit), {}) as writer:
        writer.write(rows)


def finished_units(folder: Path) -> frozenset[int]:
    """The units of work that need not be done again."""
    return frozenset(int(path.stem.removeprefix("unit-")) for path in folder.glob(_PARTS))


def assemble(folder: Path, units: int, path: Path, provenance: Mapping[str, Any]) -> int:
    """Join the parts of units 0 to `units` - 1 into the label file, and count its rows.

    The bytes depend on the rows and the provenance alone, not on which run wrote which unit.

    Raises:
        ValueError: a unit is not finished.
        DataError: a part cannot be read.
    """
    missing = sorted(set(range(units)) - finished_units(folder))
    if missing:
        raise ValueError(f"{folder}: units {missing[:5]} are not finished; expected all {units}")
    rows = 0
    with label_writer(path, provenance) as writer:
        for unit in range(units):
            part = read_labels(_part(folder, unit))
            writer.write(part)
            rows += len(part)
    return rows


def read_labels(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The label rows (or some of their columns), in the order of image and annotation.

    Raises:
        DataError: the file cannot be read, is no label file, or is of another schema version.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow)
            return file.read(None if columns is None else list(columns)).replace_schema_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read: {reason}; expected a masks.parquet") from error


def read_provenance(path: Path) -> dict[str, Any]:
    """Where the labels of a file come from, as it was told to the writer.

    Raises:
        DataError: as `read_labels`.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read: {reason}; expected a masks.parquet") from error
    _check_schema(path, schema)
    return json.loads(schema.metadata[_PROVENANCE_KEY])


def _check_schema(path: Path, schema: pa.Schema) -> None:
    version = (schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise DataError(f"{path}: label schema version: got {version}, expected {SCHEMA_VERSION}")
    for got, expected in zip(schema, LABELS_SCHEMA, strict=False):
        if got.name != expected.name or got.type != expected.type:
            raise DataError(f"{path}: column {got.name} {got.type}: expected {expected.name} {expected.type}")
    if len(schema) != len(LABELS_SCHEMA):
        raise DataError(f"{path}: got {len(schema)} columns, expected {len(LABELS_SCHEMA)}")


def _part(folder: Path, unit: int) -> Path:
    return folder / f"unit-{unit:06d}.parquet"
