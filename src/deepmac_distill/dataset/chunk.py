"""Some thousand annotations as Arrow columns; whatever looks odd is put into words on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.document import Entry
from deepmac_distill.dataset.findings import (
    EDGE_TOLERANCE_PX,
    Finding,
    annotation_findings,
    is_flag,
    is_lost_box,
    off_box_finding,
)
from deepmac_distill.dataset.off_box import off_box
from deepmac_distill.dataset.polygons import LARGEST, POLYGONS, FlatPolygons
from deepmac_distill.dataset.problems import is_number
from deepmac_distill.dataset.segmentations import Segmentations, read_segmentations

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
STORED = pa.schema(
    {
        "annotation_id": pa.int64(),
        "image_id": pa.int64(),
        "category_id": pa.int32(),
        "bbox": pa.list_(pa.float64(), 4),  # xywh, as in the file
        "area": pa.float64(),  # the mask's, as in the file
        "iscrowd": pa.bool_(),
        "status": pa.string(),  # ok | crowd | degenerate
        "reason": pa.string(),  # why not ok, or empty
        "polygons": POLYGONS,  # drawn parts; null without polygons
        "rle_counts": pa.binary(),  # compressed COCO counts at the image's size; null without
        "source": pa.string(),  # human | teacher | none
        "mask_score": pa.float32(),
        "position": pa.int64(),  # in the file
        "box_from_mask": pa.bool_(),  # the file has no box, or one that is not finite
        "by_teacher": pa.bool_(),  # a teacher drew the mask, by the file: it may be seen
        "drawn": pa.bool_(),  # a mask was drawn, of whatever worth
        "unusable": pa.bool_(),  # a mask was drawn and cannot be used
        "lost_parts": pa.int32(),  # polygon parts of fewer than three points
        "segmentation": pa.binary(),  # as JSON, where the columns do not hold it as it was
        "extra": pa.binary(),  # keys that nothing here reads, as JSON; null without
    }
)
READ_KEYS = frozenset(
    ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "mask_score")
)


@dataclass(frozen=True, slots=True)
class Places:
    """What is known of N annotations before they are decoded."""

    positions: Ints  # (N,) in the file
    annotation_id: Ints  # (N,)
    image_id: Ints  # (N,)
    category_id: Ints  # (N,)
    sizes: Ints  # (N, 2) height and width of their images; 0 where not known
    known_image: Bools  # (N,) the image is in the file
    known_category: Bools  # (N,)

    def part(self, rows: slice) -> Places:
        """Some of the rows."""
        return Places(*(getattr(self, name)[rows] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Chunk:
    """N annotations as a table."""

    rows: pa.RecordBatch  # STORED; entries and masks with errors are empty
    suspects: Bools  # (N,) at least those that have findings
    findings: list[tuple[int, Finding]]  # row, and what
    boxes: Floats  # (N, 4) xywh of `rows`


def chunk_of(entries: Sequence[Entry], at: Places, *, marked: bool = True) -> Chunk:
    """Screen and convert annotations.

    Args:
        marked: whether the file is one of ours, so that its `source` and `mask_score` are to be believed.
    """
    masks = read_segmentations(_values(entries, "segmentation"), at.sizes)
    boxes, odd_boxes = _boxes(_values(entries, "bbox"))
    crowd, odd = _flags(_values(entries, "iscrowd"))
    area, odd_areas = _numbers(_values(entries, "area"))
    score, odd_scores = _numbers(_values(entries, "mask_score"))
    odd |= odd_boxes | odd_areas | odd_scores | masks.suspects | ~at.known_image | ~at.known_category
    suspects = odd | ((_reasons(boxes, at.sizes) != "") | (overhangs(boxes, at.sizes) > EDGE_TOLERANCE_PX))
    from_mask = _fill_boxes(boxes, np.flatnonzero(odd_boxes), entries, masks, at.sizes)
    reasons = np.where(crowd, "iscrowd is 1", _reasons(boxes, at.sizes))
    stated = (
        np.array([str(value) for value in _values(entries, "source")]) if marked else np.full(len(crowd), "")
    )
    refused = stated == "none"  # a region to ignore that an export made of a box
    off = off_box(masks, boxes, at.sizes, (reasons == "") & ~refused)
    lost = refused | off
    held = masks.held & ~lost
    columns = {
        "annotation_id": at.annotation_id,
        "image_id": at.image_id,
        "category_id": at.category_id.astype(np.int32),
        "bbox": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
        "area": area,
        "iscrowd": crowd,
        "status": np.select([crowd, reasons != ""], ["crowd", "degenerate"], "ok"),
        "reason": reasons,
        "polygons": without(masks.polygons, lost),
        "rle_counts": without(masks.counts, lost),
        "source": np.select([~held, stated == "teacher"], ["none", "teacher"], "human"),
        "mask_score": score.cast(pa.float32()) if marked else pa.nulls(len(entries), pa.float32()),
        "position": at.positions,
        "box_from_mask": from_mask,
        "by_teacher": stated == "teacher",
        "drawn": masks.drawn,
        "unusable": masks.drawn & ~held & ~refused,
        "lost_parts": np.where(refused, 0, masks.lost_parts).astype(np.int32),
        "segmentation": _as_json(entries, masks.verbatim & ~(lost & masks.drawn)),
        "extra": _extras(entries, READ_KEYS if marked else READ_KEYS - {"mask_score"}),
    }
    arrays = [_arrow(columns[field.name], field.type) for field in STORED]
    rows = pa.RecordBatch.from_arrays(arrays, schema=STORED)
    findings = [(row, off_box_finding(entries[row].get("bbox"))) for row in np.flatnonzero(off).tolist()]
    return Chunk(rows, suspects | off, [*_explained(entries, at, suspects), *findings], boxes)


def _explained(entries: Sequence[Entry], at: Places, suspects: Bools) -> Iterator[tuple[int, Finding]]:
    for row in np.flatnonzero(suspects).tolist():
        height, width = at.sizes[row].tolist()
        for finding in annotation_findings(
            entries[row],
            (height, width) if height and width else None,
            known_image=bool(at.known_image[row]),
            known_category=bool(at.known_category[row]),
        ):
            yield row, finding


def without(column: pa.Array, rows: Bools) -> pa.Array:
    """A column of lists or bytes with some rows null: a new validity bitmap over the same buffers."""
    if not rows.any():
        return column
    if column.offset:
        column = pa.concat_arrays([column])
    kept = column.is_valid().to_numpy(zero_copy_only=False) & ~rows
    bitmap = pa.py_buffer(np.packbits(kept, bitorder="little").tobytes())
    buffers = [bitmap, *column.buffers()[1 : column.type.num_buffers]]
    children = [column.values] if isinstance(column, pa.ListArray) else None
    return pa.Array.from_buffers(column.type, len(column), buffers, children=children)


def overhangs(boxes: Floats, sizes: Ints) -> Floats:
    """(N,) how far xywh boxes reach over the edges of their (N, 2) images, in pixels; 0 inside."""
    x, y, w, h = boxes.T
    height, width = sizes.T
    furthest: Floats = np.maximum.reduce([-x, -y, x + w - width, y + h - height, np.zeros(len(x))])
    return furthest


def _reasons(boxes: Floats, sizes: Ints) -> NDArray[np.str_]:
    """(N,) `findings.degenerate_reason` of xywh boxes."""
    x, y, w, h = boxes.T
    height, width = sizes.T
    inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (np.minimum(y + h, height) > np.maximum(y, 0))
    return np.select([~((w > 0) & (h > 0)), ~inside], ["has no area", "is outside the image"], "")


def _values(entries: Sequence[Entry], key: str) -> list[Any]:
    return [entry.get(key) for entry in entries]


def _boxes(given: Sequence[Any]) -> tuple[Floats, Bools]:
    """(N, 4) xywh, zero where a box is not four finite numbers, and (N,) where that is so."""
    if set(map(type, given)) == {list} and _are_four_numbers(given):
        with suppress(OverflowError):
            found = np.array(given, dtype=np.float64)
            if (np.abs(found) < LARGEST).all():
                return found, np.zeros(len(given), dtype=bool)
    fits = [type(box) is list and len(box) == 4 and all(map(is_number, box)) for box in given]
    boxes = [box if fit else (0.0,) * 4 for box, fit in zip(given, fits, strict=True)]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4), ~np.array(fits, dtype=bool)


def _are_four_numbers(boxes: Sequence[list[Any]]) -> bool:
    return set(map(len, boxes)) == {4} and set(map(type, chain.from_iterable(boxes))) <= {int, float}


def _fill_boxes(
    boxes: Floats, rows: Ints, entries: Sequence[Entry], masks: Segmentations, sizes: Ints
) -> Bools:
    """Give `rows` of `boxes`, in place, what their masks fill; (N,) where a box may come from a mask."""
    from_mask = np.zeros(len(boxes), dtype=bool)
    from_mask[rows] = [is_lost_box(entries[row].get("bbox")) for row in rows.tolist()]
    bounds = FlatPolygons.of(masks.polygons).row_bounds() if from_mask.any() else boxes
    for row in np.flatnonzero(from_mask & masks.held).tolist():
        if masks.polygons[row].is_valid:
            boxes[row] = [*bounds[row, :2], *(bounds[row, 2:] - bounds[row, :2])]
        else:
            rle = {"size": sizes[row].tolist(), "counts": masks.counts[row].as_py()}
            boxes[row] = coco_mask.toBbox(rle)
    return from_mask


def _flags(given: Sequence[Any]) -> tuple[Bools, Bools]:
    """(N,) flags and where they are none."""
    fits = np.array([is_flag(value) for value in given], dtype=bool)
    return np.array([bool(value) for value in given], dtype=bool) & fits, ~fits


def _numbers(given: Sequence[Any]) -> tuple[pa.DoubleArray, Bools]:
    """Numbers as float64, null where there is none, and (N,) where something else was given."""
    fits = np.ones(len(given), dtype=bool)
    if set(map(type, given)) <= {int, float, type(None)}:
        try:
            column = pa.array(given, pa.float64())
            with np.errstate(invalid="ignore"):
                fits = np.abs(pc.fill_null(column, 0).to_numpy()) < LARGEST
            if fits.all():
                return column, ~fits
        except pa.ArrowException:
            pass
    fits = np.array([value is None or is_number(value) for value in given], dtype=bool)
    return pa.array([v if ok else None for v, ok in zip(given, fits, strict=True)], pa.float64()), ~fits


def _as_json(entries: Sequence[Entry], verbatim: Bools) -> list[bytes | None]:
    kept: list[bytes | None] = [None] * len(entries)
    for row in np.flatnonzero(~verbatim).tolist():
        kept[row] = json.dumps(entries[row]["segmentation"]).encode()
    return kept


def _extras(entries: Sequence[Entry], known: frozenset[str]) -> list[bytes | None]:
    return [
        None
        if known >= entry.keys()
        else json.dumps({k: v for k, v in entry.items() if k not in known}, default=str).encode()
        for entry in entries
    ]


def _arrow(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)
