"""A lower bound of a mask's IoU that holds for a stated share of masks, on average over classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
COVERAGE = 0.9  # share of masks, classes counted alike, whose IoU reaches the bound
_LEAST_SPREAD = 0.1  # of a mask that is expected to be all right, or all wrong


def lower_bound(quality: Floats, scale: float) -> Floats:
    """(N,) the bound, in [0, 1]: expected IoU less `scale` times its spread."""
    return np.asarray(np.clip(quality - scale * spread(quality), 0, 1), dtype=np.float64)


def fit_scale(quality: Floats, iou: Floats, weights: Floats, coverage: float = COVERAGE) -> float:
    """The scale at which a weighted share `coverage` of masks reaches the bound.

    Split conformal prediction with a local spread (Lei et al. 2018, "Distribution-free predictive inference
    for regression", section 5.2), each mask's expected IoU from the folds that do not hold its class
    (cross-conformal: Vovk 2015). Classes are weighted alike, since the bound is for classes, not for masks.
    Deviation: no class is added for the one to come, as hierarchical conformal prediction does (Lee, Barber
    and Willett 2023, arXiv:2306.06342). Of 10 classes that would be a quantile of 99 %, of fewer than 9
    none: a promise of nothing. The coverage is therefore that of classes like those tried, on
    average; `benchmarks/calibration.py` measures it.

    Args:
        quality: (N,) expected IoU, from other folds than the mask's own.
    """
    misses = (quality - iou) / spread(quality)
    order = np.argsort(misses, kind="stable")
    reached = weights[order].cumsum() / weights.sum()
    place = min(int(np.searchsorted(reached, coverage - 1e-9)), len(order) - 1)
    return float(misses[order[place]])


def spread(quality: Floats) -> Floats:
    """(N,) how far IoU may be from what is expected: sqrt(q (1 - q)), as of a share.

    Masks of expected IoU near 0 or 1 can miss by less than those between.
    """
    return np.asarray(np.maximum(np.sqrt(quality * (1 - quality)), _LEAST_SPREAD), dtype=np.float64)
