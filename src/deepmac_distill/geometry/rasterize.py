"""Turns source masks into grids over a box: the covered share of every cell, exactly.

Both rasterizers sum signed areas, the way fonts are drawn: what a border leaves on its far side is added
where it opens and taken away where it closes, so nothing is sampled and nothing outside the box is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmac_distill.geometry.rle import decode_counts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def rasterize_polygons(polygons: Sequence[ArrayLike], box: ArrayLike, size: int) -> NDArray[np.uint8]:
    """(size, size) coverage of the box's cells by a union of polygons, 255 = all of the cell.

    All parts are wound alike, so their direction does not matter. Where parts overlap, a cell holds the sum
    of their shares, at most 1: exact for disjoint parts and inside of overlaps. pycocotools instead tests
    points on a grid five times as fine as the pixels it is given.

    Args:
        polygons: parts, each a flat x, y, x, y, ... in image pixels; closed by themselves.
        box: (4,) xyxy in image pixels, with area.

    Raises:
        ValueError: the box has no area.

    >>> rasterize_polygons([[0, 0, 2, 0, 2, 1, 0, 1]], (0, 0, 2, 2), 2).tolist()
    [[255, 255], [0, 0]]
    """
    x, y, same_edge = _pieces(*_edges(polygons, box, size), size)
    fall = (y[1:] - y[:-1]) * same_edge  # signed height of each piece; it is zero beyond the grid
    middle = (x[1:] + x[:-1]) / 2
    column = middle.astype(np.int64)
    cell = ((y[1:] + y[:-1]) / 2).astype(np.int64) * (size + 2) + column
    right = fall * (column + 1 - middle)  # the part of the cell to the right of the piece
    cells = (size + 1) * (size + 2)
    area = np.bincount(cell, right, cells) + np.bincount(cell + 1, fall - right, cells)
    coverage = area.reshape(size + 1, size + 2).cumsum(axis=1)[:size, :size]
    return _quantized(np.abs(coverage))


def rasterize_rle(counts: bytes, height: int, width: int, box: ArrayLike, size: int) -> NDArray[np.uint8]:
    """(size, size) coverage of the box's cells by a COCO mask, whose pixels are unit squares, 255 = all.

    Args:
        counts: compressed COCO code of a height x width image.
        box: (4,) xyxy in image pixels, with area.

    Raises:
        ValueError: the code is not of that image, or the box has no area.
    """
    x1, y1, x2, y2 = _sides(box)
    borders = decode_counts(counts).cumsum()
    if borders[-1:].tolist() != [height * width]:
        raise ValueError(f"counts: got {borders[-1:].sum()} pixels, expected {height} x {width}")
    first, last = max(int(x1), 0), min(int(np.ceil(x2)), width)  # the columns that touch the box
    borders = borders[: len(borders) // 2 * 2].clip(first * height, max(first, last) * height)
    column, top, bottom = _cut_at_columns(borders[0::2], borders[1::2], height)
    # Height covered in each cell: the part above the feet of the pieces, less the part above their tops.
    rows = np.concatenate((bottom, top))
    sign = np.repeat([1.0, -1.0], len(column))
    y = ((rows - y1) * (size / (y2 - y1))).clip(0, size)
    row = y.astype(np.int64)
    part = sign * (y - row)  # of the cell that holds the border; the cells above it count in full
    cell = np.tile((column - first) * (size + 2), 2) + row
    columns = max(last - first, 0)
    cells = columns * (size + 2)
    covered = np.bincount(cell + 1, part, cells) + np.bincount(cell, sign - part, cells)
    covered = covered.reshape(columns, size + 2)[:, ::-1].cumsum(axis=1)[:, -2:0:-1]  # (W', S)
    x = (np.arange(first, first + columns + 1) - x1) * (size / (x2 - x1))
    return _quantized(covered.T @ _overlap(x[:-1, None], x[1:, None], size))


def resample_grid(grid: NDArray[np.uint8], box: ArrayLike, part: ArrayLike, size: int) -> NDArray[np.uint8]:
    """(size, size) mean of a grid of cells over `box` in each cell of `part`, zero outside the box.

    The grid counts as constant within its cells, so that the same box at the same size gives the same grid.

    Args:
        grid: (S, S) uint8.
        box, part: (4,) xyxy in the same pixels, with area.

    Raises:
        ValueError: a box has no area.

    >>> resample_grid(np.array([[0, 100], [200, 255]], np.uint8), (0, 0, 4, 4), (2, 0, 4, 4), 2).tolist()
    [[100, 100], [255, 255]]
    """
    left, top, right, bottom = _sides(box)
    x1, y1, x2, y2 = _sides(part)
    cells = np.arange(size + 1) / size
    x = (x1 + cells * (x2 - x1) - left) * (grid.shape[1] / (right - left))
    y = (y1 + cells * (y2 - y1) - top) * (grid.shape[0] / (bottom - top))
    across = _overlap(x[:-1, None], x[1:, None], grid.shape[1]) / (x[1:] - x[:-1])[:, None]
    down = _overlap(y[:-1, None], y[1:, None], grid.shape[0]) / (y[1:] - y[:-1])[:, None]
    return _quantized(down @ (grid / 255) @ across.T)


def _cut_at_columns(start: Ints, end: Ints, height: int) -> tuple[Ints, Ints, Ints]:
    """Column, top and bottom (half-open) of the pieces of runs, cut where they go on over a column's foot."""
    start, end = start[end > start], end[end > start]
    pieces = (end - 1) // height - start // height + 1
    column = np.arange(pieces.sum()) + np.repeat(start // height - (pieces.cumsum() - pieces), pieces)
    top = np.maximum(np.repeat(start, pieces) - column * height, 0)
    bottom = np.minimum(np.repeat(end, pieces) - column * height, height)
    return column, top, bottom


def _edges(polygons: Sequence[ArrayLike], box: ArrayLike, size: int) -> tuple[Floats, Floats]:
    """Start and end of every edge, (2, E) x and y in cells, each part wound so that its area is positive."""
    x1, y1, x2, y2 = _sides(box)
    starts, ends = [np.empty((2, 0))], [np.empty((2, 0))]
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T - [[x1], [y1]]
        following = np.concatenate((points[:, 1:], points[:, :1]), axis=1)
        clockwise = points[0] @ following[1] > points[1] @ following[0]
        starts.append(points if clockwise else following)
        ends.append(following if clockwise else points)
    cells = np.array([[size / (x2 - x1)], [size / (y2 - y1)]])
    return np.concatenate(starts, axis=1) * cells, np.concatenate(ends, axis=1) * cells


def _pieces(start: Floats, end: Floats, size: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """The edges cut at every grid line, so that each piece lies in one cell, and pulled in to the grid.

    Returns:
        x, y (P,) of the points along the edges, and (P - 1,) whether two neighbors lie on one edge.
    """
    n = start.shape[1]
    a, b = start.ravel(), end.ravel()  # (2E,) all x, then all y
    first = np.ceil(np.maximum(np.minimum(a, b), 0))
    crossed = np.floor(np.minimum(np.maximum(a, b), size)) - first + 1
    crossed = (np.maximum(crossed, 0) * (a != b)).astype(np.int64)
    owner = np.repeat(np.arange(2 * n), crossed)
    line = np.arange(len(owner)) + np.repeat(first - (crossed.cumsum() - crossed), crossed)
    along = (line - a[owner]) / (b - a)[owner]  # where on the edge, from 0 to 1
    ends = np.arange(2.0 * n)
    key = np.sort(np.concatenate((ends, 2 * (owner % max(n, 1)) + along)))  # 2 * edge + along
    edge = key.astype(np.int64) >> 1
    x, y = start[:, edge] + (key - 2 * edge) * (end - start)[:, edge]
    return x.clip(0, size), y.clip(0, size), edge[1:] == edge[:-1]


def _overlap(low: ArrayLike, high: ArrayLike, size: int) -> Floats:
    """(..., size): how much of the interval from low to high lies in each unit cell."""
    cells = np.arange(size)
    covered: Floats = np.minimum(high, cells + 1) - np.maximum(low, cells)
    return np.maximum(covered, 0)


def _quantized(coverage: Floats) -> NDArray[np.uint8]:
    return (np.minimum(np.maximum(coverage, 0), 1) * 255 + 0.5).astype(np.uint8)


def _sides(box: ArrayLike) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64).tolist()
    if not (x2 > x1 and y2 > y1):
        raise ValueError(f"box: got {(x1, y1, x2, y2)}, expected x2 > x1 and y2 > y1")
    return x1, y1, x2, y2
