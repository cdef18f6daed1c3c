"""Stored grids of label rows are cut again: when labels are read, and asked for elsewhere than they were."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.geometry.boxes import clip_boxes, xywh_to_xyxy
from deepmac_distill.labels.cut import EVEN_CUT, EXPECTED_IOU, Cut, are_best, box_ious, recut
from deepmac_distill.labels.table import TEACHER
from deepmac_distill.lattice import LATTICES, Lattice

CutOf = Callable[[str | None], Cut]  # a teacher's name -> where its masks end


def are_cut_at(cut_of: CutOf, rows: pa.Table) -> bool:
    """Whether the teachers' masks of some rows are all cut where that asks for."""
    names = np.array(rows[TEACHER].to_pylist(), dtype=object)
    return all(
        _is_cut_at(cut_of(name), rows.filter(pa.array(names == name)))
        for name in dict.fromkeys(names.tolist())
    )


def recut_rows(rows: pa.Table, by_teacher: NDArray[np.bool_], cut_of: CutOf) -> pa.Table:
    """The rows with the teachers' masks, and what follows from a cut, where that asks for.

    Args:
        rows: of LABELS_SCHEMA, those of teachers with sound soft grids.
        by_teacher: (N,) which these are.
    """
    teacher, where = rows.filter(by_teacher), np.flatnonzero(by_teacher)
    order, columns = [], []
    sides, lattices = teacher["soft_size"].to_numpy(), np.asarray(teacher["soft_lattice"])
    names = np.array(teacher[TEACHER].to_pylist(), dtype=object)
    # A file joined from others may hold grids of several sizes and lattices.
    for side, lattice, name in itertools.product(np.unique(sides), LATTICES, dict.fromkeys(names.tolist())):
        at = np.flatnonzero((sides == side) & (lattices == lattice) & (names == name))
        order.append(where[at])
        columns.append(_cut_columns(teacher.take(at), int(side), cut_of(name), lattice))
    position = np.full(len(rows), -1)
    position[np.concatenate([np.zeros(0, np.int64), *order])] = np.arange(len(where))
    if columns:
        taken = pa.concat_tables(columns).take(pa.array(position, mask=position < 0))
        for name in taken.column_names:
            column = pc.if_else(pa.array(by_teacher), taken[name], rows[name])
            rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def _is_cut_at(cut: Cut, rows: pa.Table) -> bool:
    """Whether all masks are cut where that asks for; of the rule, a mask's expected IoU proves it."""
    cuts = rows["cut"].to_numpy()
    if cut != EXPECTED_IOU:
        return bool((cuts == np.float32(cut)).all())
    best = are_best(cuts, rows["expected_iou"].to_numpy())
    return bool(np.where(np.asarray(pc.is_valid(rows["expected_iou"])), best, cuts == EVEN_CUT).all())


def _cut_columns(teacher: pa.Table, side: int, cut: Cut, lattice: Lattice) -> pa.Table:
    """What depends on the cut, of rows whose soft grids have `side` cells a side and this lattice."""
    grids = np.frombuffer(b"".join(teacher["soft"].to_pylist()), np.uint8).reshape(-1, side, side)
    sizes = np.stack([teacher[name].to_numpy() for name in ("height", "width")], 1).astype(np.int64)
    given = xywh_to_xyxy(pc.list_flatten(teacher["bbox"]).to_numpy().reshape(-1, 4))
    probabilities = np.asarray(pc.is_valid(teacher["expected_iou"]))
    masks = recut(grids, clip_boxes(given, *sizes.T), sizes, cut, probabilities, lattice=lattice)
    expected = pa.array(masks.expected_iou, mask=~probabilities)
    return pa.table(
        {
            "rle_counts": pa.array(masks.counts, pa.binary()),
            "cut": masks.cuts,
            "mask_area": masks.areas,
            "mask_score": masks.scores,
            "mask_bbox_iou": box_ious(masks.tight_boxes, given),
            "expected_iou": expected,
        }
    )
