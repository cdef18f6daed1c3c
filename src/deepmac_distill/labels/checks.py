"""What is believed of a label file that anybody may have written: its rows, as far as they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.problems import stays_inside
from deepmac_distill.errors import DataError
from deepmac_distill.geometry.codes import are_sound, extents_of
from deepmac_distill.labels.table import LABELS_SCHEMA
from deepmac_distill.lattice import LATTICES, LEAST_CELLS

SOURCES = ("human", "teacher", "none")
FRACTIONS = ("mask_score", "mask_bbox_iou", "expected_iou", "model_iou", "cut")
MAX_CELLS = 1024  # a side of a soft grid


def check_facts(path: Path, rows: pa.Table) -> None:
    """Values that every reader uses: no nulls where none may be, names, sizes, boxes and fractions.

    Raises:
        DataError: names the first annotation.
    """
    for field in LABELS_SCHEMA:
        if not field.nullable and rows[field.name].null_count:
            raise DataError(f"{path}: column {field.name}: got nulls, expected a value in every row")
    _require(
        path, rows, pc.is_in(rows["source"], pa.array(SOURCES)), "source", f"one of {', '.join(SOURCES)}"
    )
    names = rows["file_name"].combine_chunks().dictionary_encode()
    inside = np.array([stays_inside(name) for name in names.dictionary.to_pylist()], dtype=bool)
    _require(path, rows, inside[names.indices.to_numpy()], "file_name", "a path inside the image folder")
    for name in ("height", "width"):
        _require(path, rows, pc.greater(rows[name], 0), name, "at least 1")
    sides = pc.list_flatten(rows["bbox"]).to_numpy().reshape(-1, 4)
    _require(path, rows, np.isfinite(sides).all(1), "bbox", "four finite numbers")
    for name in FRACTIONS:
        values = np.asarray(pc.fill_null(rows[name], 0))
        _require(path, rows, (values >= 0) & (values <= 1), name, "0 to 1")


def check_masks(path: Path, rows: pa.Table) -> None:
    """Masks: codes that cover their images exactly, of the area that is stored; a teacher's mask is there.

    Raises:
        DataError: names the first annotation.
    """
    _require(
        path,
        rows,
        pc.or_(pc.is_valid(rows["rle_counts"]), pc.not_equal(rows["source"], "teacher")),
        "rle_counts",
        "a teacher's mask",
    )
    drawn = rows.filter(pc.is_valid(rows["rle_counts"]))
    codes, heights = drawn["rle_counts"].to_pylist(), drawn["height"].to_numpy().astype(np.int64)
    sound = are_sound(codes, heights * drawn["width"].to_numpy())
    _require(path, drawn, sound, "rle_counts", "a COCO code of the image's height x width")
    areas = np.asarray(pc.fill_null(drawn["mask_area"], -1))
    _require(path, drawn, areas == extents_of(codes, heights).areas, "mask_area", "the mask's pixels")


def check_grids(path: Path, rows: pa.Table) -> None:
    """Soft grids of rows that have one each: soft_size x soft_size bytes.

    Raises:
        DataError: names the first annotation.
    """
    _require(
        path,
        rows,
        pc.is_valid(rows["soft"]),
        "soft",
        "a soft grid for another cut; labels.soft = true keeps it",
    )
    sizes = np.asarray(pc.fill_null(rows["soft_size"], 0)).astype(np.int64)
    _require(path, rows, (sizes > 0) & (sizes <= MAX_CELLS), "soft_size", f"1 to {MAX_CELLS}")
    known = pc.is_in(rows["soft_lattice"], pa.array(LATTICES))
    _require(path, rows, known, "soft_lattice", f"one of {', '.join(LATTICES)}")
    enough = (sizes >= LEAST_CELLS) | np.asarray(pc.not_equal(rows["soft_lattice"], "reference"))
    _require(path, rows, enough, "soft_size", f"{LEAST_CELLS} or more on reference")
    held = np.asarray(pc.binary_length(rows["soft"]))
    _require(path, rows, held == sizes**2, "soft", "soft_size x soft_size bytes")


def _require(
    path: Path, rows: pa.Table, holds: NDArray[np.bool_] | pa.ChunkedArray, name: str, expected: str
) -> None:
    wrong = np.flatnonzero(~np.asarray(holds))
    if len(wrong):
        row = rows.slice(int(wrong[0]), 1)
        value = row[name][0].as_py()
        got = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
        annotation = row["annotation_id"][0].as_py()
        raise DataError(f"{path}: annotation {annotation}: {name}: got {got}, expected {expected}")
