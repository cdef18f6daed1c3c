"""Rows of large tables: any of them in any order, and tables that leave memory for a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deepmac_distill.dataset import tables
from deepmac_distill.dataset.entries import ChosenRows
from deepmac_distill.dataset.tables import mapped

SCHEMA = pa.schema({"number": pa.int64(), "word": pa.string(), "box": pa.list_(pa.float64(), 2)})


def chunks(*lengths: int) -> list[pa.Table]:
    numbers = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    return [
        pa.table([some, [f"word {n}" for n in some], [[n, -n] for n in some]], schema=SCHEMA)
        for some in numbers
    ]


@pytest.mark.parametrize("lengths", [(7,), (3, 4), (1, 0, 5, 0, 1), (0, 7)])
def test_chosen_rows_are_those_that_take_gives(lengths: tuple[int, ...]) -> None:
    table, rng = pa.concat_tables(chunks(*lengths)), np.random.default_rng(0)
    for rows in (np.arange(7), np.arange(7)[::-1], rng.integers(0, 7, 20), np.array([6]), np.arange(0)):
        assert ChosenRows(table).take(rows).equals(table.take(pa.array(rows)).combine_chunks())


@pytest.mark.parametrize("most", [0, 100, 10**9])
def test_a_mapped_table_is_the_same_table_and_leaves_no_file(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_HELD_BYTES", most)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for lengths in ((3, 4, 5), (2,)):
        assert mapped(SCHEMA, chunks(*lengths)).equals(pa.concat_tables(chunks(*lengths)))
    assert mapped(SCHEMA, []).equals(SCHEMA.empty_table())
    assert not list(tmp_path.iterdir())


def test_a_mapped_table_has_few_pieces_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of a column takes memory of the process, which a hundred thousand small ones would fill."""
    small = chunks(*[1] * 40)
    monkeypatch.setattr(tables, "MOST_HELD_BYTES", 4 * small[0].nbytes)
    found = mapped(SCHEMA, small)
    assert found.equals(pa.concat_tables(small))
    assert found[SCHEMA.names[0]].num_chunks <= 10
