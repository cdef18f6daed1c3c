"""``holdout/masks.parquet``: the masks that teachers drew of classes hidden from them, beside their true IoU.

A row for each teacher and hidden mask of the training file. Whoever ranks teachers, calibrates a score or
chooses a cut reads it from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepmac_distill.dataset.parquet import READING_FAILS
from deepmac_distill.dataset.row_batches import read_rows
from deepmac_distill.errors import DataError
from deepmac_distill.files import MAX_NAME_BYTES, is_plain_name, written_whole

VERSION = 1
CUTS = tuple(round(0.05 * i, 2) for i in range(1, 20))  # 0.05, 0.10 ... 0.95
Shown = Literal["hidden", "shown elsewhere"]
HIDDEN: Shown = "hidden"  # the teacher saw no mask of the class, here or anywhere
SHOWN_ELSEWHERE: Shown = "shown elsewhere"  # it saw such masks in other data, or nobody knows
FILE_NAME = "file_name"
_RECORD_KEY = b"deepmac_distill.holdout"

HOLDOUT_SCHEMA = pa.schema(
    [
        pa.field("teacher", pa.string(), nullable=False),  # one of the names in the record
        pa.field("fold", pa.int32(), nullable=False),  # in which the class is hidden
        pa.field("annotation_id", pa.int64(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("category_name", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # of `Shown`
        pa.field("area", pa.int64(), nullable=False),  # pixels of the true mask
        pa.field("box_width", pa.float64(), nullable=False),  # of the box clipped to its image, pixels
        pa.field("box_height", pa.float64(), nullable=False),
        pa.field("answered", pa.bool_(), nullable=False),  # False: no mask was drawn, and each IoU is 0
        # As in masks.parquet, of the mask that the rule "expected-iou" cuts; null where there is none.
        pa.field("cut", pa.float32()),
        pa.field("mask_score", pa.float32()),
        pa.field("mask_bbox_iou", pa.float32()),
        pa.field("expected_iou", pa.float32()),  # null where grids are no probabilities, too
        pa.field("model_iou", pa.float32()),  # the teacher's own estimate; null where it makes none
        # True IoU at the original resolution, in [0, 1].
        pa.field("iou", pa.float64(), nullable=False),  # of the mask as `labels.cut` has it
        pa.field("iou_at_rule", pa.float64(), nullable=False),  # as the rule "expected-iou" has it
        pa.field("cut_ious", pa.list_(pa.float32()), nullable=False),  # cut at each of `CUTS`
        pa.field("cut_expected_ious", pa.list_(pa.float32())),  # what the grid expects of these
        pa.field("boundary_iou", pa.float64(), nullable=False),  # of the mask of `iou`
        pa.field("box_baseline_iou", pa.float64(), nullable=False),
        pa.field("ellipse_iou", pa.float64(), nullable=False),
        pa.field(FILE_NAME, pa.string()),  # of the image; null in files of earlier versions
    ]
)


@dataclass(frozen=True, slots=True)
class HoldoutTeacher:
    """A teacher that was tried."""

    name: str
    trained: bool  # once in each fold; else it drew all masks as it is
    identity: str  # changes with its masks: of a recipe the hash of its keys, else of the model


@dataclass(frozen=True, slots=True)
class HoldoutRecord:
    """What a table of hidden masks is of."""

    recipe_sha256: str  # of everything that the masks depend on beside the data
    data_sha256: str  # of the hidden masks, boxes and classes
    seed: int
    quick: bool  # trainings had fewer steps than the recipe
    folds: tuple[tuple[str, ...], ...]  # names of the classes hidden in each
    teachers: tuple[HoldoutTeacher, ...]
    cuts: tuple[float, ...] = CUTS
    version: int = VERSION
    # Of the annotations that the recipe trains on where nothing is hidden for a fold; empty: not known
    training_sha256: str = ""


@dataclass(frozen=True)
class HoldoutMasks:
    """The table and what it is of."""

    table: pa.Table  # of HOLDOUT_SCHEMA
    record: HoldoutRecord

    @cached_property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers that were tried."""
        return tuple(teacher.name for teacher in self.record.teachers)

    def of(self, teacher: str, shown: Shown | None = HIDDEN) -> pa.Table:
        """The rows of a teacher.

        Args:
            shown: those of this split alone; None: of both.

        Raises:
            DataError: there is no such teacher.
        """
        if teacher not in self.teachers:
            raise DataError(f"hold-out: teacher {teacher!r}: expected one of {', '.join(self.teachers)}")
        rows = self.table.filter(pc.equal(self.table["teacher"], teacher))
        return rows if shown is None else rows.filter(pc.equal(rows["split"], shown))


def holdout_table(columns: Mapping[str, Any]) -> pa.Table:
    """Rows of HOLDOUT_SCHEMA from one sequence per column; a nullable column left out is null.

    Raises:
        ValueError: an unknown column, nulls in a column that has none, or another number of cuts.
    """
    if unknown := set(columns) - set(HOLDOUT_SCHEMA.names):
        raise ValueError(f"columns: got {sorted(unknown)}, expected some of {HOLDOUT_SCHEMA.names}")
    nulls = [None] * len(columns["teacher"])
    table = pa.table({name: columns.get(name, nulls) for name in HOLDOUT_SCHEMA.names}, HOLDOUT_SCHEMA)
    if problem := next(_problems(table, CUTS), None):
        raise ValueError(problem)
    return table


def write_holdout(path: Path, masks: HoldoutMasks) -> None:
    """Write the table, whole or not at all; the same table and record are the same bytes."""
    record = msgspec.json.encode(masks.record, order="deterministic")
    with written_whole(path) as aside:
        pq.write_table(
            masks.table.replace_schema_metadata({_RECORD_KEY: record}).combine_chunks(),
            aside,
            compression="zstd",
        )


def read_holdout(path: Path) -> HoldoutMasks:
    """The table that `deepmac holdout` wrote, checked.

    Raises:
        DataError: it cannot be read, is of another version, or breaks its schema; or a teacher has a name
            that no file can have, though files are called by it.
    """
    table = _read(path)
    try:
        metadata = table.schema.metadata or {}
        record = msgspec.json.decode(metadata.get(_RECORD_KEY, b"null"), type=HoldoutRecord | None)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if record is None:
        raise DataError(f"{path}: got no record of a hold-out, expected the masks of deepmac holdout")
    if record.version != VERSION:
        raise DataError(
            f"{path}: hold-out version: got {record.version}, expected {VERSION}; hold out again with this "
            "version (deepmac holdout --force)"
        )
    rows = _checked(path, table, record.cuts)
    if problem := next(_strays(rows, record), None):
        raise DataError(f"{path}: {problem}")
    return HoldoutMasks(rows, record)


def read_trial(path: Path) -> pa.Table:
    """Rows of HOLDOUT_SCHEMA that one trial wrote, checked.

    Raises:
        DataError: they cannot be read, or break the schema.
    """
    return _checked(path, _read(path), CUTS)


def _read(path: Path) -> pa.Table:
    try:
        return read_rows(path)
    except READING_FAILS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{path}: cannot be read: {reason}; expected the masks of deepmac holdout")


def _checked(path: Path, table: pa.Table, cuts: Sequence[float]) -> pa.Table:
    rows = table.replace_schema_metadata()
    try:
        if FILE_NAME not in rows.column_names:
            rows = rows.append_column(HOLDOUT_SCHEMA.field(FILE_NAME), pa.nulls(len(rows), pa.string()))
        fits = rows.schema.equals(HOLDOUT_SCHEMA)
    except ValueError as error:  # a name that is no UTF-8
        raise _unreadable(path, error) from error
    if not fits:
        raise DataError(f"{path}: got other columns than a hold-out has, expected {HOLDOUT_SCHEMA.names}")
    if problem := next(_problems(rows, cuts), None):
        raise DataError(f"{path}: {problem}")
    return rows


def _problems(table: pa.Table, cuts: Sequence[float]) -> Iterator[str]:
    """What is wrong with rows, one at a time."""
    for item in HOLDOUT_SCHEMA:
        if not item.nullable and table[item.name].null_count:
            yield f"column {item.name}: got nulls, expected a value in every row"
            return
    for name in ("cut_ious", "cut_expected_ious"):
        lengths = pc.list_value_length(table[name]).drop_null()
        if len(table) and not pc.all(pc.equal(lengths, len(cuts))).as_py() and len(lengths):
            yield f"column {name}: got rows of another length, expected {len(cuts)} values, one for each cut"
    for name in ("iou", "iou_at_rule", "cut_ious"):
        column = table[name] if name != "cut_ious" else pc.list_flatten(table[name])
        values = column.to_numpy()
        if not ((values >= 0) & (values <= 1)).all():  # not a number fails too
            yield f"column {name}: got values outside [0, 1], expected an IoU"
    if strays := set(pc.unique(table["split"]).to_pylist()) - set(get_args(Shown)):
        yield f"column split: got {min(strays)!r}, expected one of {', '.join(get_args(Shown))}"


def _strays(table: pa.Table, record: HoldoutRecord) -> Iterator[str]:
    """What of the record names no teacher, and what of rows it does not name, one at a time."""
    names = [teacher.name for teacher in record.teachers]
    for name in names:
        if not is_plain_name(name):
            yield f"teacher {name[:60]!r}: expected a name without folders, of at most {MAX_NAME_BYTES} bytes"
        if names.count(name) > 1:
            yield f"teacher {name!r}: is there twice; expected each name once"
    known = {
        "teacher": {teacher.name for teacher in record.teachers},
        "category_name": {name for names in record.folds for name in names},
    }
    for name, expected in known.items():
        if strays := set(pc.unique(table[name]).to_pylist()) - expected:
            yield f"column {name}: got {min(strays)!r}, expected one of {', '.join(sorted(expected))}"
    numbers, folds = table["fold"].to_numpy(), len(record.folds)
    if len(table) and not ((numbers >= 0) & (numbers < folds)).all():
        yield f"column fold: got {np.min(numbers)} to {np.max(numbers)}, expected 0 to {folds - 1}"
