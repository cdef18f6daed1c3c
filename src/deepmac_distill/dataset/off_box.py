"""Masks of which no pixel is in their box: of another object, and for training a box full of background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.masks import mask_rle
from deepmac_distill.dataset.polygons import FlatPolygons
from deepmac_distill.dataset.segmentations import Segmentations, read_segmentations
from deepmac_distill.geometry.boxes import clip_boxes, xywh_to_xyxy
from deepmac_distill.geometry.codes import extents_of
from deepmac_distill.geometry.rle import encode_boxes

ALIKE_IOU = 0.75  # of a mask's tight box with its box: the mask is in it, and is not drawn to be sure
_ROUNDING_PX = 0.5
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def off_box(masks: Segmentations, boxes_xywh: Floats, sizes: Ints, wanted: Bools) -> Bools:
    """(N,) masks without a pixel whose center is in their box.

    Tight boxes of masks decide most; only what is left is drawn (pycocotools), so that reading stays fast.

    Args:
        sizes: (N, 2) height and width of the images.
        wanted: (N,) rows with a box that is part of its image; others are False.
    """
    found = np.zeros(len(boxes_xywh), dtype=bool)
    rows = np.flatnonzero(masks.held & wanted)
    if not len(rows):
        return found
    height, width = sizes[rows].T
    boxes = clip_boxes(xywh_to_xyxy(boxes_xywh[rows]), height, width)
    tight = clip_boxes(_tight_boxes(masks, sizes, rows), height, width)
    apart = (tight[:, :2] - 1 > boxes[:, 2:]).any(axis=1) | (tight[:, 2:] + 1 < boxes[:, :2]).any(axis=1)
    within = (tight[:, :2] >= boxes[:, :2] - _ROUNDING_PX) & (tight[:, 2:] <= boxes[:, 2:] + _ROUNDING_PX)
    found[rows] = apart
    unsure = rows[~apart & ~within.all(axis=1) & (_ious(tight, boxes) < ALIKE_IOU)]
    cells = _cells(clip_boxes(xywh_to_xyxy(boxes_xywh[unsure]), *sizes[unsure].T))
    codes = encode_boxes(cells, *sizes[unsure].T)
    for row, code in zip(unsure.tolist(), codes, strict=True):
        size = sizes[row].tolist()
        mask = mask_rle(masks.polygons[row].as_py(), masks.counts[row].as_py(), *size)
        both = coco_mask.merge([mask, {"size": size, "counts": code}], intersect=True)
        found[row] = coco_mask.area(both) == 0
    return found


def has_human_mask(annotations: Sequence[Mapping[str, Any]], sizes: Ints) -> Bools:
    """(N,) where a person drew the mask of a valid annotation of ours, as reading its file decides it.

    A mask without a source is human. One of source `none` is a region to ignore that an export made of a
    box. A mask that covers no pixel of its image, or none of its box, is no mask.

    Args:
        sizes: (N, 2) height and width of the images.
    """
    masks = read_segmentations([one.get("segmentation") for one in annotations], sizes)
    boxes = np.array([one["bbox"] for one in annotations], dtype=np.float64).reshape(-1, 4)
    crowd = np.array([bool(one.get("iscrowd")) for one in annotations], dtype=bool)
    stated = np.array([one.get("source") in ("none", "teacher") for one in annotations], dtype=bool)
    x1, y1, x2, y2 = clip_boxes(xywh_to_xyxy(boxes), *sizes.T).T
    usable = ~crowd & (x2 > x1) & (y2 > y1)
    human: Bools = masks.held & ~stated & ~off_box(masks, boxes, sizes, usable)
    return human


def _tight_boxes(masks: Segmentations, sizes: Ints, rows: Ints) -> Floats:
    """(R, 4) xyxy that the masks of some rows fill."""
    found = FlatPolygons.of(masks.polygons).row_bounds()
    coded = np.flatnonzero(masks.counts.is_valid().to_numpy(zero_copy_only=False))
    codes = masks.counts.take(pa.array(coded)).to_pylist()
    found[coded] = xywh_to_xyxy(extents_of(codes, sizes[coded, 0]).boxes_xywh)
    return found[rows]


def _ious(first: Floats, second: Floats) -> Floats:
    """(R,) IoU of pairs of xyxy boxes."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    united = sum((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (first, second)) - shared
    return np.asarray(shared / np.maximum(united, 1e-12))


def _cells(boxes: Floats) -> Floats:
    """Boxes grown to a whole pixel where they hold the center of none."""
    low, high = np.ceil(boxes[:, :2] - 0.5), np.ceil(boxes[:, 2:] - 0.5)
    middle = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2)
    none = high <= low
    return np.hstack([np.where(none, middle, low), np.where(none, middle + 1, high)])
