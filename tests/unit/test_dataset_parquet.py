"""A folder of Parquet tables is read as the JSON file that says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
BOX = {"category_id": 1, "bbox": [10.0, 10.0, 20.0, 20.0], "iscrowd": 0}
DOCUMENT: dict[str, Any] = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in (2, 1)],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        BOX | {"id": 4, "image_id": 2, "segmentation": SQUARE, "area": 400.0, "note": "first"},
        BOX | {"id": 3, "image_id": 1, "segmentation": {"size": [40, 60], "counts": [80, 40, 2280]}},
        BOX | {"id": 9, "image_id": 2},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The document as three tables, two annotations in a row group."""
    folder = tmp_path / "tables"
    folder.mkdir()
    rows = [dict(row) for row in DOCUMENT["annotations"]]
    rows[1]["segmentation_rle"] = rows[1].pop("segmentation")
    for name, table, size in (
        ("images", DOCUMENT["images"], None),
        ("categories", DOCUMENT["categories"], None),
        ("annotations", rows, 2),
    ):
        keys = {key: None for row in table for key in row}
        columns = {key: [row.get(key) for row in table] for key in keys}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=size)
    return folder


def test_parquet_and_json_give_the_same_tables(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(DOCUMENT))
    ours, theirs = (Dataset.open(path, seen="cat").for_training() for path in (folder, tmp_path / "a.json"))
    assert ours.annotations.drop(["segmentation"]).equals(theirs.annotations.drop(["segmentation"]))
    assert (ours.fingerprint, ours.counts) == (theirs.fingerprint, theirs.counts)
    assert (
        ours.document()
        == theirs.document()
        == DOCUMENT | {"annotations": [row | {"iscrowd": 0} for row in DOCUMENT["annotations"]]}
    )


def test_a_changed_table_is_read_anew(folder: Path) -> None:
    Dataset.open(folder, seen="cat")
    pq.write_table(pa.table({"id": [1], "name": ["dog"]}), folder / "categories.parquet")
    assert Dataset.open(folder, seen="dog").classes.names == ("dog",)


def test_a_folder_that_lacks_a_table_or_holds_none_is_refused(folder: Path) -> None:
    (folder / "categories.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"expected images, annotations and categories.parquet") as error:
        Dataset.open(folder, seen="cat")
    assert "\n" not in str(error.value)
    (folder / "images.parquet").unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Dataset.open(folder, seen="cat")
