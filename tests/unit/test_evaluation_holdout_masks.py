"""The table of hidden masks: what is written is read, and what is wrong is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.holdout_masks import (
    CUTS,
    HIDDEN,
    HOLDOUT_SCHEMA,
    SHOWN_ELSEWHERE,
    HoldoutMasks,
    HoldoutRecord,
    HoldoutTeacher,
    holdout_table,
    read_holdout,
    read_trial,
    write_holdout,
)

RECORD = HoldoutRecord(
    recipe_sha256="a",
    data_sha256="b",
    seed=0,
    quick=True,
    folds=(("cat",), ("dog",)),
    teachers=(HoldoutTeacher("recipe", True, "a"), HoldoutTeacher("starter", False, "c")),
)


def columns(**changed: Any) -> dict[str, Any]:
    return {
        "teacher": ["recipe", "starter"],
        "fold": [0, 1],
        "annotation_id": [7, 7],
        "image_id": [3, 3],
        "category_name": ["cat", "cat"],
        "split": [HIDDEN, SHOWN_ELSEWHERE],
        "area": [100, 100],
        "box_width": [10.0, 10.0],
        "box_height": [20.0, 20.0],
        "answered": [True, False],
        "expected_iou": [0.7, None],
        "iou": [0.8, 0.0],
        "iou_at_rule": [0.8, 0.0],
        "cut_ious": [[0.5] * len(CUTS), [0.0] * len(CUTS)],
        "boundary_iou": [0.6, 0.0],
        "box_baseline_iou": [0.5, 0.5],
        "ellipse_iou": [0.7, 0.7],
        **changed,
    }


def test_what_is_written_is_read_and_the_same_table_is_the_same_bytes(tmp_path: Path) -> None:
    masks = HoldoutMasks(holdout_table(columns()), RECORD)
    for name in ("a", "b"):
        write_holdout(tmp_path / name, masks)
    found = read_holdout(tmp_path / "a")
    assert found.table.equals(masks.table)
    assert found.record == RECORD
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_of_an_earlier_version_has_no_names_of_files(tmp_path: Path) -> None:
    masks = HoldoutMasks(holdout_table(columns(file_name=["a.jpg", "a.jpg"])), RECORD)
    write_holdout(tmp_path / "now", masks)
    assert read_holdout(tmp_path / "now").table["file_name"].to_pylist() == ["a.jpg", "a.jpg"]
    table = pq.read_table(tmp_path / "now").drop_columns(["file_name"])
    pq.write_table(table, tmp_path / "before")
    found = read_holdout(tmp_path / "before").table
    assert found.schema == HOLDOUT_SCHEMA and found["file_name"].null_count == 2


def test_rows_of_a_teacher_are_those_of_hidden_classes_unless_asked_otherwise() -> None:
    masks = HoldoutMasks(holdout_table(columns()), RECORD)
    assert masks.teachers == ("recipe", "starter")
    assert [len(masks.of(name)) for name in masks.teachers] == [1, 0]
    assert len(masks.of("starter", None)) == len(masks.of("starter", SHOWN_ELSEWHERE)) == 1
    with pytest.raises(DataError, match="teacher 'sam': expected one of recipe, starter"):
        masks.of("sam")


def test_cuts_are_every_twentieth() -> None:
    assert (CUTS[0], CUTS[9], CUTS[-1], len(CUTS)) == (0.05, 0.5, 0.95, 19)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"iou": [0.8, None]}, "column iou: got nulls"),
        ({"iou": [0.8, float("nan")]}, r"column iou: got values outside \[0, 1\]"),
        ({"cut_ious": [[0.5], [0.0]]}, "column cut_ious: got rows of another length, expected 19"),
        ({"split": ["hidden", "seen"]}, "column split: got 'seen', expected one of hidden, shown elsewhere"),
        ({"score": [1, 2]}, r"columns: got \['score'\]"),
    ],
)
def test_rows_that_break_the_schema_are_not_made(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        holdout_table(columns(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": ["recipe", "sam"]}, "column teacher: got 'sam', expected one of recipe, starter"),
        ({"fold": [0, 2]}, "column fold: got 0 to 2, expected 0 to 1"),
        ({"category_name": ["cat", "zebra"]}, "column category_name: got 'zebra', expected one of "),
    ],
)
def test_a_file_that_contradicts_its_record_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    write_holdout(tmp_path / "masks.parquet", HoldoutMasks(holdout_table(columns(**changed)), RECORD))
    with pytest.raises(DataError, match=message):
        read_holdout(tmp_path / "masks.parquet")


def test_teachers_of_one_name_are_refused(tmp_path: Path) -> None:
    teachers = (*RECORD.teachers, HoldoutTeacher("recipe", False, "d"))
    masks = HoldoutMasks(holdout_table(columns()), replace(RECORD, teachers=teachers))
    write_holdout(tmp_path / "masks.parquet", masks)
    with pytest.raises(DataError, match="teacher 'recipe': is there twice"):
        read_holdout(tmp_path / "masks.parquet")


def test_another_version_other_columns_and_other_files_are_refused(tmp_path: Path) -> None:
    path, masks = tmp_path / "masks.parquet", HoldoutMasks(holdout_table(columns()), RECORD)
    write_holdout(path, replace(masks, record=replace(RECORD, version=0)))
    with pytest.raises(DataError, match="hold-out version: got 0, expected 1; hold out again"):
        read_holdout(path)
    write_holdout(path, replace(masks, table=masks.table.drop_columns(["iou"])))
    with pytest.raises(DataError, match="got other columns than a hold-out has"):
        read_holdout(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="got no record of a hold-out"):
        read_holdout(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_holdout(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_holdout(tmp_path / "none.parquet")


def test_no_rows_are_a_table_too(tmp_path: Path) -> None:
    masks = HoldoutMasks(HOLDOUT_SCHEMA.empty_table(), RECORD)
    write_holdout(tmp_path / "masks.parquet", masks)
    assert len(read_holdout(tmp_path / "masks.parquet").of("recipe")) == 0


def test_a_trial_is_checked_before_it_joins_others(tmp_path: Path) -> None:
    path = tmp_path / "masks.parquet"
    pq.write_table(table := holdout_table(columns()), path)
    assert read_trial(path).equals(table)
    pq.write_table(
        table.set_column(0, "teacher", pa.array([b"recipe\xff", b"starter"]).view(pa.string())), path
    )
    with pytest.raises(DataError, match=r"cannot be read: .*UTF8.*; expected the masks of deepmac holdout"):
        read_trial(path)
    pq.write_table(table.drop_columns(["iou"]), path)
    with pytest.raises(DataError, match="got other columns than a hold-out has"):
        read_trial(path)
