"""masks.parquet: one row for every box of the source, with what the teacher drew or why it drew nothing.

Facts only. What is good enough is decided when the file is read (`select`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepmac_distill.dataset.parquet import READING_FAILS
from deepmac_distill.dataset.row_batches import row_batches
from deepmac_distill.errors import DataError
from deepmac_distill.files import is_sealed, written_sealed, written_whole

SCHEMA_VERSION = 5
_WITHOUT_TEACHER = 4  # the version before; its rows do not name their teacher
TEACHER = "teacher"  # a column, and in a provenance the identity of the only teacher
_VERSION_KEY, _PROVENANCE_KEY = b"deepmac_distill.schema_version", b"deepmac_distill.provenance"

LABELS_SCHEMA = pa.schema(
    [
        pa.field("annotation_id", pa.int64(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),  # of the image, as in the source
        pa.field("category_id", pa.int32(), nullable=False),
        pa.field("category_name", pa.string(), nullable=False),
        pa.field("bbox", pa.list_(pa.float64(), 4), nullable=False),  # xywh, as in the source
        pa.field("height", pa.int32(), nullable=False),  # of the image, in pixels
        pa.field("width", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # human | teacher | none
        pa.field(
            "status", pa.string(), nullable=False
        ),  # labeled | crowd | degenerate | unanswered | unreadable image
        pa.field("reason", pa.string(), nullable=False),  # why not labeled, or empty
        pa.field("rle_counts", pa.binary()),  # compressed COCO counts at (height, width)
        pa.field("cut", pa.float32()),  # probability above which a teacher's mask is foreground
        pa.field("soft", pa.binary()),  # uint8 probabilities over bbox ∩ image, soft_size x soft_size
        pa.field("soft_size", pa.int32()),  # cells a side
        pa.field("soft_lattice", pa.string()),  # centers | reference: where a cell samples the box
        pa.field("mask_area", pa.int64()),  # pixels
        pa.field("mask_score", pa.float32()),  # mean probability inside the mask
        # The mask's tight box against bbox: low is bad, high proves nothing.
        pa.field("mask_bbox_iou", pa.float32()),
        # From the probabilities at the cut, not calibrated; null where grids are no probabilities.
        pa.field("expected_iou", pa.float32()),
        pa.field("model_iou", pa.float32()),  # the teacher's own estimate; null where it makes none
        # Whether the teacher saw masks of the class; null where nobody knows, or without a mask of a teacher.
        pa.field("teacher_saw_class", pa.bool_()),
        pa.field("look", pa.string()),  # in which views the teacher saw the box; null without its mask
        pa.field(TEACHER, pa.string()),  # the name of the teacher that drew the mask; null without its mask
    ]
)
_DICTIONARY = [
    *("image_id", "file_name", "category_id", "category_name", "height", "width"),
    *("source", "status", "reason", "cut", "soft_size", "soft_lattice", TEACHER),
]


Column: TypeAlias = Sequence[Any] | NDArray[Any] | pa.Array | pa.ChunkedArray


def label_table(columns: Mapping[str, Column]) -> pa.Table:
    """Rows of LABELS_SCHEMA from one sequence per column; a column left out is null.

    Raises:
        ValueError: an unknown column, a column that may not be null left out, or values of another type.
    """
    unknown = set(columns) - set(LABELS_SCHEMA.names)
    if unknown or not columns:
        raise ValueError(f"columns: got {sorted(unknown) or 'none'}, expected some of {LABELS_SCHEMA.names}")
    nulls = [None] * len(next(iter(columns.values())))
    table = pa.table({name: columns.get(name, nulls) for name in LABELS_SCHEMA.names}, LABELS_SCHEMA)
    for field in LABELS_SCHEMA:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"column {field.name}: got nulls, expected a value in every row")
    table.validate(full=True)
    return table


class LabelWriter:
    """Writes one row group per call, so that memory is bounded by a unit of work."""

    def __init__(self, path: Path, provenance: Mapping[str, Any], checksums: bool = False) -> None:
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
            write_page_checksum=checksums,
        )
        self._last = (-(2**63), -(2**63))

    def write(self, rows: pa.Table) -> None:
        """Append rows of LABELS_SCHEMA as one row group; none at all write nothing.

        Raises:
            ValueError: the rows do not go on in the order of (image_id, annotation_id).
        """
        images, ids = (
            np.r_[last, rows[name].to_numpy()]
            for name, last in zip(("image_id", "annotation_id"), self._last, strict=True)
        )
        if ((images[1:] < images[:-1]) | ((images[1:] == images[:-1]) & (ids[1:] <= ids[:-1]))).any():
            raise ValueError("label rows: expected in the order of (image_id, annotation_id), each once")
        if len(rows):
            self._file.write_table(rows.combine_chunks(), row_group_size=len(rows))
            self._last = images[-1], ids[-1]

    def close(self) -> None:
        """Write the footer."""
        self._file.close()


@contextmanager
def label_writer(path: Path, provenance: Mapping[str, Any], sealed: bool = False) -> Iterator[LabelWriter]:
    """A writer whose file is whole or absent.

    Args:
        path: of the Parquet file to be.
        provenance: JSON values that describe where the labels come from; kept in the file's metadata.
        sealed: with checksums of each page and the hash of the file, so that a reader finds damage.
    """
    written = written_sealed if sealed else written_whole
    with written(path) as aside:
        writer = LabelWriter(aside, provenance, checksums=sealed)
        try:
            yield writer
        finally:
            writer.close()


def write_unit(folder: Path, unit: int, rows: pa.Table, facts: Mapping[str, Any] | None = None) -> None:
    """Keep the rows of one unit of work, whole or not at all, until all units are there.

    Args:
        facts: JSON values about the unit as a whole; see `facts_of_units`.
    """
    with label_writer(_part(folder, unit), facts or {}, sealed=True) as writer:
        writer.write(rows)


def facts_of_units(folder: Path, units: int) -> list[dict[str, Any]]:
    """What was kept about each unit, in their order."""
    parts = [_part(folder, unit) for unit in range(units)]
    return [provenance_of(part, pq.read_schema(part)) for part in parts]


def finished_units(folder: Path, units: Iterable[int], note: Callable[[str], None]) -> frozenset[int]:
    """Which of some units of work need not be done again; one that is damaged is noted."""
    found = set()
    for unit in units:
        path = _part(folder, unit)
        try:
            if path.exists():
                _read_part(path)
                found.add(unit)
        except DataError as error:
            note(f"{error}; it is labeled again")
    return frozenset(found)


def assemble(folder: Path, units: int, path: Path, provenance: Mapping[str, Any]) -> int:
    """Join the parts of units 0 to `units` - 1 into the label file, and count its rows.

    The bytes depend on the rows and the provenance alone, not on which run wrote which unit.

    Raises:
        DataError: a part is not there, or cannot be read.
    """
    if missing := [unit for unit in range(units) if not _part(folder, unit).exists()]:
        raise DataError(
            f"{folder}: units {missing[:5]} are not there; expected all {units}, on a shared disk"
        )
    rows = 0
    with label_writer(path, provenance) as writer:
        for unit in range(units):
            part = _read_part(_part(folder, unit))
            writer.write(part)
            rows += len(part)
    return rows


def names_teachers(schema: pa.Schema) -> bool:
    """Whether the rows of a file name their teacher; those of the version before do not."""
    return (schema.metadata or {}).get(_VERSION_KEY) != str(_WITHOUT_TEACHER).encode()


def require_schema(path: Path, schema: pa.Schema) -> None:
    """Refuse a file whose schema is not LABELS_SCHEMA of this version or of the one before.

    Raises:
        DataError: names the version or the first column that differs.
    """
    version = (schema.metadata or {}).get(_VERSION_KEY, b"none").decode(errors="replace")
    if version not in (str(SCHEMA_VERSION), str(_WITHOUT_TEACHER)):
        raise DataError(
            f"{path}: label schema version: got {version}, expected {SCHEMA_VERSION}; "
            "label again with this version (deepmac pseudolabel --force)"
        )
    columns = [one for one in LABELS_SCHEMA if one.name != TEACHER or names_teachers(schema)]
    for got, expected in zip(schema, columns, strict=False):
        if got.name != expected.name or got.type != expected.type:
            raise DataError(f"{path}: column {got.name} {got.type}: expected {expected.name} {expected.type}")
    if len(schema) != len(columns):
        raise DataError(
            f"{path}: got {len(schema)} columns, expected {len(columns)}; "
            "label again with this version (deepmac pseudolabel --force)"
        )


def provenance_of(path: Path, schema: pa.Schema) -> dict[str, Any]:
    """Where the labels of a file come from, as the writer stated it.

    Raises:
        DataError: the schema is another, or holds no provenance.
    """
    require_schema(path, schema)
    try:
        provenance = json.loads(schema.metadata.get(_PROVENANCE_KEY, b""))
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict):
        raise DataError(f"{path}: provenance: got none that can be read, expected a JSON object")
    return provenance


def _part(folder: Path, unit: int) -> Path:
    return folder / f"unit-{unit:06d}.parquet"


def _read_part(path: Path) -> pa.Table:
    if not is_sealed(path):
        raise DataError(f"{path}: cannot be read: its bytes are not those that were written; expected them")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            require_schema(path, file.schema_arrow)
            if not names_teachers(file.schema_arrow):
                raise DataError(
                    f"{path}: is of an earlier version; expected a part with a teacher in each row"
                )
            for _ in row_batches(path, file):  # refuses rows that would fill the memory
                pass
            # Whole: it finds damage that reading by rows does not.
            return file.read().replace_schema_metadata()
    except READING_FAILS as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read: {reason}; expected a part of a masks.parquet") from error
