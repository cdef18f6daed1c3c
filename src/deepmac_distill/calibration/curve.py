"""A curve that rises: expected IoU as a function of a score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 20  # that a curve is fitted to; each holds a twentieth of the weight


@dataclass(frozen=True, slots=True)
class RisingCurve:
    """Straight lines between knots, and level beyond the first and the last: nothing is extrapolated."""

    x: tuple[float, ...]  # ascending
    y: tuple[float, ...]  # ascending too

    @classmethod
    def fit(cls, x: Floats, y: Floats, weights: Floats, bins: int = BINS) -> RisingCurve:
        """Isotonic regression of (N,) y on x, in bins of equal weight, with lines in place of its steps.

        The steps of a plain isotonic fit give many masks one value, and a few masks at its ends decide
        what the worst and the best are worth. Bins bound the latter. A knot in the middle of each step
        keeps the order of the scores.
        """
        _, value_of = np.unique(x, return_inverse=True)
        held = np.bincount(value_of, weights)
        middle = ((held.cumsum() - held / 2) / held.sum())[value_of]  # alike for scores that are equal
        _, bin_of = np.unique(np.minimum((middle * bins).astype(np.int64), bins - 1), return_inverse=True)
        of_bins = np.asarray(np.bincount(bin_of, weights), dtype=np.float64)
        step_of = rising_steps(_means(y, weights, bin_of), of_bins)[bin_of]
        return cls(*(tuple(_means(values, weights, step_of).tolist()) for values in (x, y)))

    def __call__(self, x: Floats) -> Floats:
        """(N,) values of the curve."""
        return np.asarray(np.interp(x, self.x, self.y), dtype=np.float64)


def rising_steps(values: Floats, weights: Floats) -> NDArray[np.int64]:
    """(N,) the step that each of N values belongs to, where steps are means that rise.

    Their means are the sequence that never falls and is nearest in weighted squares: pool adjacent
    violators, Ayer et al. 1955.

    >>> rising_steps(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4))
    array([0, 1, 1, 2])
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many values
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, held, count = value, weight, 1
        while pools and pools[-1][0] >= mean:
            before, its_weight, its_count = pools.pop()
            mean = (before * its_weight + mean * held) / (its_weight + held)
            held, count = held + its_weight, count + its_count
        pools.append((mean, held, count))
    return np.repeat(np.arange(len(pools)), [pool[2] for pool in pools])


def _means(values: Floats, weights: Floats, groups: NDArray[np.int64]) -> Floats:
    return np.asarray(np.bincount(groups, weights * values) / np.bincount(groups, weights))
