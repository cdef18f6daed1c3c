from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepmac_distill.errors import DataError
from deepmac_distill.labels.rules import SelectRules, accepted_rows
from deepmac_distill.labels.table import (
    LABELS_SCHEMA,
    assemble,
    finished_units,
    label_table,
    label_writer,
    read_labels,
    read_provenance,
    write_unit,
)

PROVENANCE = {"teacher_sha256": "ab" * 32, "package": "0.1.0"}


def rows(*ids: tuple[int, int], **columns: list[Any]) -> pa.Table:
    """One labeled row for each (image id, annotation id)."""
    n = len(ids)
    defaults: dict[str, list[Any]] = {
        "annotation_id": [annotation_id for _, annotation_id in ids],
        "image_id": [image_id for image_id, _ in ids],
        "category_id": [1] * n,
        "bbox": [[1.5, 2, 3, 4]] * n,
        "height": [40] * n,
        "width": [60] * n,
        "source": ["teacher"] * n,
        "status": ["labeled"] * n,
        "reason": [""] * n,
        "rle_counts": [b"52203"] * n,
        "soft": [bytes(range(4))] * n,
        "soft_size": [2] * n,
        "mask_area": [4] * n,
        "mask_score": [0.75] * n,
        "mask_bbox_iou": [0.5] * n,
    }
    return label_table(defaults | columns)


def test_labels_come_back_as_they_were_written(tmp_path: Path) -> None:
    units = [rows((1, 5), (1, 9)), rows(), rows((2, 3), rle_counts=[None], soft=[None], mask_score=[None])]
    with label_writer(tmp_path / "masks.parquet", PROVENANCE) as writer:
        for unit in units:
            writer.write(unit)
    assert read_labels(tmp_path / "masks.parquet").equals(pa.concat_tables(units))
    assert read_labels(tmp_path / "masks.parquet", ["mask_area"]).column_names == ["mask_area"]
    assert read_provenance(tmp_path / "masks.parquet") == PROVENANCE


def test_a_unit_is_a_row_group_and_masks_have_no_dictionary(tmp_path: Path) -> None:
    with label_writer(tmp_path / "masks.parquet", {}) as writer:
        writer.write(rows((1, 5), (1, 9)))
        writer.write(rows((2, 3)))
    metadata = pq.read_metadata(tmp_path / "masks.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 1]
    columns = {
        metadata.row_group(0).column(i).path_in_schema: metadata.row_group(0).column(i) for i in range(15)
    }
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert not columns["rle_counts"].has_dictionary_page
    assert not columns["soft"].has_dictionary_page
    assert columns["category_id"].has_dictionary_page


def test_a_run_that_was_killed_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    units = [rows((1, 5), (1, 9)), rows(), rows((2, 3)), rows((4, 1), (5, 2))]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for unit, part in enumerate(units):
        write_unit(straight, unit, part)
    for unit in (0, 2):
        write_unit(killed, unit, units[unit])
    (killed / ".unit-000001.parquet.99.part").write_bytes(b"half a fi")
    assert finished_units(killed) == {0, 2}
    for unit in sorted(set(range(4)) - finished_units(killed)):
        write_unit(killed, unit, units[unit])
    for folder in (straight, killed):
        assert assemble(folder, 4, folder / "masks.parquet", PROVENANCE) == 5
    assert (straight / "masks.parquet").read_bytes() == (killed / "masks.parquet").read_bytes()
    assert read_labels(straight / "masks.parquet").equals(pa.concat_tables(units))


def test_unfinished_units_are_not_assembled(tmp_path: Path) -> None:
    assert finished_units(tmp_path / "nothing") == set()
    write_unit(tmp_path, 1, rows((1, 5)))
    with pytest.raises(ValueError, match=r"units \[0, 2\] are not finished"):
        assemble(tmp_path, 3, tmp_path / "masks.parquet", {})
    assert not (tmp_path / "masks.parquet").exists()


@pytest.mark.parametrize("second", [(1, 5), (1, 4), (0, 9)])
def test_rows_out_of_order_are_refused_and_leave_no_file(tmp_path: Path, second: tuple[int, int]) -> None:
    with (
        pytest.raises(ValueError, match="expected in the order"),
        label_writer(tmp_path / "masks.parquet", {}) as writer,
    ):
        writer.write(rows((1, 5)))
        writer.write(rows(second))
    with pytest.raises(ValueError, match="expected in the order"):
        write_unit(tmp_path, 0, rows((1, 5), second))
    assert not list(tmp_path.iterdir())


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="column image_id: got nulls"):
        label_table({"annotation_id": [1]})
    with pytest.raises(ValueError, match="score"):
        label_table({"score": [1]})
    with pytest.raises(ValueError, match="none"):
        label_table({})


def test_another_schema_version_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "masks.parquet"
    for version, name in ((b"2", "2"), (None, "none")):
        metadata = {b"deepmac_distill.schema_version": version} if version else {}
        pq.write_table(LABELS_SCHEMA.with_metadata(metadata).empty_table(), path)
        for reader in (read_labels, read_provenance):
            with pytest.raises(DataError, match=f"label schema version: got {name}, expected 1"):
                reader(path)
    changed = LABELS_SCHEMA.set(0, pa.field("annotation_id", pa.int32()))
    pq.write_table(changed.with_metadata({b"deepmac_distill.schema_version": b"1"}).empty_table(), path)
    with pytest.raises(DataError, match="column annotation_id int32: expected annotation_id int64"):
        read_labels(path)


def test_what_is_no_label_file_is_refused_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("masks")
    (tmp_path / "empty").write_text("")
    for path in (tmp_path / "text", tmp_path / "empty", tmp_path / "absent", tmp_path):
        for reader in (read_labels, read_provenance):
            with pytest.raises(DataError, match=r"cannot be read: .*; expected a masks\.parquet") as error:
                reader(path)
            assert "\n" not in str(error.value)


def test_rules_are_floors_and_a_missing_score_counts_as_zero() -> None:
    table = rows(
        *((1, i) for i in range(8)),
        source=["teacher"] * 6 + ["human", "teacher"],
        status=["labeled"] * 7 + ["crowd"],
        mask_score=[0.6, 0.5, None, 0.9, 0.9, 0.9, 0.9, 0.9],
        mask_bbox_iou=[0.8, 0.8, 0.8, 0.7, None, 0.9, 0.9, 0.9],
        mask_area=[1, 1, 1, 1, 1, 0, 1, 1],
    )
    strict = SelectRules(min_mask_score=0.6, min_mask_bbox_iou=0.8)
    assert accepted_rows(table, strict).tolist() == [True] + [False] * 7
    assert accepted_rows(table, SelectRules()).tolist() == [True] * 5 + [False] * 3
    assert accepted_rows(rows(), strict).tolist() == []


def test_rules_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="min_mask_score: got 60"):
        SelectRules(min_mask_score=60)
    with pytest.raises(ValueError, match="on_rejected: got 'keep'"):
        SelectRules(on_rejected="keep")
