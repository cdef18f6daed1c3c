"""Arithmetic over many polygons at once: which are suspects, which surely cover a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.dataset.findings import FAR_PX, LONGEST_PX

POLYGONS = pa.list_(pa.list_(pa.float64()))  # parts of flat x, y in pixels of the image
LARGEST = 1e15  # beyond it float64 loses whole pixels
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class FlatPolygons:
    """The polygons of N rows, P parts and V numbers, without Python objects."""

    values: Floats  # (V,)
    null_values: bool  # whether a number or a part is missing
    parts: Ints  # (P + 1,) offsets into values
    rows: Ints  # (N + 1,) offsets into parts

    @classmethod
    def of(cls, column: pa.ListArray) -> FlatPolygons:
        """Look into an Arrow column of type POLYGONS; nothing is copied but the offsets."""
        inner = column.values
        values = inner.values
        rows = column.offsets.to_numpy().astype(np.int64)
        parts = inner.offsets.to_numpy().astype(np.int64)[rows[0] : rows[-1] + 1]
        shown = values.slice(parts[0], parts[-1] - parts[0])
        null = bool(inner.slice(rows[0], rows[-1] - rows[0]).null_count or shown.null_count)
        return cls(shown.to_numpy(zero_copy_only=False), null, parts - parts[0], rows - rows[0])

    def rows_with(self, parts: Bools) -> Bools:
        """(N,) rows of which a part is true in (P,)."""
        return _any(parts, self.rows)

    @cached_property
    def lengths(self) -> Ints:
        """(P,) numbers in each part."""
        return np.diff(self.parts)

    def malformed(self) -> Bools:
        """(P,) parts of an odd count of numbers, or with one that is not finite."""
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(self.values) < LARGEST)
        odd: Bools = self.lengths % 2 == 1
        return odd | _any(bad, self.parts)

    def bounds(self) -> Floats:
        """(P, 4) tight boxes xyxy of well-formed parts; nan for a part without a number."""
        found = np.full((len(self.lengths), 4), np.nan)
        full = self.lengths > 0
        starts = self.parts[:-1][full] // 2
        if len(starts):
            for axis in (0, 1):
                found[full, axis] = np.minimum.reduceat(self.values[axis::2], starts)
                found[full, axis + 2] = np.maximum.reduceat(self.values[axis::2], starts)
        return found

    def row_bounds(self) -> Floats:
        """(N, 4) tight boxes xyxy over all parts of a row; nan where there is none."""
        found = np.full((len(self.rows) - 1, 4), np.nan)
        full = np.diff(self.rows) > 0
        if full.any():
            bounds, starts = self.bounds(), self.rows[:-1][full]
            found[full, :2] = np.fmin.reduceat(bounds[:, :2], starts)
            found[full, 2:] = np.fmax.reduceat(bounds[:, 2:], starts)
        return found

    def surely_drawn(self, sizes: Ints) -> Bools:
        """(N,) rows that cover a pixel of their image beyond doubt; others have to be rasterized.

        A polygon that does not cross itself holds a disc of radius area / perimeter, and a disc of radius 1
        holds the center of a pixel. One that turns once as a whole is taken for such.

        Args:
            sizes: (N, 2) height and width of the images.
        """
        limits = np.repeat(sizes[:, ::-1], np.diff(self.rows), axis=0)  # (P, 2) width, height
        bounds = self.bounds()
        inside = (bounds[:, :2] >= 0).all(axis=1) & (bounds[:, 2:] <= limits).all(axis=1)
        return self.rows_with(inside & (self.lengths >= 6) & self._holds_a_disc())

    @cached_property
    def turn_once(self) -> Bools:
        """(P,) parts whose outline turns once as a whole, as those that do not cross themselves do."""
        x, y = self.values[0::2], self.values[1::2]
        points = self.parts // 2
        dx, dy = _to_next(x, points), _to_next(y, points)
        moves = (dx != 0) | (dy != 0)
        edges = np.concatenate(([0], np.cumsum(moves)))[points]
        dx, dy = dx[moves], dy[moves]
        next_dx, next_dy = dx + _to_next(dx, edges), dy + _to_next(dy, edges)
        turns = _sum(np.arctan2(dx * next_dy - dy * next_dx, dx * next_dx + dy * next_dy), edges)
        once: Bools = np.round(np.abs(turns) / (2 * np.pi)) == 1
        return once

    @cached_property
    def perimeters(self) -> Floats:
        """(P,) px along the outlines of well-formed parts."""
        x, y = self.values[0::2], self.values[1::2]
        points = self.parts // 2
        return _sum(np.hypot(_to_next(x, points), _to_next(y, points)), points)

    def _holds_a_disc(self) -> Bools:
        x, y = self.values[0::2], self.values[1::2]
        points = self.parts // 2
        dx, dy = _to_next(x, points), _to_next(y, points)
        area = np.abs(_sum(x * dy - y * dx, points)) / 2
        return self.turn_once & (area > self.perimeters)

    def too_large(self, sizes: Ints) -> Bools:
        """(N,) rows that leave their (N, 2) images by more than FAR_PX, or are longer than LONGEST_PX."""
        bounds = self.row_bounds()
        with np.errstate(invalid="ignore"):
            low, high = bounds[:, :2] < -FAR_PX, bounds[:, 2:] > sizes[:, ::-1] + FAR_PX
        return np.asarray((low | high).any(axis=1) | (_sum(self.perimeters, self.rows) > LONGEST_PX))


def _any(flags: Bools, offsets: Ints) -> Bools:
    """Whether any flag is true between neighboring offsets."""
    if not flags.any():
        return np.zeros(len(offsets) - 1, dtype=bool)
    counts = np.concatenate(([0], np.cumsum(flags)))[offsets]
    return np.diff(counts) > 0


def _sum(values: Floats, offsets: Ints) -> Floats:
    """Sums between neighboring offsets; 0 over nothing."""
    found = np.zeros(len(offsets) - 1)
    full = np.diff(offsets) > 0
    if full.any():
        found[full] = np.add.reduceat(values, offsets[:-1][full])
    return found


def _to_next(values: Floats, offsets: Ints) -> Floats:
    """Differences to the next value of the same ring; from the last to the first."""
    following = np.arange(1, len(values) + 1)
    full = np.diff(offsets) > 0
    following[offsets[1:][full] - 1] = offsets[:-1][full]
    return values[following] - values
