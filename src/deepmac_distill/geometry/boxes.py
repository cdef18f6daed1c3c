"""Boxes as numpy arrays: xyxy, half-open, float64, in pixels whose centers lie at i + 0.5."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]


def xywh_to_xyxy(boxes_xywh: ArrayLike) -> Boxes:
    """(N, 4) COCO left, top, width, height to (N, 4) left, top, right, bottom.

    >>> xywh_to_xyxy([[10, 20, 3, 4]]).tolist()
    [[10.0, 20.0, 13.0, 24.0]]
    """
    boxes = np.array(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def xyxy_to_xywh(boxes: ArrayLike) -> Boxes:
    """(N, 4) left, top, right, bottom to (N, 4) COCO left, top, width, height.

    >>> xyxy_to_xywh([[10, 20, 13, 24]]).tolist()
    [[10.0, 20.0, 3.0, 4.0]]
    """
    boxes_xywh = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    return boxes_xywh


def clip_boxes(boxes: ArrayLike, height: ArrayLike, width: ArrayLike) -> Boxes:
    """The part of each box inside its image; a box outside the image becomes one without area on its border.

    Args:
        boxes: (N, 4) xyxy.
        height, width: of the image in pixels, one for all or (N,).
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    height, width = np.asarray(height, dtype=np.float64), np.asarray(width, dtype=np.float64)
    limits = np.stack(np.broadcast_arrays(width, height, width, height), axis=-1)  # (4,) or (N, 4)
    return np.clip(boxes, 0.0, limits)


def move_sides(boxes: ArrayLike, moves: ArrayLike, height: ArrayLike, width: ArrayLike) -> Boxes:
    """Boxes in an image with each side moved, clipped to the image; none of them loses its area.

    Args:
        boxes: (N, 4) xyxy in the image.
        moves: (N, 4) of left, top, right and bottom, in widths and heights of the box; each in (-0.5, 0.5).
        height, width: of the image in pixels, one for all or (N,).

    >>> move_sides([[10, 10, 30, 20]], [[-0.25, 0.1, 0.0, 0.4]], 22, 40).tolist()
    [[5.0, 11.0, 30.0, 22.0]]
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)  # (N, 4): width, height, twice
    return clip_boxes(boxes + np.asarray(moves) * sides, height, width)


def box_area(boxes: ArrayLike) -> NDArray[np.float64]:
    """(N,) areas in square pixels; zero for a box without area, turned-over ones included."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.clip(boxes[:, 2] - boxes[:, 0], 0.0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0.0, None)


def has_area(boxes: ArrayLike) -> NDArray[np.bool_]:
    """(N,) whether both sides of the box are longer than zero."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
