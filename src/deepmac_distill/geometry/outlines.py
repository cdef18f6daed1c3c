"""A mask becomes polygons: its outlines are traced, made simpler, and where a format asks for it joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]  # (P, 2) x and y in pixels; the last point joins the first
Course = Literal["edges", "centers"]  # of an outline: between pixels, or through the outermost of the mask
TOLERANCE_PX = 0.4  # below half a pixel, so that steps become slopes and hardly a pixel changes sides
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """One connected part of a mask."""

    outline: Ring
    holes: tuple[Ring, ...] = ()


def parts_of(mask: NDArray[np.bool_], course: Course = "edges", tolerance_px: float = 0.0) -> list[Part]:
    """The connected parts (4-neighbors) of a mask, the largest first; outlines clockwise, holes not.

    Coordinates are COCO's: pixel i reaches from i to i + 1. Along `edges`, whatever fills a ring by the
    centers of pixels gives the mask back: the ring runs between pixels, or with a tolerance through the
    middles of their edges. Through `centers`, whatever cuts or rounds coordinates to whole pixels and draws
    the outline with its inside, as `cv2.fillPoly` and Pillow do, gives it back; those would draw the others
    too large by a pixel.

    With a tolerance rings are simplified (Douglas and Peucker, Cartographica 10(2), 1973): none of their
    points was further away. A ring that would turn inside out, or lose its area, keeps its points.

    Args:
        mask: (H, W).

    >>> [part] = parts_of(np.array([[0, 1, 1], [0, 1, 1]], bool))
    >>> part.outline.tolist()
    [[1.0, 0.0], [3.0, 0.0], [3.0, 2.0], [1.0, 2.0]]
    """
    outer: list[Ring] = []
    inner: list[Ring] = []
    for ring in _rings(mask):
        x, y = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]].astype(int)  # the pixel below it is inside
        (outer if mask[y, x] else inner).append(ring)
    outer.sort(key=lambda ring: -abs(signed_area(ring)))
    held: list[list[Ring]] = [[] for _ in outer]
    for hole in inner:
        held[_owner(hole, outer)].append(_finished(hole, -1, course, tolerance_px))
    return [
        Part(_finished(ring, 1, course, tolerance_px), tuple(holes))
        for ring, holes in zip(outer, held, strict=True)
    ]


def cut_open(part: Part) -> Ring:
    """One ring for a part with holes: each is joined to the outline by a slit without width."""
    ring = part.outline
    for hole in part.holes:
        ring = bridged(ring, hole)
    return ring


def joined(rings: Sequence[Ring]) -> Ring:
    """One ring for all: each next one is joined to those before it by a bridge without width."""
    ring = rings[0]
    for other in rings[1:]:
        ring = bridged(ring, other)
    return ring


def bridged(ring: Ring, other: Ring) -> Ring:
    """Both rings as one, along the shortest way between two of their points, there and back."""
    apart = ((ring[:, None] - other[None]) ** 2).sum(-1)
    at, to = np.unravel_index(int(apart.argmin()), apart.shape)
    round_trip = np.concatenate([other[to:], other[: to + 1]])
    return np.concatenate([ring[: at + 1], round_trip, ring[at:]])


def signed_area(ring: Ring) -> float:
    """The area of a ring, negative where it runs counterclockwise as seen on the image.

    >>> signed_area(np.array([[0.0, 0], [2, 0], [2, 1], [0, 1]]))
    2.0
    """
    x, y = (ring - ring[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """The exact outlines: rings of corners, along the edges of pixels, each point once.

    Corners of the outline are where an odd number of the four pixels around a point are foreground, and twice
    where two are that touch in this point alone. Along a row of points, and along a column, corners pair up.
    """
    padded = np.pad(mask, 1)
    tl, tr, bl, br = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    odd = tl ^ tr ^ bl ^ br
    falling, rising = tl & br & ~tr & ~bl, tr & bl & ~tl & ~br
    y, x = np.nonzero(odd | falling | rising)
    twice = (falling | rising)[y, x]
    swapped = np.repeat(rising[y, x], 1 + twice)
    y, x = np.repeat(y, 1 + twice), np.repeat(x, 1 + twice)
    if not len(x):
        return []
    # Which of two corners in one point comes first in its column decides that the pixels are not connected.
    second = np.r_[False, (y[1:] == y[:-1]) & (x[1:] == x[:-1])]
    in_column = np.where(swapped, ~second, second)
    across = _mates(np.lexsort((second, x, y)))
    down = _mates(np.lexsort((in_column, y, x)))
    return [np.stack([x[ring], y[ring]], 1).astype(np.float64) for ring in _cycles(across, down)]


def _mates(order: Ints) -> Ints:
    """(N,) the partner of each, where neighbors in this order pair up."""
    mates = np.empty_like(order)
    mates[order[0::2]], mates[order[1::2]] = order[1::2], order[0::2]
    return mates


def _cycles(across: Ints, down: Ints) -> list[Ints]:
    right, below = across.tolist(), down.tolist()
    fresh = [True] * len(right)
    rings = []
    for start in range(len(right)):
        ring, at = [], start
        while fresh[at]:
            to = right[at]
            ring += [at, to]
            fresh[at] = fresh[to] = False
            at = below[to]
        if ring:
            rings.append(np.array(ring))
    return rings


def _owner(hole: Ring, outer: Sequence[Ring]) -> int:
    """Which outline is the smallest around a hole; they are given from large to small."""
    x, y = hole[np.lexsort((hole[:, 0], hole[:, 1]))[0]]
    point = x + 0.5, y - 0.5  # the foreground pixel above its first edge
    return max(number for number, ring in enumerate(outer) if _holds(ring, *point))


def _holds(ring: Ring, x: float, y: float) -> bool:
    """Whether a rectilinear ring holds a point that is on no line of the grid."""
    if not ((ring.min(0) < (x, y)).all() and (ring.max(0) > (x, y)).all()):
        return False
    following = np.roll(ring, -1, axis=0)
    crosses = (ring[:, 1] > y) != (following[:, 1] > y)
    return bool((crosses & (ring[:, 0] < x)).sum() % 2)


def _finished(ring: Ring, sign: int, course: Course, tolerance: float) -> Ring:
    """An exact ring, wound as asked, on its course and simplified."""
    ring = ring if signed_area(ring) * sign > 0 else ring[::-1]
    if course == "centers":
        return _simplified(_through_centers(ring), tolerance)
    return ring if tolerance <= 0 else _simplified(_through_middles(ring), tolerance)


def _through_centers(ring: Ring) -> Ring:
    """Each corner moved to the pixel inside it, a quarter short of its center: cut or rounded it is there."""
    into, away = np.sign(ring - np.roll(ring, 1, axis=0)), np.sign(np.roll(ring, -1, axis=0) - ring)
    inward = np.stack([-into[:, 1] - away[:, 1], into[:, 0] + away[:, 0]], 1)  # a quarter turn clockwise
    return ring + inward / 2 - 0.25


def _through_middles(ring: Ring) -> Ring:
    """The middles of the first and the last pixel's edge of each side."""
    following = np.roll(ring, -1, axis=0)
    step = np.sign(following - ring) / 2
    points = np.stack([ring + step, following - step], 1).reshape(-1, 2)
    return points[np.r_[True, (points[1:] != points[:-1]).any(1)]]


def _simplified(ring: Ring, tolerance: float) -> Ring:
    if tolerance <= 0 or len(ring) < 4:
        return ring
    start = int(ring.sum(1).argmin())
    ring = np.roll(ring, -start, axis=0)
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    kept = np.zeros(len(closed), dtype=bool)
    kept[[0, far]] = True
    open_spans = [(0, far), (far, len(ring))]
    while open_spans:
        first, last = open_spans.pop()
        if last - first < 2:
            continue
        away = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(away.argmax())
        if away[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            open_spans += [(first, middle), (middle, last)]
    simple = ring[kept[:-1]]
    same_side = len(simple) >= 3 and signed_area(simple) * signed_area(ring) > 0
    return simple if same_side else ring


def _distances(points: Ring, start: Ring, end: Ring) -> NDArray[np.float64]:
    """(P,) how far points are from a segment."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / (length or 1.0), 0, 1)
    away: NDArray[np.float64] = np.hypot(*(points - start - share[:, None] * along).T)
    return away
