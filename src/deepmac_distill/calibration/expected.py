"""What a label file is expected to be worth: its mean IoU, and what thresholds of quality leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.calibration.calibration import Calibration
from deepmac_distill.calibration.tried import class_weights
from deepmac_distill.evaluation.power import t_quantile
from deepmac_distill.evaluation.results import Interval

Floats = NDArray[np.float64]
RECOMMENDED = 0.5  # below it a mask matches its object at none of COCO's thresholds
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True, slots=True)
class Expected:
    """Of the masks of a label file."""

    masks: int
    classes: int
    class_mean_iou: Interval  # classes weighted alike
    instance_mean_iou: float
    below: int  # masks of quality below `RECOMMENDED`


@dataclass(frozen=True, slots=True)
class Kept:
    """What a threshold of quality leaves, of masks of hidden classes or of a label file."""

    least: float
    kept: int
    quality: float | None  # mean of what is kept, over masks
    rejected: int
    rejected_quality: float | None


def expected_of(
    quality: Floats,
    classes: NDArray[np.int64],
    teachers: Sequence[tuple[Calibration, NDArray[np.bool_]]],
) -> Expected | None:
    """What N masks with quality are expected to be worth; None of none.

    The intervals of several teachers are added, by their weights in the mean: their calibrations are of the
    same hidden classes, so that what they miss may have one cause.

    Args:
        teachers: of each its calibration, and (N,) which masks it drew.
    """
    if not len(quality):
        return None
    kinds, weights = len(np.unique(classes)), class_weights(classes)
    mean, half = float(weights @ quality), 0.0
    for calibration, drawn in teachers:
        own = len(np.unique(classes[drawn]))
        if own:
            hidden = len(calibration.held_out.classes)
            half += float(weights[drawn].sum()) * half_width(calibration.class_spread, hidden, own)
    return Expected(
        masks=len(quality),
        classes=kinds,
        class_mean_iou=Interval(mean, mean - half, mean + half),
        instance_mean_iou=float(quality.mean()),
        below=int((quality < RECOMMENDED).sum()),
    )


def half_width(spread: float, hidden: int, classes: int) -> float:
    """Half the 95 % interval of a mean over classes that is expected from a curve of hidden classes.

    What the curve of L hidden classes expects of a class is missed with the standard deviation s that those L
    showed, so that the mean over K others is missed by t s sqrt(1 / K + 1 / L), t of L - 1 degrees of
    freedom. It holds for classes that are like those tried.
    """
    return float(t_quantile(0.975, hidden - 1) * spread * math.sqrt(1 / classes + 1 / hidden))


def thresholds_of(quality: Floats) -> tuple[Kept, ...]:
    """What each of `THRESHOLDS` leaves of N masks."""
    found = []
    for least in THRESHOLDS:
        kept = quality >= least
        found.append(
            Kept(least, int(kept.sum()), _mean(quality[kept]), int((~kept).sum()), _mean(quality[~kept]))
        )
    return tuple(found)


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
