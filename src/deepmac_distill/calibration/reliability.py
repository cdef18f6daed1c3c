"""How far expected IoU and its lower bound are right, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.calibration.resampling import class_means
from deepmac_distill.calibration.tried import class_weights
from deepmac_distill.evaluation.means import interval, known
from deepmac_distill.evaluation.results import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BINS = 10
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Masks of about the same quality; means count classes alike."""

    masks: int
    quality: float
    iou: float
    coverage: float  # share whose IoU reaches the lower bound


@dataclass(frozen=True, slots=True)
class ClassReliability:
    """The same of one class."""

    name: str
    masks: int
    quality: float
    iou: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Quality against truth. Figures count classes alike; intervals hold classes and images."""

    masks: int
    classes: int
    quality: Interval  # mean
    iou: Interval
    quality_minus_iou: Interval
    coverage: Interval
    calibration_error: Interval  # mean over bins of |quality - IoU|, weighted by their masks
    rank_correlation: float | None  # Spearman's, of quality and IoU
    minus_mask_score: Interval  # its lead over that of mask_score
    bins: tuple[ReliabilityBin, ...]
    by_class: tuple[ClassReliability, ...]


@dataclass(frozen=True, slots=True)
class KnownMasks:
    """N masks with quality and truth."""

    quality: Floats
    quality_low: Floats
    iou: Floats
    mask_score: Floats
    classes: Ints
    images: Ints
    class_names: tuple[str, ...]

    @property
    def columns(self) -> Floats:
        """(N, 4) what is averaged over classes: quality, IoU, their difference, whether the bound holds."""
        held = self.iou >= self.quality_low
        return np.stack([self.quality, self.iou, self.quality - self.iou, held], axis=1)


def reliability(masks: KnownMasks, seed: int = 0, resamples: int = RESAMPLES) -> Reliability:
    """What is known of N masks."""
    columns, weights = masks.columns, class_weights(masks.classes)
    means = class_means(columns, masks.classes, masks.images, resamples, seed)
    bins = _bins(columns, masks.quality, weights)
    draws = _class_draws(masks.classes, resamples, seed)
    errors = np.array([_error(columns, masks.quality, weights * draw) for draw in draws])
    leads = [_rank_lead(masks, weights * draw) for draw in draws]
    return Reliability(
        masks=len(columns),
        classes=len(np.unique(masks.classes)),
        quality=interval(means[:, 0]),
        iou=interval(means[:, 1]),
        quality_minus_iou=interval(means[:, 2]),
        coverage=interval(means[:, 3]),
        calibration_error=interval(errors),
        rank_correlation=known(rank_correlation(masks.quality, masks.iou, weights)),
        minus_mask_score=interval(np.array(leads)),
        bins=bins,
        by_class=_by_class(masks, columns),
    )


def rank_correlation(a: Floats, b: Floats, weights: Floats) -> float:
    """Spearman's correlation of (N,) values whose masks are weighted; NaN where one is constant."""
    x, y = _weighted_ranks(a, weights), _weighted_ranks(b, weights)
    mean = weights / weights.sum()
    x, y = x - mean @ x, y - mean @ y
    scale = np.sqrt((mean @ x**2) * (mean @ y**2))
    return float(mean @ (x * y) / scale) if scale > 0 else float("nan")


def _weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """(N,) the weight below each value and half of that at it: equal values rank alike."""
    _, index = np.unique(values, return_inverse=True)
    held = np.bincount(index, weights)
    return np.asarray((held.cumsum() - held / 2)[index])


def _rank_lead(masks: KnownMasks, weights: Floats) -> float:
    kept = weights > 0
    quality, score, iou = (values[kept] for values in (masks.quality, masks.mask_score, masks.iou))
    return rank_correlation(quality, iou, weights[kept]) - rank_correlation(score, iou, weights[kept])


def _class_draws(classes: Ints, resamples: int, seed: int) -> Floats:
    """(1 + R, N) how often each mask's class is drawn; once in row 0.

    Of order statistics, images are not drawn beside: that would count a mask and itself as two.
    """
    _, index = np.unique(classes, return_inverse=True)
    count = int(index.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=1 + resamples)
    draws[0] = 1
    return np.asarray(draws[:, index], dtype=np.float64)


def _bin_of(quality: Floats, weights: Floats) -> Ints:
    """(N,) bins of about equal weight, from the least quality; equal qualities share one."""
    ranks = _weighted_ranks(quality, weights) / weights.sum()
    return np.asarray(np.minimum((ranks * BINS).astype(np.int64), BINS - 1))


def _error(columns: Floats, quality: Floats, weights: Floats) -> float:
    """Expected calibration error in bins of equal weight."""
    kept = weights > 0
    bin_of, held = _bin_of(quality[kept], weights[kept]), weights[kept]
    return float(np.abs(np.bincount(bin_of, held * columns[kept, 2])).sum() / held.sum())


def _bins(columns: Floats, quality: Floats, weights: Floats) -> tuple[ReliabilityBin, ...]:
    bin_of = _bin_of(quality, weights)
    found = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        mean = np.average(columns[inside], axis=0, weights=weights[inside]).tolist()
        found.append(ReliabilityBin(int(inside.sum()), mean[0], mean[1], mean[3]))
    return tuple(found)


def _by_class(masks: KnownMasks, columns: Floats) -> tuple[ClassReliability, ...]:
    found = []
    for index in np.unique(masks.classes).tolist():
        inside = masks.classes == index
        quality, iou, _, held = columns[inside].mean(axis=0).tolist()
        found.append(ClassReliability(masks.class_names[index], int(inside.sum()), quality, iou, held))
    return tuple(found)
