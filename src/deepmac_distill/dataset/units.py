"""Boxes in shares of their image or as corners: what no number alone gives away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.findings import EDGE_TOLERANCE_PX, Finding


def are_shares(boxes_xywh: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) boxes with an area that do not leave the first pixel of a larger image, and do not fill it.

    Args:
        sizes: (N, 2) height and width of the images; 0 where not known.
    """
    x, y, w, h = boxes_xywh.T
    within = (x >= 0) & (y >= 0) & (x + w <= 1) & (y + h <= 1) & (w > 0) & (h > 0)
    found: NDArray[np.bool_] = within & ((w < 1) | (h < 1)) & (sizes > 1).all(axis=1)
    return found


class Corners:
    """Counts whether the boxes of a file may be corners, [x1, y1, x2, y2]."""

    def __init__(self) -> None:
        self._boxes = self._outside = 0
        self._fit = True

    def add(self, boxes_xywh: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
        """Look at more boxes, on images of these sizes; those without four numbers or a size do not count."""
        known = (sizes > 0).all(axis=1) & (boxes_xywh != 0).any(axis=1)
        x, y, w, h = boxes_xywh[known].T
        height, width = sizes[known].T
        self._boxes += len(x)
        self._outside += int(
            ((x + w > width + EDGE_TOLERANCE_PX) | (y + h > height + EDGE_TOLERANCE_PX)).sum()
        )
        ordered = (w > x) & (h > y) & (x >= 0) & (y >= 0)
        inside = (w <= width + EDGE_TOLERANCE_PX) & (h <= height + EDGE_TOLERANCE_PX)
        self._fit &= bool((ordered & inside).all())

    def findings(self) -> list[Finding]:
        """A doubt where every box fits its image as corners, and some leave it as they are read."""
        if not (self._fit and self._outside and self._boxes > 1):
            return []
        message = (
            f"bbox: {self._outside} of {self._boxes} leave their image as [x, y, width, height], and all are "
            "inside as corners [x1, y1, x2, y2]; expected the former"
        )
        return [Finding("doubt", "entry", message)]


def finding_of(bbox: list[float], all_are: bool) -> Finding:
    """What is wrong with such a box: where all boxes of a file are such, nothing else can be meant."""
    message = f"bbox {[round(value, 4) for value in bbox]} is inside the first pixel"
    if all_are:
        return Finding("error", "entry", f"{message}, as is every box: shares of the image; expected pixels")
    return Finding("doubt", "entry", f"{message}: is it in shares of the image? expected pixels")
