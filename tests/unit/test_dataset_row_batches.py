"""Parquet files of strangers: what their rows take is bounded by their size, whatever their footer states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepmac_distill.dataset import row_batches
from deepmac_distill.dataset.row_batches import read_rows, rows_of
from deepmac_distill.errors import DataError, RunError
from deepmac_distill.labels import label_file
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.table import LABELS_SCHEMA
from deepmac_distill.stages.compare import read_ious

MIB = 2**20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bombs of megabytes instead of gigabytes."""
    monkeypatch.setattr(row_batches, "SMALL_BYTES", 4 * MIB)


def write_repeated(path: Path, value: bytes, rows: int) -> Path:
    """One value that stands once in the file and in every row."""
    pq.write_table(pa.table({"a": pa.array([value] * rows, pa.binary())}), path, compression="zstd")
    return path


def test_all_rows_are_read_as_they_are(tmp_path: Path) -> None:
    table = pa.table({"b": [[1, 2], None] * 3000, "a": ["x", "y"] * 3000}).replace_schema_metadata({"k": "v"})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1700)
    table = pq.read_table(tmp_path / "t.parquet")
    assert read_rows(tmp_path / "t.parquet").equals(table, check_metadata=True)
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        assert rows_of(tmp_path / "t.parquet", file, ["a", "b"]).equals(table.select(["a", "b"]))
        assert rows_of(tmp_path / "t.parquet", file, ["a"], groups=[1])["a"].equals(table["a"][1700:3400])


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    assert read_rows(tmp_path / "t.parquet").schema.names == ["a"]


@pytest.mark.parametrize(("length", "rows"), [(MIB, 10), (1000, 10_000), (8, 1_000_000)])
def test_one_value_in_every_row_is_no_way_to_fill_the_memory(tmp_path: Path, length: int, rows: int) -> None:
    path = write_repeated(tmp_path / "t.parquet", b"x" * length, rows)
    assert path.stat().st_size < 200_000 < length * rows
    before = pa.total_allocated_bytes()
    with pytest.raises(ValueError, match=r"rows of more than \d+ MiB in a file of \d+ bytes"):
        read_rows(path)
    assert pa.total_allocated_bytes() - before < 8 * MIB


def test_few_rows_are_read_at_once_where_one_may_be_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_batches, "SMALL_BYTES", 1024 * MIB)
    path = write_repeated(tmp_path / "t.parquet", bytes(range(256)) * 40 * 1024, 40)
    with pq.ParquetFile(path) as file:
        assert len(next(row_batches.row_batches(path, file))) < 20


@pytest.mark.parametrize("reader", ["labels", "evaluation"])
def test_readers_refuse_such_files_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    read: Callable[[], object]
    if reader == "labels":
        for check in ("require_schema", "check_facts", "check_masks"):
            monkeypatch.setattr(label_file, check, lambda *_: None)
        columns = {
            field.name: pa.array([b"x" * 1000] * 20_000)
            if field.name == "rle_counts"
            else zeros(field, 20_000)
            for field in LABELS_SCHEMA
        }
        table = pa.table(columns, LABELS_SCHEMA)
        path, error, read = tmp_path / "masks.parquet", DataError, lambda: Labels.open(path).table
    else:
        table = pa.table({"row": pa.array([0] * 1_000_000, pa.int64())})
        path, error, read = tmp_path / "ious.parquet", RunError, lambda: read_ious(tmp_path)
    pq.write_table(table, path)
    with pytest.raises(error, match=r"cannot be read.*rows of more than 4 MiB"):
        read()


def zeros(field: pa.Field, rows: int) -> pa.Array:
    """Nulls, or what stands for nothing where none may be."""
    if field.nullable:
        return pa.nulls(rows, field.type)
    value = [0.0] * 4 if pa.types.is_nested(field.type) else "" if pa.types.is_string(field.type) else 0
    return pa.array([value] * rows, field.type)


def test_text_that_is_no_utf_8_is_refused_by_whoever_reads_rows(tmp_path: Path) -> None:
    broken = pa.array([b"sound", b"br\xffken"]).view(pa.string())
    pq.write_table(pa.table({"a": broken}), tmp_path / "t.parquet")
    with pytest.raises(pa.ArrowInvalid, match="UTF8"):
        read_rows(tmp_path / "t.parquet")
