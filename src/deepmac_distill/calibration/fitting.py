"""A calibration from tried masks: which score, which cut, which curve and bound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.calibration.bound import fit_scale, lower_bound
from deepmac_distill.calibration.calibration import Calibration, CutFit, HeldOut, ScoreTrial, same_cut
from deepmac_distill.calibration.curve import RisingCurve
from deepmac_distill.calibration.cuts import best_cut, cuts_of_other_folds, try_cuts
from deepmac_distill.calibration.reliability import KnownMasks, reliability
from deepmac_distill.calibration.tried import Score, TriedMasks, class_weights
from deepmac_distill.errors import DataError
from deepmac_distill.labels.cut import Cut

Floats = NDArray[np.float64]
ALIKE = 1.02  # squared errors within this ratio


def calibrate(tried: TriedMasks, held_out: HeldOut, seed: int = 0, resamples: int = 1000) -> Calibration:
    """Fit everything.

    What a mask is expected to be worth is never learned from IoU at a cut that was chosen on the same fold,
    and the bound never from a curve that was fitted on it.

    Raises:
        DataError: there are too few masks, classes or folds, or no score that every mask has.
    """
    tried.require_enough()
    trials = try_cuts(tried, seed, resamples)
    cut = best_cut(trials)
    cut_of = cuts_of_other_folds(tried, seed)
    ious = tried.ious[np.arange(len(tried)), cut_of]  # at the cut that other folds chose
    known = tried.known_scores()
    if not known:
        raise DataError(f"calibration: {held_out.teacher}: got no score that every mask has, expected one")
    expected = {name: expected_by_other_folds(tried.scores[name], ious, tried) for name in known}
    weights = class_weights(tried.classes)
    scores = tuple(ScoreTrial(name, float(weights @ (expected[name] - ious) ** 2)) for name in known)
    score = chosen_score(scores)
    fits = tuple(
        _fit(one, tried.scores[score], ious if same_cut(one, cut) else tried.ious[:, at], tried)
        for at, one in enumerate(tried.cuts)
    )
    quality = expected[score]
    return Calibration(
        held_out=held_out,
        score=score,
        scores=scores,
        cut=cut,
        cuts=trials,
        fits=fits,
        class_spread=class_spread(ious - quality, tried.classes),
        reliability=reliability(
            KnownMasks(
                quality=quality,
                quality_low=bounds_by_other_folds(quality, ious, tried),
                iou=ious,
                mask_score=tried.scores["mask_score"],
                classes=tried.classes,
                images=tried.images,
                class_names=tried.class_names,
            ),
            seed,
            resamples,
        ),
    )


def chosen_score(trials: tuple[ScoreTrial, ...]) -> Score:
    """The first score that is as good as the best, or nearly: trials differ by chance."""
    least = min(trial.squared_error for trial in trials)
    return next(trial.score for trial in trials if trial.squared_error <= ALIKE * least)


def expected_by_other_folds(score: Floats, ious: Floats, tried: TriedMasks) -> Floats:
    """(N,) the expected IoU of each mask by a curve that was fitted on the folds without its class."""
    expected = np.zeros(len(tried))
    for fold in np.unique(tried.folds):
        own = tried.folds == fold
        expected[own] = _curve(score[~own], ious[~own], tried.classes[~own])(score[own])
    return expected


def bounds_by_other_folds(quality: Floats, ious: Floats, tried: TriedMasks) -> Floats:
    """(N,) the lower bound of each mask, its scale from the masks of the other folds.

    Of these masks `quality` is by curves that the mask's own fold had a part in, where there are two folds;
    of a curve of a few knots that is nothing beside what classes differ by.
    """
    low = np.zeros(len(tried))
    for fold in np.unique(tried.folds):
        own = tried.folds == fold
        scale = fit_scale(quality[~own], ious[~own], class_weights(tried.classes[~own]))
        low[own] = lower_bound(quality[own], scale)
    return low


def _fit(cut: Cut, score: Floats, ious: Floats, tried: TriedMasks) -> CutFit:
    expected = expected_by_other_folds(score, ious, tried)
    scale = fit_scale(expected, ious, class_weights(tried.classes))
    return CutFit(cut, _curve(score, ious, tried.classes), scale)


def _curve(score: Floats, ious: Floats, classes: NDArray[np.int64]) -> RisingCurve:
    return RisingCurve.fit(score, ious, class_weights(classes))


def class_spread(residuals: Floats, classes: NDArray[np.int64]) -> float:
    """Standard deviation over classes of the mean of (N,) residuals in a class."""
    _, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return float(np.std(np.bincount(index, residuals) / counts, ddof=1))
