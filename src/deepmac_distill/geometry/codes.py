"""Many COCO run-length codes at once: whether they are sound, their areas and their tight boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]

_AT_ONCE = 256  # codes; keeps their digits in the cache
_MAX_DIGITS = 7  # of one length: 35 bits hold any image of less than 2^31 pixels, and its sign


@dataclass(frozen=True, slots=True)
class Extents:
    """Areas and tight boxes of N masks; zeros for a mask without a pixel."""

    areas: Ints  # (N,) pixels
    boxes_xywh: NDArray[np.float64]  # (N, 4)


def extents_of(codes: Sequence[bytes], heights: ArrayLike) -> Extents:
    """Areas and tight boxes of N sound codes, as pycocotools' `area` and `toBbox` give them one by one.

    Args:
        codes: compressed COCO counts.
        heights: (N,) or one for all, of the image in pixels.

    >>> extents_of([b"52203"], 4).boxes_xywh.tolist()
    [[1.0, 1.0, 2.0, 2.0]]
    """
    heights = np.broadcast_to(np.asarray(heights, dtype=np.int64), len(codes))
    parts = [_extents(codes[a:b], heights[a:b]) for a, b in pairwise(_cuts(len(codes)))]
    return Extents(
        np.concatenate([np.zeros(0, np.int64), *(part.areas for part in parts)]),
        np.concatenate([np.zeros((0, 4)), *(part.boxes_xywh for part in parts)]),
    )


def are_sound(codes: Sequence[bytes], pixels: ArrayLike) -> NDArray[np.bool_]:
    """(N,) whether each code has COCO's digits alone, and runs that cover its image of `pixels` exactly."""
    wanted = np.broadcast_to(np.asarray(pixels, dtype=np.int64), len(codes))
    parts = [_sound(codes[a:b], wanted[a:b]) for a, b in pairwise(_cuts(len(codes)))]
    return np.concatenate([np.zeros(0, bool), *parts])


def _cuts(n: int) -> list[int]:
    return [*range(0, n, _AT_ONCE), n]


def _sound(codes: Sequence[bytes], pixels: Ints) -> NDArray[np.bool_]:
    digits = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - 48
    sizes = np.array([len(code) for code in codes], np.int64)
    owner = np.repeat(np.arange(len(codes)), sizes)
    ends = (digits & 32) == 0
    closing = np.flatnonzero(ends)
    in_length = np.arange(len(digits)) - np.r_[-1, closing][np.cumsum(ends) - ends]  # from 1
    wrong = (digits < 0) | (digits > 63) | (in_length > _MAX_DIGITS)
    last = sizes.cumsum() - 1
    whole = sizes > 0
    whole[whole] = ends[last[whole]]  # a code that stops within a length would take from the next one
    whole &= np.bincount(owner[wrong], minlength=len(codes)) == 0
    if not whole.all():  # decode the sound ones alone
        sound = np.zeros(len(codes), dtype=bool)
        kept = np.flatnonzero(whole)
        sound[kept] = _sound([codes[at] for at in kept.tolist()], pixels[kept]) if len(kept) else True
        return sound
    lengths, starts, counts = _decoded(codes)
    if not len(codes):
        return np.zeros(0, dtype=bool)
    outside = (lengths < 0) | (lengths > np.repeat(pixels, counts))
    bad = np.bincount(np.repeat(np.arange(len(codes)), counts)[outside], minlength=len(codes))
    totals: Ints = np.add.reduceat(lengths, starts)
    return np.asarray((bad == 0) & (totals == pixels))


def _extents(codes: Sequence[bytes], heights: Ints) -> Extents:
    lengths, starts, counts = _decoded(codes)
    mask = np.repeat(np.arange(len(codes)), counts)
    place = np.arange(len(lengths)) - np.repeat(starts, counts)
    after = lengths.cumsum()
    after -= np.repeat(after[starts] - lengths[starts], counts)
    drawn = place % 2 == 1
    end = after[drawn]
    return extents_of_runs(mask[drawn], end - lengths[drawn], end, heights)


def extents_of_runs(mask: Ints, start: Ints, end: Ints, heights: Ints) -> Extents:
    """Areas and tight boxes of N masks from their foreground runs, ordered by mask; empty ones are skipped.

    Args:
        mask: (R,) which of the N masks a run belongs to.
        start, end: (R,) half-open, in pixels counted down the columns.
        heights: (N,) of the image of each mask.
    """
    drawn, n = end > start, len(heights)
    owner, start, end = mask[drawn], start[drawn], end[drawn]
    areas = np.bincount(owner, end - start, n).astype(np.int64)
    height = heights[owner]
    left, top = np.divmod(start, height)
    right, bottom = np.divmod(end - 1, height)
    over = right > left  # goes on over the foot of a column: it holds a top and a bottom pixel
    top[over], bottom[over] = 0, height[over] - 1
    corners = np.zeros((n, 4))
    filled = np.flatnonzero(areas)
    first = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]][: len(owner)])
    if len(first):
        corners[filled, 0], corners[filled, 1] = (np.minimum.reduceat(low, first) for low in (left, top))
        corners[filled, 2], corners[filled, 3] = (
            np.maximum.reduceat(high, first) + 1 for high in (right, bottom)
        )
    corners[:, 2:] -= corners[:, :2]
    return Extents(areas, corners)


def _decoded(codes: Sequence[bytes]) -> tuple[Ints, Ints, Ints]:
    """Run lengths of all codes, one after the other; where each code's start; how many each has."""
    digits = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - 48
    sizes = np.array([len(code) for code in codes], np.int64)
    ends = np.flatnonzero(digits < 32)  # bit 5 set: more digits follow
    begins = np.r_[0, ends[:-1] + 1][: len(ends)]
    shift = 5 * (np.arange(len(digits)) - np.repeat(begins, ends - begins + 1))
    lengths: Ints = np.add.reduceat((digits & 31) << shift, begins) if len(ends) else digits
    lengths -= ((digits[ends] & 16) << 1) << shift[ends]  # the last digit carries the sign
    stops = np.searchsorted(ends, sizes.cumsum() - 1, side="right")
    counts = np.diff(np.r_[0, stops])
    starts = stops - counts
    place = np.arange(len(lengths)) - np.repeat(starts, counts)
    for parity in (0, 1):  # from the fourth on, a length is given by how it differs from two before
        chain = np.flatnonzero((place % 2 == parity) & (place > 0))
        total = lengths[chain].cumsum()
        opens = np.flatnonzero(place[chain] <= 2)
        before = np.r_[0, total][opens]
        members = np.diff(np.r_[opens, len(chain)])
        lengths[chain] = total - np.repeat(before, members)
    return lengths, starts, counts
