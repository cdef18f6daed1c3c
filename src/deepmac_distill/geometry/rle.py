"""The analytic codec: turns a mask in a box into a COCO run-length code without a canvas.

A mask is described by where each image column enters and leaves it. COCO codes run down the columns, so
these crossings are the runs: the cost grows with the box's width and the grid's size, never with its area.
Pixel i has its center at i + 0.5, and a pixel is foreground when its center is. Grids on the lattice of
Deep-MAC's public code are pasted as that code does (`Lattice`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmac_distill.geometry.axis import Axis, axis_of, pixel_range
from deepmac_distill.geometry.codes import Extents, extents_of_runs
from deepmac_distill.lattice import Lattice

_COLUMNS_AT_ONCE = 4096  # keeps the samples of a chunk of masks in the cache
_TIE_PX = 1e-6  # a pixel center this near to a crossing is on it, hence background, however sums round
_MAX_IN_DIGITS = 2 ** (5 * np.arange(1, 13) - 1) - 1  # largest magnitude that 1, 2, ... signed digits hold

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Grids = NDArray[np.floating] | NDArray[np.uint8]


def encode_grids(
    grids: Grids,
    boxes: ArrayLike,
    heights: ArrayLike,
    widths: ArrayLike,
    threshold: ArrayLike = 0.5,
    lattice: Lattice = "centers",
) -> list[bytes]:
    """Compressed COCO counts of N soft masks, each a grid of cells over its own box.

    A pixel's probability is the bilinear interpolation of the grid's cell centers at the pixel's center,
    zero outside the grid (`F.grid_sample` with zero padding and align_corners=False); it is foreground
    where that exceeds `threshold` and its center lies in the box. Between two samples of a column the
    probability is linear, so the crossings are solved, not searched. On the lattice "reference" samples and
    pixels lie as in Deep-MAC's public code (its `reframe_box_masks_to_image_masks`).

    Args:
        grids: (N, S, S) float probabilities, or uint8 where 255 is 1.
        boxes: (N, 4) xyxy in image pixels; clipped to the image.
        heights, widths: (N,) or one for all, of the image in pixels.
        threshold: (N,) or one for all, in [0, 1).
        lattice: where the cells of the grids sample their boxes.

    Raises:
        ValueError: grids that are not square, or as many as boxes; a threshold out of range.
    """
    return [
        code
        for runs, tall, wide in _runs_of_grids(grids, boxes, heights, widths, threshold, lattice)
        for code in _encode_runs(*runs, tall * wide)
    ]


def encode_and_measure_grids(
    grids: Grids,
    boxes: ArrayLike,
    heights: ArrayLike,
    widths: ArrayLike,
    threshold: ArrayLike = 0.5,
    lattice: Lattice = "centers",
) -> tuple[list[bytes], Extents]:
    """`encode_grids`, and the areas and tight boxes of its masks, without decoding them again."""
    codes: list[bytes] = []
    parts = [Extents(np.zeros(0, np.int64), np.zeros((0, 4)))]
    for runs, tall, wide in _runs_of_grids(grids, boxes, heights, widths, threshold, lattice):
        codes += _encode_runs(*runs, tall * wide)
        parts.append(extents_of_runs(*runs, tall))
    areas, boxes_xywh = ([getattr(part, name) for part in parts] for name in ("areas", "boxes_xywh"))
    return codes, Extents(np.concatenate(areas), np.concatenate(boxes_xywh))


def encode_boxes(boxes: ArrayLike, heights: ArrayLike, widths: ArrayLike) -> list[bytes]:
    """Compressed COCO counts of N boxes as masks: the pixels whose center lies in the half-open box.

    Args:
        boxes: (N, 4) xyxy in image pixels; clipped to the image.
        heights, widths: (N,) or one for all, of the image in pixels.
    """
    boxes, heights, widths = _frames(boxes, heights, widths)
    first, last = pixel_range(boxes[:, 0], boxes[:, 2], widths)
    top, bottom = pixel_range(boxes[:, 1], boxes[:, 3], heights)
    mask, x = _columns(first, last)
    return _encode_runs(
        mask, x * heights[mask] + top[mask], x * heights[mask] + bottom[mask], heights * widths
    )


def encode_ellipses(boxes: ArrayLike, heights: ArrayLike, widths: ArrayLike) -> list[bytes]:
    """Compressed COCO counts of the ellipse inscribed in each box: the pixels whose center lies inside it.

    Args:
        boxes: (N, 4) xyxy in image pixels; clipped to the image.
        heights, widths: (N,) or one for all, of the image in pixels.
    """
    boxes, heights, widths = _frames(boxes, heights, widths)
    mask, x = _columns(*pixel_range(boxes[:, 0], boxes[:, 2], widths))
    x1, y1, x2, y2 = boxes[mask].T
    across = (2 * x + 1 - x1 - x2) / (x2 - x1)  # -1 at the left tip, 1 at the right
    half = (y2 - y1) / 2 * np.sqrt(np.clip(1 - across**2, 0, None))
    middle = (y1 + y2) / 2
    rows = heights[mask]
    top = np.clip(np.floor(middle - half - 0.5) + 1, 0, rows).astype(np.int64)
    bottom = np.clip(np.ceil(middle + half - 0.5), 0, rows).astype(np.int64)
    return _encode_runs(mask, x * rows + top, x * rows + bottom, heights * widths)


def decode_counts(counts: bytes) -> Ints:
    """The run lengths in a compressed COCO code, background first.

    >>> decode_counts(b"52203").tolist()
    [5, 2, 2, 2, 5]
    """
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(digits < 32)  # bit 5 set: more digits follow
    starts = np.concatenate(([0], ends[:-1] + 1))
    shift = 5 * (np.arange(len(digits)) - np.repeat(starts, ends - starts + 1))
    lengths = np.add.reduceat((digits & 31) << shift, starts)
    lengths -= ((digits[ends] & 16) << 1) << shift[ends]  # the last digit carries the sign
    # From the fourth on, the code holds a length's difference from the one before the last.
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def _runs_of_grids(
    grids: Grids,
    boxes: ArrayLike,
    heights: ArrayLike,
    widths: ArrayLike,
    threshold: ArrayLike,
    lattice: Lattice,
) -> Iterator[tuple[tuple[Ints, Ints, Ints], Ints, Ints]]:
    """Chunk by chunk: the runs of some grids (see `_grid_runs`), and the sizes of their images."""
    boxes, heights, widths = _frames(boxes, heights, widths)
    thresholds = np.broadcast_to(np.asarray(threshold, dtype=np.float64), len(boxes))
    if grids.ndim != 3 or grids.shape[1] != grids.shape[2] or len(grids) != len(boxes):
        raise ValueError(f"grids: got {grids.shape}, expected ({len(boxes)}, S, S)")
    outside = ~((thresholds >= 0) & (thresholds < 1))  # not a number is outside too
    if outside.any():
        raise ValueError(f"threshold: got {thresholds[outside][0]}, expected 0 <= threshold < 1")
    if grids.dtype == np.uint8:
        thresholds = thresholds * 255
    size = grids.shape[-1]
    counts = axis_of(boxes[:, 0], boxes[:, 2], widths, size, lattice)
    for part in _chunks(np.maximum(counts.last - counts.first, 0)):
        across = axis_of(boxes[part, 0], boxes[part, 2], widths[part], size, lattice)
        down = axis_of(boxes[part, 1], boxes[part, 3], heights[part], size, lattice)
        runs = _grid_runs(grids[part], across, down, heights[part], thresholds[part])
        yield runs, heights[part], widths[part]


def _grid_runs(
    grids: Grids, across: Axis, down: Axis, heights: Ints, thresholds: Floats
) -> tuple[Ints, Ints, Ints]:
    """Mask, start and end of the runs of n grids: where each pixel column rises and falls past its threshold.

    A sample of zero above and below every column makes rises and falls alternate.
    """
    n, size = len(grids), grids.shape[-1]
    mask, x = _columns(across.first, across.last)
    # Samples lie down the last axis, with a ring of zeros: sample k of a grid is k + 1 here.
    padded = np.zeros((n, size + 2, size + 2), dtype=np.float32)
    padded[:, 1:-1, 1:-1] = grids.transpose(0, 2, 1)
    position = across.samples(mask, x)
    left = np.clip(position.astype(np.int64), 0, size)
    row = mask * (size + 2) + left
    samples = padded.reshape(-1, size + 2)
    values = samples[row + 1]  # (columns, S + 2)
    values -= samples[row]
    values *= (position - left).astype(np.float32)[:, None]
    values += samples[row]
    inside = (values > thresholds.astype(np.float32)[mask][:, None]).view(np.int8).ravel()
    change = np.flatnonzero(inside[1:] != inside[:-1])  # no change spans two columns: both ends are outside
    column, k = np.divmod(change, size + 2)
    before, after = values.ravel()[change].astype(np.float64), values.ravel()[change + 1]
    owner = mask[column]
    y = down.pixels(owner, k, (thresholds[owner] - before) / (after - before))
    rows = np.empty_like(change)
    rows[0::2] = np.floor(y[0::2] + _TIE_PX) + 1  # the first pixel after a rise
    rows[1::2] = np.ceil(y[1::2] - _TIE_PX)  # the first pixel after a fall
    rows = np.clip(rows, down.first[owner], down.last[owner]) + x[column] * heights[owner]
    return owner[0::2], rows[0::2], rows[1::2]


def _encode_runs(mask: Ints, start: Ints, end: Ints, pixels: Ints) -> list[bytes]:
    """One COCO code per mask from its foreground runs, ordered by mask and position; empty ones are skipped.

    Args:
        mask: (R,) which of the N masks a run belongs to.
        start, end: (R,) half-open, in pixels counted down the columns.
        pixels: (N,) of the image of each mask.
    """
    kept = end > start
    mask, start, end = mask[kept], start[kept], end[kept]
    # A run that starts where the one before ended, as at the foot of a column, continues it.
    opens = np.ones(len(mask), dtype=bool)
    opens[1:] = (start[1:] != end[:-1]) | (mask[1:] != mask[:-1])
    mask, start, end = mask[opens], start[opens], end[np.append(opens[1:], True)[: len(opens)]]
    runs = np.bincount(mask, minlength=len(pixels))  # (N,)
    stop = runs.cumsum()
    filled = runs > 0
    previous = np.append(0, end[:-1])[: len(end)]
    previous[(stop - runs)[filled]] = 0
    tail = pixels.copy()
    tail[filled] -= end[stop[filled] - 1]
    # Each mask has background and foreground in turn, and the background after its last run.
    sizes = 2 * runs + 1
    last = sizes.cumsum() - 1
    at = 2 * np.arange(len(mask)) + mask
    lengths = np.empty(sizes.sum(), dtype=np.int64)
    lengths[at], lengths[at + 1], lengths[last] = start - previous, end - start, tail
    return _varints(lengths, last, sizes)


def _varints(lengths: Ints, last: Ints, sizes: Ints) -> list[bytes]:
    """COCO's code of each mask's run lengths: digits of five bits, the low ones first.

    Args:
        lengths: run lengths of all masks, one after the other.
        last: (N,) position of each mask's last length, which is left out when it is zero.
        sizes: (N,) how many lengths each mask has.
    """
    values = lengths.copy()
    values[2:] -= lengths[:-2]  # from the fourth on, the code holds the difference from two before
    for k in range(3):
        at = (last - sizes + 1 + k)[sizes > k]
        values[at] = lengths[at]
    digits = 1 + np.searchsorted(_MAX_IN_DIGITS, values ^ (values >> 63))
    digits[last] *= lengths[last] > 0
    stop = digits.cumsum()
    text = np.empty(digits.sum(), dtype=np.uint8)
    at, left = (stop - digits)[digits > 0], digits[digits > 0]
    values = values[digits > 0]
    while len(values):
        more = left > 1
        text[at] = (values & 31) + 32 * more + 48
        at, values, left = at[more] + 1, values[more] >> 5, left[more] - 1
    code = text.tobytes()
    return [code[a:b] for a, b in pairwise([0, *stop[last].tolist()])]


def _frames(boxes: ArrayLike, heights: ArrayLike, widths: ArrayLike) -> tuple[Floats, Ints, Ints]:
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    n = len(boxes)
    heights, widths = (np.asarray(side).astype(np.int64) for side in (heights, widths))
    return boxes, np.broadcast_to(heights, n), np.broadcast_to(widths, n)


def _columns(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """(mask, x) of every pixel column of every box, mask by mask."""
    counts = last - first
    mask = np.repeat(np.arange(len(first)), counts)
    return mask, np.arange(len(mask)) + np.repeat(first - (np.cumsum(counts) - counts), counts)


def _chunks(columns: Ints) -> list[slice]:
    """Slices of consecutive masks of about `_COLUMNS_AT_ONCE` columns each."""
    group = np.cumsum(columns) // _COLUMNS_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(columns)]
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]
