from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.errors import DataError
from deepmac_distill.files import seal_of
from deepmac_distill.labels.cut import recut
from deepmac_distill.labels.label_file import ClassCounts, Labels
from deepmac_distill.labels.rules import Rules
from deepmac_distill.labels.table import (
    LABELS_SCHEMA,
    assemble,
    finished_units,
    label_table,
    label_writer,
    write_unit,
)
from deepmac_distill.labels.teachers import masks_by_teacher, rows_by_teacher

CODE = coco_mask.frPyObjects({"size": [40, 60], "counts": [5, 2, 33, 2, 2358]}, 40, 60)["counts"]
PROVENANCE = {"teacher_sha256": "ab" * 32, "package": "0.1.0"}


def as_read(rows: pa.Table) -> pa.Table:
    """Rows as a reader gets them where nobody estimates their quality."""
    for name in ("quality", "quality_low"):
        rows = rows.append_column(name, pa.nulls(len(rows), pa.float32()))
    return rows.drop_columns(["soft"])


def rows(*ids: tuple[int, int], **columns: list[Any]) -> pa.Table:
    """One labeled row for each (image id, annotation id)."""
    n = len(ids)
    defaults: dict[str, list[Any]] = {
        "annotation_id": [annotation_id for _, annotation_id in ids],
        "image_id": [image_id for image_id, _ in ids],
        "file_name": ["a.jpg"] * n,
        "category_id": [1] * n,
        "category_name": ["yak"] * n,
        "bbox": [[1.5, 2, 3, 4]] * n,
        "height": [40] * n,
        "width": [60] * n,
        "source": ["teacher"] * n,
        "status": ["labeled"] * n,
        "reason": [""] * n,
        "rle_counts": [CODE] * n,
        "cut": [0.5] * n,
        "soft": [bytes(range(4))] * n,
        "soft_size": [2] * n,
        "soft_lattice": ["centers"] * n,
        "mask_area": [4] * n,
        "mask_score": [0.75] * n,
        "mask_bbox_iou": [0.5] * n,
    }
    return label_table(defaults | columns)


def test_labels_come_back_as_they_were_written(tmp_path: Path) -> None:
    units = [rows((1, 5), (1, 9)), rows(), rows((2, 3), source=["none"], rle_counts=[None], soft=[None])]
    with label_writer(tmp_path / "masks.parquet", PROVENANCE) as writer:
        for unit in units:
            writer.write(unit)
    assert pq.read_table(tmp_path / "masks.parquet").replace_schema_metadata() == pa.concat_tables(units)
    assert Labels.open(tmp_path / "masks.parquet").table == as_read(pa.concat_tables(units))
    assert len(Labels.open(tmp_path / "masks.parquet")) == 3
    assert Labels.open(tmp_path / "masks.parquet").provenance == PROVENANCE


def test_a_unit_is_a_row_group_and_masks_have_no_dictionary(tmp_path: Path) -> None:
    with label_writer(tmp_path / "masks.parquet", {}) as writer:
        writer.write(rows((1, 5), (1, 9)))
        writer.write(rows((2, 3)))
    metadata = pq.read_metadata(tmp_path / "masks.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 1]
    columns = {
        metadata.row_group(0).column(i).path_in_schema: metadata.row_group(0).column(i) for i in range(20)
    }
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert not columns["rle_counts"].has_dictionary_page
    assert not columns["soft"].has_dictionary_page
    assert columns["category_id"].has_dictionary_page


def refuse(note: str) -> None:
    raise AssertionError(note)


def test_a_run_that_was_killed_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    units = [rows((1, 5), (1, 9)), rows(), rows((2, 3)), rows((4, 1), (5, 2))]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for unit, part in enumerate(units):
        write_unit(straight, unit, part)
    for unit in (0, 2):
        write_unit(killed, unit, units[unit])
    (killed / ".unit-000001.parquet.99.part").write_bytes(b"half a fi")
    assert finished_units(killed, range(4), refuse) == {0, 2}
    for unit in (1, 3):
        write_unit(killed, unit, units[unit])
    for folder in (straight, killed):
        assert assemble(folder, 4, folder / "masks.parquet", PROVENANCE) == 5
    assert (straight / "masks.parquet").read_bytes() == (killed / "masks.parquet").read_bytes()
    assert Labels.open(straight / "masks.parquet").table == as_read(pa.concat_tables(units))


def test_unfinished_units_are_not_assembled(tmp_path: Path) -> None:
    assert finished_units(tmp_path / "nothing", range(3), refuse) == set()
    write_unit(tmp_path, 1, rows((1, 5)))
    with pytest.raises(DataError, match=r"units \[0, 2\] are not there; expected all"):
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
    for version, name in ((b"3", "3"), (b"6", "6"), (None, "none")):
        metadata = {b"deepmac_distill.schema_version": version} if version else {}
        pq.write_table(LABELS_SCHEMA.with_metadata(metadata).empty_table(), path)
        says = f"label schema version: got {name}, expected 5; label again with this version"
        with pytest.raises(DataError, match=says):
            Labels.open(path)
    changed = LABELS_SCHEMA.set(0, pa.field("annotation_id", pa.int32()))
    pq.write_table(changed.with_metadata({b"deepmac_distill.schema_version": b"5"}).empty_table(), path)
    with pytest.raises(DataError, match="column annotation_id int32: expected annotation_id int64"):
        Labels.open(path)


def of_version_4(path: Path, table: pa.Table, provenance: bytes) -> Path:
    metadata = {b"deepmac_distill.schema_version": b"4", b"deepmac_distill.provenance": provenance}
    pq.write_table(table.drop_columns(["teacher"]).replace_schema_metadata(metadata), path)
    return path


def test_rows_of_the_version_before_have_the_identity_of_their_file(tmp_path: Path) -> None:
    table = rows((1, 5), (1, 9), source=["teacher", "human"], cut=[0.5, None], soft=[bytes(4), None])
    labels = Labels.open(of_version_4(tmp_path / "a.parquet", table, b'{"teacher": "ab12", "look": {}}'))
    assert labels.table["teacher"].to_pylist() == ["ab12", None]
    assert labels.teachers == {"ab12": {"teacher": "ab12", "look": {}}}
    assert labels.with_cut(0.2).table["teacher"].to_pylist() == ["ab12", None]
    unnamed = Labels.open(of_version_4(tmp_path / "b.parquet", table, b"{}"))
    assert unnamed.table["teacher"].to_pylist() == [None, None]
    with pytest.raises(DataError, match="got 24 columns, expected 23"):
        metadata = {b"deepmac_distill.schema_version": b"4", b"deepmac_distill.provenance": b"{}"}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "c.parquet")
        Labels.open(tmp_path / "c.parquet")


def test_each_box_has_what_the_teacher_did_that_was_asked_for_it() -> None:
    ids = ((1, 1), (1, 2), (1, 3))
    one = rows(*ids, source=["teacher", "none", "human"], teacher=["a", None, None])
    other = rows(*ids, source=["none", "teacher", "human"], teacher=[None, "b", None])
    wanted = [np.array([True, False, False]), np.array([False, True, False])]
    both = rows_by_teacher([one, other], wanted)
    assert both["teacher"].to_pylist() == ["a", "b", None]
    assert both["source"].to_pylist() == ["teacher", "teacher", "human"]
    assert masks_by_teacher(both) == {"a": {"yak": 1}, "b": {"yak": 1}}
    nothing = rows_by_teacher([one[:0], other[:0]], [np.zeros(0, bool)] * 2)
    assert len(nothing) == 0


def test_what_is_no_label_file_is_refused_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("masks")
    (tmp_path / "empty").write_text("")
    for path in (tmp_path / "text", tmp_path / "empty", tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match=r"cannot be read: .*; expected a masks\.parquet") as error:
            Labels.open(path)
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
    strict = Rules(min_mask_score=0.6, min_mask_bbox_iou=0.8)
    assert strict.accept(table).tolist() == [True] + [False] * 7
    assert Rules().accept(table).tolist() == [True] * 5 + [False] * 3
    assert strict.accept(rows()).tolist() == []
    expected = table.set_column(
        table.schema.get_field_index("expected_iou"), "expected_iou", [[0.7, 0.69, *[None] * 6]]
    )
    assert Rules(min_expected_iou=0.7).accept(expected).tolist() == [True] + [False] * 7


def test_rules_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="min_mask_score: got 60"):
        Rules(min_mask_score=60)
    with pytest.raises(ValueError, match="on_rejected: got 'keep'"):
        Rules(on_rejected="keep")


def written(path: Path, table: pa.Table, provenance: bytes = b"{}") -> Labels:
    """A label file that the writer would not have written."""
    metadata = {
        b"deepmac_distill.schema_version": b"5",
        b"deepmac_distill.provenance": provenance,
    }
    pq.write_table(table.replace_schema_metadata(metadata), path / "masks.parquet")
    return Labels.open(path / "masks.parquet")


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("rle_counts", b"52203", "rle_counts: got 5 bytes, expected a COCO code"),
        ("rle_counts", b"", "rle_counts: got 0 bytes, expected a COCO code"),
        ("rle_counts", CODE[:-1], "expected a COCO code"),
        ("rle_counts", CODE + b"\xff", "expected a COCO code"),
        ("rle_counts", None, "rle_counts: got None, expected a teacher's mask"),
        ("mask_area", 5, "mask_area: got 5, expected the mask's pixels"),
        ("mask_area", None, "mask_area: got None, expected the mask's pixels"),
        ("mask_score", float("nan"), "mask_score: got nan, expected 0 to 1"),
        ("mask_bbox_iou", 1.5, "mask_bbox_iou: got 1.5, expected 0 to 1"),
        ("expected_iou", -0.5, "expected_iou: got -0.5, expected 0 to 1"),
        (
            "bbox",
            [0.0, 0.0, float("inf"), 1.0],
            "bbox: got [0.0, 0.0, inf, 1.0], expected four finite numbers",
        ),
        ("file_name", "../a.jpg", "file_name: got '../a.jpg', expected a path inside the image folder"),
        ("file_name", "C:\\a.jpg", "expected a path inside the image folder"),
        ("height", 0, "height: got 0, expected at least 1"),
        ("source", "oracle", "source: got 'oracle', expected one of human, teacher, none"),
    ],
)
def test_rows_that_lie_are_named(tmp_path: Path, column: str, value: Any, says: str) -> None:
    table = rows((1, 5), (1, 9), **{column: [rows((1, 5))[column][0].as_py(), value]})
    with pytest.raises(DataError) as error:
        _ = written(tmp_path, table).table
    assert f"annotation 9: {says}" in str(error.value) or says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("soft_size", 3, "soft: got 4 bytes, expected soft_size x soft_size bytes"),
        ("soft_size", -2, "soft_size: got -2, expected 1 to 1024"),
        ("soft_size", 2**30, "soft_size: got 1073741824, expected 1 to 1024"),
        ("soft_lattice", "corners", "soft_lattice: got 'corners', expected one of centers, reference"),
        ("soft_lattice", None, "soft_lattice: got None, expected one of centers, reference"),
        ("soft_size", None, "soft_size: got None, expected 1 to 1024"),
        ("soft", None, "soft: got None, expected a soft grid for another cut"),
    ],
)
def test_grids_that_lie_are_named(tmp_path: Path, column: str, value: Any, says: str) -> None:
    table = rows((1, 5), (1, 9), **{column: [rows((1, 5))[column][0].as_py(), value]})
    with pytest.raises(DataError, match="annotation 9") as error:
        _ = written(tmp_path, table).with_cut(0.25).table
    assert says in str(error.value)


def test_grids_of_several_sizes_are_cut_each_at_its_own(tmp_path: Path) -> None:
    full = [bytes([255] * 4), bytes([255] * 9), bytes([255] * 4)]
    table = rows((1, 5), (1, 9), (2, 3), soft=full, soft_size=[2, 3, 2], bbox=[[1, 2, 3, 4]] * 3)
    again = written(tmp_path, table).with_cut(0.25).table
    assert again["mask_area"].to_pylist() == [12, 12, 12] and set(again["cut"].to_pylist()) == {0.25}


def test_grids_of_both_lattices_are_cut_each_on_its_own(tmp_path: Path) -> None:
    soft, box = [bytes([255, 0] * 2)] * 2, [[0.0, 0, 40, 40]] * 2
    table = rows((1, 5), (1, 9), soft=soft, bbox=box, soft_lattice=["centers", "reference"])
    again = written(tmp_path, table).with_cut(0.25).table
    grid, size = np.array([[[255, 0], [255, 0]]], np.uint8), np.array([[40, 60]])
    one, other = (recut(grid, box[:1], size, 0.25, lattice=it).areas[0] for it in ("centers", "reference"))
    assert again["mask_area"].to_pylist() == [one, other] and other == 30 * 40 > one


def test_labels_describe_what_became_of_each_class(tmp_path: Path) -> None:
    table = rows(
        *((1, i) for i in range(5)),
        category_id=[2, 1, 2, 2, 1],
        category_name=["owl", "yak", "owl", "owl", "yak"],
        source=["human", "teacher", "teacher", "teacher", "none"],
        mask_score=[None, 0.9, 0.9, 0.2, None],
        rle_counts=[CODE] * 4 + [None],
    )
    found = written(tmp_path, table).describe(Rules(min_mask_score=0.5))
    assert found == [ClassCounts("yak", 2, 0, 1, 0), ClassCounts("owl", 3, 1, 1, 1)]
    assert written(tmp_path, rows()).describe(Rules()) == []


@pytest.mark.parametrize("provenance", [b"", b"{", b"[]", b"[" * 100_000])
def test_provenance_that_is_none_is_refused(tmp_path: Path, provenance: bytes) -> None:
    with pytest.raises(DataError, match="provenance: got none that can be read"):
        _ = written(tmp_path, rows((1, 5)), provenance).provenance


@pytest.mark.parametrize("seed", range(30))
def test_a_file_with_wrong_bytes_is_refused_or_read(tmp_path: Path, seed: int) -> None:
    labels = written(tmp_path, rows(*((1, i) for i in range(20))))
    content = bytearray(labels.path.read_bytes())
    generator = random.Random(seed)
    for _ in range(3):
        content[generator.randrange(4, len(content))] = generator.randrange(256)
    labels.path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert len(Labels.open(labels.path).with_cut(0.25).table) >= 0


def test_any_byte_of_a_unit_that_is_damaged_is_found_and_the_unit_is_not_finished(tmp_path: Path) -> None:
    write_unit(tmp_path, 0, rows((1, 5), (1, 9)))
    path = tmp_path / "unit-000000.parquet"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        notes: list[str] = []
        assert not finished_units(tmp_path, range(1), notes.append), at
        assert notes[0].startswith(f"{path}: ") and notes[0].endswith("; it is labeled again"), at
    for cut in (0, 1, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert not finished_units(tmp_path, range(1), notes.append)
    path.write_bytes(whole)
    assert finished_units(tmp_path, range(1), refuse) == {0}
    seal_of(path).unlink()  # as an earlier version left it
    assert not finished_units(tmp_path, range(1), notes.append)
