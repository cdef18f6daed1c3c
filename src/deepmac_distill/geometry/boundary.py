"""Boundary IoU: how well two masks agree near their edges, whatever their insides do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.geometry.rle import decode_counts

RATIO = 0.02  # of the image's diagonal: the paper's choice for COCO

Pixels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Patch:
    """Some pixels of an image around everything in it that is foreground."""

    pixels: Pixels  # (w, h): columns of the image, as COCO codes run
    left: int
    top: int


def boundary_distance(height: int, width: int) -> int:
    """How far from its edge a pixel of a mask may lie and still belong to its boundary, in pixels.

    >>> boundary_distance(480, 640), boundary_distance(10, 10)
    (16, 1)
    """
    return max(round(RATIO * math.sqrt(height**2 + width**2)), 1)


def mask_boundary(counts: bytes, height: int, width: int) -> Patch:
    """The pixels of a mask that are at most `boundary_distance` from a pixel outside it.

    Boundary IoU (arXiv:2103.16562), equal to the last pixel to its public code, which erodes the whole image
    that many times with a 3 x 3 square: distances are those of a square's rings, and all that lies beyond the
    image is outside. The cost is that of the mask's own columns.

    Args:
        counts: compressed COCO counts.
        height, width: of the image in pixels.
    """
    patch = decode_patch(counts, height)
    reach = boundary_distance(height, width)
    core = _full_windows(_full_windows(patch.pixels, 2 * reach + 1).T, 2 * reach + 1).T
    boundary = patch.pixels.copy()
    boundary[reach : reach + core.shape[0], reach : reach + core.shape[1]] &= ~core
    return Patch(boundary, patch.left, patch.top)


def decode_patch(counts: bytes, height: int) -> Patch:
    """The pixels of a mask, without the columns and rows of the image that hold none of them."""
    ends = np.cumsum(decode_counts(counts))
    starts, ends = ends[: len(ends) // 2 * 2 : 2], ends[1::2]  # of the foreground's runs
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return Patch(np.zeros((0, 0), dtype=bool), 0, 0)
    left, right = starts[0] // height, (ends[-1] - 1) // height + 1
    bounds = np.concatenate(([left * height], np.stack((starts, ends), axis=1).ravel(), [right * height]))
    kinds = np.arange(len(bounds) - 1) % 2 == 1
    strip = np.repeat(kinds, np.diff(bounds)).reshape(right - left, height)
    rows = np.flatnonzero(strip.any(axis=0))
    return Patch(strip[:, rows[0] : rows[-1] + 1], int(left), int(rows[0]))


def patch_iou(a: Patch, b: Patch) -> float:
    """Intersection over union of the foreground of two patches of one image; 0 where both are empty."""
    overlap = _part(a, b) & _part(b, a)
    both = int(np.count_nonzero(overlap))
    either = int(np.count_nonzero(a.pixels) + np.count_nonzero(b.pixels)) - both
    return both / either if either else 0.0


def _part(patch: Patch, other: Patch) -> Pixels:
    """The pixels of `patch` that `other` has too."""
    (w, h), (other_w, other_h) = patch.pixels.shape, other.pixels.shape
    left, right = (other.left - patch.left, other.left + other_w - patch.left)
    top, bottom = (other.top - patch.top, other.top + other_h - patch.top)
    return patch.pixels[max(left, 0) : max(min(right, w), 0), max(top, 0) : max(min(bottom, h), 0)]


def _full_windows(pixels: Pixels, size: int) -> Pixels:
    """(n - size + 1, m) of (n, m): whether all of the `size` pixels from this one on are set.

    Windows double in length, so that the number of passes is that of the digits of `size`.
    """
    if size > len(pixels):
        return pixels[:0]
    reach = 1
    while 2 * reach <= size:
        pixels, reach = pixels[: len(pixels) - reach] & pixels[reach:], 2 * reach
    rest = size - reach
    return pixels[: len(pixels) - rest] & pixels[rest:]
