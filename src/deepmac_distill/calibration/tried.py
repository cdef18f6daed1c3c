"""Masks of classes that were hidden from their teacher, beside their true IoU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.errors import DataError
from deepmac_distill.labels.cut import Cut

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# What may be calibrated, as masks.parquet has it, first that which is taken where two are alike.
Score = Literal["expected_iou", "model_iou", "mask_score", "mask_bbox_iou"]
SCORES: tuple[Score, ...] = get_args(Score)

LEAST_MASKS = 100  # a tenth of them lie below the bound
LEAST_CLASSES = 4  # fewer do not show how classes differ (benchmarks/calibration.py --simulate)


@dataclass(frozen=True, slots=True)
class TriedMasks:
    """N masks of one teacher in the boxes of classes that it saw no mask of."""

    scores: Mapping[Score, Floats]  # (N,) each, of the mask that the rule cuts; NaN where there is none
    cuts: tuple[Cut, ...]  # C, the rule first
    ious: Floats  # (N, C) true IoU at each cut
    classes: Ints  # (N,) of `class_names`
    images: Ints  # (N,) image ids
    folds: Ints  # (N,) in which the class was hidden
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """The number of masks."""
        return len(self.classes)

    def where(self, kept: NDArray[np.bool_]) -> TriedMasks:
        """Some of the masks."""
        scores = {name: values[kept] for name, values in self.scores.items()}
        rows = (self.classes[kept], self.images[kept], self.folds[kept])
        return TriedMasks(scores, self.cuts, self.ious[kept], *rows, self.class_names)

    def require_enough(self) -> None:
        """Refuse what is too little to calibrate on.

        Raises:
            DataError: with the number that is missing.
        """
        classes, folds = len(np.unique(self.classes)), len(np.unique(self.folds))
        for got, least, kind in (
            (len(self), LEAST_MASKS, "masks of hidden classes"),
            (classes, LEAST_CLASSES, "hidden classes with masks"),
            (folds, 2, "folds"),
        ):
            if got < least:
                raise DataError(
                    f"calibration: got {got} {kind}, expected at least {least}; no quality is extrapolated"
                )

    def known_scores(self) -> tuple[Score, ...]:
        """The scores that every mask has."""
        return tuple(name for name in SCORES if np.isfinite(self.scores[name]).all())


def class_weights(classes: Ints) -> Floats:
    """(N,) weights of masks that count classes alike; their sum is 1.

    >>> class_weights(np.array([4, 4, 7]))
    array([0.25, 0.25, 0.5 ])
    """
    _, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return np.asarray(1 / (counts[index] * len(counts)), dtype=np.float64)
