"""Where the masks of hidden classes are best cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.calibration.resampling import class_means
from deepmac_distill.calibration.tried import TriedMasks
from deepmac_distill.evaluation.means import interval
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.labels.cut import Cut

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class CutTrial:
    """What a cut is worth on hidden classes."""

    cut: Cut
    iou: float  # mean over classes
    minus_rule: Interval  # paired, over classes and images


def try_cuts(tried: TriedMasks, seed: int = 0, resamples: int = RESAMPLES) -> tuple[CutTrial, ...]:
    """Each cut in the order of `tried.cuts`."""
    means = class_means(tried.ious, tried.classes, tried.images, resamples, seed)
    return tuple(
        CutTrial(cut, float(means[0, at]), interval(means[:, at] - means[:, 0]))
        for at, cut in enumerate(tried.cuts)
    )


def best_cut(trials: tuple[CutTrial, ...]) -> Cut:
    """The cut with the largest mean IoU; the rule, which is the first, unless another is better for sure.

    Sure is a paired difference whose 95 % interval is above zero.
    """
    best = max(trials, key=lambda trial: trial.iou)
    low = best.minus_rule.low
    return best.cut if low is not None and low > 0 else trials[0].cut


def cuts_of_other_folds(tried: TriedMasks, seed: int = 0) -> NDArray[np.int64]:
    """(N,) for each mask the number of the cut that the folds without its class choose.

    Whoever learns from IoU at these cuts has not chosen them on the same masks.
    """
    chosen = np.zeros(len(tried), np.int64)
    for fold in np.unique(tried.folds):
        others = tried.where(tried.folds != fold)
        chosen[tried.folds == fold] = tried.cuts.index(best_cut(try_cuts(others, seed)))
    return chosen
