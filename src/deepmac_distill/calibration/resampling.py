"""Means over classes, of the data and of resamplings of its classes and images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_AT_ONCE = 64  # bounds memory


def class_means(
    values: Floats, classes: NDArray[np.int64], images: NDArray[np.int64], resamples: int, seed: int
) -> Floats:
    """(1 + R, V) mean over classes of the mean over a class's rows; row 0 is the data itself.

    A resampling draws classes, and images within it: other classes and other photographs would have given
    other figures. A class whose images were not drawn is left out of that resampling.

    Args:
        values: (N, V).
        classes, images: (N,).
    """
    kinds, class_of = np.unique(classes, return_inverse=True)
    photos, image_of = np.unique(images, return_inverse=True)
    pairs, pair_of = np.unique(class_of * len(photos) + image_of, return_inverse=True)
    cells = np.stack(
        [np.bincount(pair_of, column, len(pairs)) for column in (*values.T, np.ones(len(values)))], axis=1
    )  # (P, V + 1)
    starts = np.searchsorted(pairs // len(photos), np.arange(len(kinds)))
    rng, result = np.random.default_rng(seed), np.zeros((1 + resamples, values.shape[1]))
    for first in range(0, 1 + resamples, _AT_ONCE):
        count = min(_AT_ONCE, 1 + resamples - first)
        of_class = rng.multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), count).astype(float)
        of_image = rng.multinomial(len(photos), np.full(len(photos), 1 / len(photos)), count).astype(float)
        if first == 0:
            of_class[0], of_image[0] = 1, 1
        sums = np.add.reduceat(of_image[:, pairs % len(photos), None] * cells, starts, axis=1)
        held = sums[..., -1] > 0
        means = sums[..., :-1] / np.maximum(sums[..., -1:], 1)
        weights = of_class * held
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1)
        result[first : first + count] = (weights[..., None] * means).sum(axis=1) / total
    return result
