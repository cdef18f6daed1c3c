"""Where the pixels of an image and the samples of a grid over a box lie along one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.geometry.boxes import Boxes
from deepmac_distill.lattice import LEAST_CELLS, Lattice

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Axis:
    """Of N boxes and their images: x from left to right, or y from top to bottom."""

    first: Ints  # (N,) the first pixel in the box
    last: Ints  # (N,) the first pixel after it
    start: Floats  # (N,) where pixel 0 is, on the axis that the box is given on
    step: Floats  # (N,) from one pixel to the next
    low: Floats  # (N,) where the box begins
    cell: Floats  # (N,) from one sample to the next
    ahead: float  # where the box begins, in cells from one cell before its first sample

    def samples(self, owner: Ints, pixel: Ints) -> Floats:
        """(P,) where pixels lie among the samples of their boxes, of which the first is 1."""
        at = self.start[owner] + self.step[owner] * pixel - self.low[owner]
        found: Floats = at / self.cell[owner] + self.ahead
        return found

    def pixels(self, owner: Ints, sample: Ints, beyond: Floats) -> Floats:
        """(P,) where places `beyond` samples, which count from 1, lie among the pixels."""
        at = self.low[owner] + (sample - self.ahead + beyond) * self.cell[owner]
        found: Floats = (at - self.start[owner]) / self.step[owner]
        return found


def axis_of(low: Floats, high: Floats, limits: Ints, size: int, lattice: Lattice) -> Axis:
    """The axis of grids with `size` cells a side.

    Args:
        low, high: (N,) sides of the boxes, in pixels.
        limits: (N,) widths or heights of their images.

    Raises:
        ValueError: the lattice needs more cells.
    """
    if lattice == "centers":
        first, last = pixel_range(low, high, limits)
        halves, ones = np.full(len(low), 0.5), np.ones(len(low))
        return Axis(first, last, halves, ones, low, (high - low) / size, 0.5)
    if size < LEAST_CELLS:
        raise ValueError(f"grids: got {size} cells a side, expected {LEAST_CELLS} or more on {lattice}")
    several = limits > 1  # a single pixel lies in the middle
    step = np.where(several, limits / np.maximum(limits - 1, 1), 1.0)
    start = np.where(several, 0.0, 0.5)
    # A pixel on either side of the box is inside. (n (n - 1) / n is exact, n / (n / (n - 1)) need not be.)
    scale = np.where(several, limits - 1, 1)
    divisor = np.where(several, limits, 1)
    first = np.ceil(low * scale / divisor - start)
    last = np.floor(high * scale / divisor - start) + 1
    first = np.clip(first, 0, limits).astype(np.int64)
    last = np.clip(last, first, np.maximum(limits, first)).astype(np.int64)
    return Axis(first, last, start, step, low, (high - low) / (size - 1), 1.0)


def pixel_range(low: Floats, high: Floats, limit: Ints) -> tuple[Ints, Ints]:
    """First pixel whose center is at or after `low`, and first at or after `high`, within [0, limit]."""
    first = np.clip(np.ceil(low - 0.5), 0, limit).astype(np.int64)
    return first, np.clip(np.ceil(high - 0.5), first, np.maximum(limit, first)).astype(np.int64)


def covered_boxes(boxes: Boxes, size: int, lattice: Lattice) -> Boxes:
    """(N, 4) what the cells of grids over (N, 4) boxes cover, each cell around its own sample.

    On "centers" the boxes themselves; on "reference" half a cell more on each side, since the outermost
    samples lie on the sides of the box. So a grid on either lattice is one of equal cells over a box.

    >>> covered_boxes(np.array([[0.0, 0, 30, 60]]), 4, "reference").tolist()
    [[-5.0, -10.0, 35.0, 70.0]]
    """
    if lattice == "centers":
        return boxes
    margin = np.tile((boxes[:, 2:] - boxes[:, :2]) / (2 * (size - 1)), 2) * [-1, -1, 1, 1]
    covered: Boxes = boxes + margin
    return covered
