"""Boxes in shares of their image instead of pixels: what no number alone gives away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.findings import Finding


def are_shares(boxes_xywh: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) boxes with an area that do not leave the first pixel of a larger image, and do not fill it.

    Args:
        sizes: (N, 2) height and width of the images; 0 where not known.
    """
    x, y, w, h = boxes_xywh.T
    within = (x >= 0) & (y >= 0) & (x + w <= 1) & (y + h <= 1) & (w > 0) & (h > 0)
    found: NDArray[np.bool_] = within & ((w < 1) | (h < 1)) & (sizes > 1).all(axis=1)
    return found


def finding_of(bbox: list[float], all_are: bool) -> Finding:
    """What is wrong with such a box: where all boxes of a file are such, nothing else can be meant."""
    message = f"bbox {[round(value, 4) for value in bbox]} is inside the first pixel"
    if all_are:
        return Finding("error", "entry", f"{message}, as is every box: shares of the image; expected pixels")
    return Finding("doubt", "entry", f"{message}: is it in shares of the image? expected pixels")
