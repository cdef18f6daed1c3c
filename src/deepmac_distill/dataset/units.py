"""Boxes in shares or percent of an image, as corners or by their middles: what no number alone gives away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.findings import EDGE_TOLERANCE_PX, Finding

NEAR_PX = 1.5
LEAST = 0.95  # of boxes inside the first pixel of their image: no photographs have these
LEAST_OF_NEAR = 0.5
CORNERS, MIDDLE = "corners [x1, y1, x2, y2]", "middle and size [cx, cy, width, height]"
LEAST_BOXES = {
    CORNERS: 2,
    MIDDLE: 20,
}  # of a file: some boxes away from the left and upper edges fit the latter
PERCENT_PX = 100.5  # of boxes in percent of their image, with what rounding adds
LARGE_PX = 200  # of both sides of an image: a box in percent is then at most half as long as it should be
LEAST_SPREAD = 80  # percent that boxes of photographs reach, and boxes of a small corner do not


def are_shares(boxes_xywh: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) boxes with an area that do not leave the first pixel of a larger image, and do not fill it.

    Args:
        sizes: (N, 2) height and width of the images; 0 where not known.
    """
    x, y, w, h = boxes_xywh.T
    within = (x >= 0) & (y >= 0) & (x + w <= 1) & (y + h <= 1) & (w > 0) & (h > 0)
    found: NDArray[np.bool_] = within & ((w < 1) | (h < 1)) & (sizes > 1).all(axis=1)
    return found


class Shares:
    """Counts whether the boxes of a file are shares of their images, be there odd ones among them.

    They are where nearly all are inside the first pixel, or half of them and no box leaves `NEAR_PX`: shares
    that overhang, fill their image, or hold the middle of a box (at most 1 + 1/2), are not inside it.
    """

    def __init__(self) -> None:
        self._boxes = 0
        self._near = True
        self._found: list[tuple[int, list[float]]] = []

    def add(self, start: int, boxes_xywh: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
        """Look at more boxes, the first of which is in row `start`; those without an area do not count."""
        x, y, w, h = boxes_xywh[(boxes_xywh[:, 2:] > 0).all(axis=1)].T
        self._boxes += len(x)
        inside = (np.minimum(x, y) >= 1 - NEAR_PX) & (np.maximum(x + w, y + h) <= NEAR_PX)
        self._near &= bool(inside.all())
        for row in np.flatnonzero(are_shares(boxes_xywh, sizes)).tolist():
            self._found.append((start + row, boxes_xywh[row].tolist()))

    def findings(self) -> Iterator[tuple[int, Finding]]:
        """Rows of boxes inside the first pixel, and errors where nothing else can be meant; else doubts."""
        least = LEAST_OF_NEAR if self._near else LEAST
        sure = len(self._found) >= least * self._boxes
        others = (
            "is every box" if len(self._found) == self._boxes else f"are {len(self._found)} of {self._boxes}"
        )
        for row, box in self._found:
            message = f"bbox {[round(value, 4) for value in box]} is inside the first pixel"
            if sure:
                said = f"{message}, as {others}: shares of the image; expected pixels"
                yield row, Finding("error", "entry", said)
            else:
                said = f"{message}: is it in shares of the image? expected pixels"
                yield row, Finding("doubt", "entry", said)


class OtherForms:
    """Counts whether the boxes of a file may be corners, [x1, y1, x2, y2], or hold the middle of a box."""

    def __init__(self) -> None:
        self._boxes = self._outside = 0
        self._fit = {CORNERS: True, MIDDLE: True}

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
        for form, right, bottom, fits in zip(
            self._fit, (w, x + w / 2), (h, y + h / 2), (ordered, (x >= w / 2) & (y >= h / 2)), strict=True
        ):
            inside = (right <= width + EDGE_TOLERANCE_PX) & (bottom <= height + EDGE_TOLERANCE_PX)
            self._fit[form] &= bool((fits & inside).all())

    def findings(self) -> list[Finding]:
        """A doubt where every box fits its image in another form, and some leave it as they are read."""
        fit = [form for form, fits in self._fit.items() if fits and self._boxes >= LEAST_BOXES[form]]
        if not fit or not self._outside:
            return []
        message = (
            f"bbox: {self._outside} of {self._boxes} leave their image as [x, y, width, height], and all are "
            f"inside as {fit[0]}; expected the former"
        )
        return [Finding("doubt", "entry", message)]


class Percent:
    """Counts whether the boxes of a file may be in percent of large images, as in Label Studio's own JSON.

    They are where none leaves the first hundred pixels, on images all of which are twice as large. Objects
    may be there alone, as of a camera that looks at one corner, so it is never sure.
    """

    def __init__(self) -> None:
        self._boxes, self._fit = 0, True
        self._reach = np.zeros(2)
        self._smallest = np.inf

    def add(self, boxes_xywh: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
        """Look at more boxes, on images of these sizes; those without an area or a size do not count."""
        known = (sizes > 0).all(axis=1) & (boxes_xywh[:, 2:] > 0).all(axis=1)
        if not self._fit or not known.any():
            return
        ends = boxes_xywh[known, :2] + boxes_xywh[known, 2:]
        self._boxes += len(ends)
        self._reach = np.maximum(self._reach, ends.max(axis=0))
        self._smallest = min(self._smallest, sizes[known].min())
        self._fit = bool((self._reach <= PERCENT_PX).all() and self._smallest >= LARGE_PX)

    def findings(self) -> list[Finding]:
        """A doubt where all boxes fit, reach most of a hundred, and are enough to know."""
        if not self._fit or self._boxes < LEAST_BOXES[MIDDLE] or (self._reach < LEAST_SPREAD).any():
            return []
        message = (
            f"bbox: all {self._boxes} are in the first hundred pixels of images of at least "
            f"{self._smallest:.0f}: are they in percent of the image? expected pixels"
        )
        return [Finding("doubt", "entry", message)]
