"""COCO average precision of models on the same resampled images, so that differences have intervals.

Which detections match does not depend on the images that are drawn; it is found once (`precision_matches`). A
resampling weighs each image by how often it was drawn. An image that is drawn twice counts twice: hotcoco's
own bootstrap counts it once, which leaves 63 % of the images and makes intervals a quarter too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.evaluation.average_precision import RANKS, STATS, CocoTruth, Detection, stats_by_split
from deepmac_distill.evaluation.means import Floats, image_draws, interval, known
from deepmac_distill.evaluation.precision_matches import AREAS, THRESHOLDS, ClassMatches, matches_of
from deepmac_distill.evaluation.results import PairedStat, PairedStats
from deepmac_distill.evaluation.splits import NO_SPLITS, BySplit, Named, Split, split_classes
from deepmac_distill.progress import Progress, Silent

RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads precision
EPSILON = np.spacing(1)  # that pycocotools adds to a denominator
ALL, SIZES = 0, (1, 2, 3)  # area ranges
VALUES_AT_ONCE = 1_000_000  # bounds memory: weights of a class's detections in some resamplings


def compare_average_precision(
    truth: CocoTruth,
    detections_a: Sequence[Sequence[Detection]],
    detections_b: Sequence[Sequence[Detection]],
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
    named: Named = NO_SPLITS,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> BySplit[PairedStats | None]:
    """Paired differences of two detectors' COCO numbers with 95 % intervals; images are resampled.

    A split without classes is None.

    Args:
        detections_a, detections_b: COCO results of each seed; two models are paired by seed in this order.

    Raises:
        DataError: a detection names an image or a category that the truth does not have.
    """
    splits = split_classes(truth.truth.classes, shown_elsewhere, named)
    a, b = (
        resampled_stats(truth, each, splits, resamples=resamples, seed=seed, progress=progress)
        for each in (detections_a, detections_b)
    )

    def compared(split: Split, members: NDArray[np.int64]) -> PairedStats | None:
        if not members.size:
            return None
        pairs = zip(STATS, a[split], b[split], strict=True)
        return PairedStats(**{name: _paired(one, other) for name, one, other in pairs})

    return splits.map_named(compared)


def resampled_stats(
    truth: CocoTruth,
    detections: Sequence[Sequence[Detection]],
    splits: BySplit[NDArray[np.int64]],
    *,
    resamples: int,
    seed: int,
    progress: Progress | None = None,
) -> BySplit[Floats]:
    """`STATS` of one model in each split, (12, 1 + R, S): of the images themselves, then of resampled ones.

    NaN where there is no truth.

    Args:
        detections: COCO results of each of S seeds.

    Raises:
        DataError: a detection names an image or a category that the truth does not have.
    """
    drawn = image_draws(len(truth.image_ids), resamples, seed)
    draws = np.concatenate([some.astype(np.uint16) for some in drawn])
    each: list[BySplit[Floats]] = []
    total = len(detections) * len(truth.categories)
    with (progress or Silent()).bar("average precision", total, unit="class") as bar:
        for one in detections:
            by_class = np.full((len(truth.truth.classes), len(STATS), len(draws)), np.nan)
            for found in matches_of(truth, one):
                by_class[found.index] = class_stats(found, draws)
                bar.advance()
            exact = stats_by_split(truth.truth, truth.evaluate(one), splits)
            each.append(_over_classes(by_class, exact, splits))
    return splits.map_named(lambda split, _: np.stack([one[split] for one in each], axis=-1))


def _over_classes(
    by_class: Floats, exact: BySplit[dict[str, float | None]], splits: BySplit[NDArray[np.int64]]
) -> BySplit[Floats]:
    """Means of (K, 12, 1 + R) over a split's classes; of the images themselves COCO's own, bit by bit."""

    def mean(split: Split, members: NDArray[np.int64]) -> Floats:
        measured = np.isfinite(by_class[members])
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no truth
            means: Floats = np.where(measured, by_class[members], 0.0).sum(axis=0) / measured.sum(axis=0)
        means[:, 0] = [np.nan if value is None else value for value in exact[split].values()]
        return means

    return splits.map_named(mean)


def class_stats(found: ClassMatches, draws: NDArray[np.uint16]) -> Floats:
    """`STATS` of one class, (12, 1 + R); NaN where the images hold no truth.

    Args:
        draws: (1 + R, I) how often each image was drawn.
    """
    at_once = max(1, VALUES_AT_ONCE // max(len(found.image), 1))
    parts = [_stats_of(found, draws[row : row + at_once]) for row in range(0, len(draws), at_once)]
    return np.concatenate(parts, axis=1)


def _stats_of(found: ClassMatches, draws: NDArray[np.uint16]) -> Floats:
    positives = draws @ found.positives.T  # (r, A)
    weights = draws[:, found.image].astype(np.float64)  # (r, D)
    precision = np.zeros((len(AREAS), THRESHOLDS, len(draws)))
    recall = np.zeros((len(AREAS), len(RANKS) + 1, THRESHOLDS, len(draws)))  # of all detections the last
    for area in {area for area, _ in found.matched}:
        seen = np.cumsum(weights * found.inside[area], axis=1)  # if no detection matched anything
        for threshold in range(THRESHOLDS):
            matched = found.matched.get((area, threshold))
            if matched is None:
                continue
            there, total = weights[:, matched.at], np.maximum(positives[:, area], 1)
            corrections = matched.counts.astype(np.float64) - found.inside[area, matched.at]
            decided = seen[:, matched.at] + np.cumsum(there * corrections, axis=1)
            hits = np.cumsum(there * matched.counts, axis=1)
            precision[area, threshold] = _average_precision(
                hits[:, matched.counts], decided[:, matched.counts], total
            )
            for place, most in enumerate((*RANKS, np.inf)):
                counted = matched.counts & (found.rank[matched.at] < most)
                recall[area, place, threshold] = there[:, counted].sum(axis=1) / total
    known_areas = positives.T > 0  # (A, r)
    precision = np.where(known_areas[:, None], precision, np.nan)
    recall = np.where(known_areas[:, None, None], recall, np.nan)
    average, recalls = precision.mean(axis=1), recall.mean(axis=2)
    return np.stack(
        [
            *(average[ALL], precision[ALL, 0], precision[ALL, 5], *(average[size] for size in SIZES)),
            *(*recalls[ALL, : len(RANKS)], *(recalls[size, -1] for size in SIZES)),
        ]
    )


def _average_precision(hits: Floats, decided: Floats, positives: Floats) -> Floats:
    """Mean over `RECALLS` of the best precision at that recall or a higher one, (r,).

    Precision falls between hits, so the hits alone decide.

    Args:
        hits: (r, M) true positives up to and with each of them.
        decided: (r, M) detections up to there that are right or wrong.
        positives: (r,) truths.
    """
    precision = hits / (decided + EPSILON)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, hits / positives[:, None], side="right")
    means: Floats = (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    return means


def _paired(a: Floats, b: Floats) -> PairedStat:
    """Of (1 + R, S) of two models."""
    return PairedStat(known(a[0].mean()), known(b[0].mean()), interval(a - b))
