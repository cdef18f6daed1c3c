"""How large a difference must be to be found: Student's t, and the power of an interval that holds seeds."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.evaluation.results import Interval

POWER = 0.8
NORMAL = NormalDist()
NORMAL_975 = NORMAL.inv_cdf(0.975)


@functools.cache
def t_quantile(probability: float, df: float) -> float:
    """Student's t quantile for a probability of 0.5 to 0.999, by integration of the density.

    >>> [round(t_quantile(0.975, df), 3) for df in (1, 2, 4, 30)]
    [12.706, 4.303, 2.776, 2.042]
    """
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    t = np.sinh(np.linspace(0, 8, 20_001))  # to 1490, dense where the density is
    density = np.exp(log_scale - (df + 1) / 2 * np.log1p(t * t / df))
    steps = (density[1:] + density[:-1]) / 2 * np.diff(t)
    return float(np.interp(probability, 0.5 + np.concatenate([[0.0], np.cumsum(steps)]), t))


def least_difference(difference: Interval) -> float | None:
    """The smallest true difference that 80 % of such experiments would find: whole interval above zero.

    Bloom 1995, "Minimum detectable effects", takes 1.96 + 0.84 standard errors, which is right where the
    error is known, as that of resampled images nearly is. The spread of a few seeds is not: these seeds
    showed one, and those of the next experiment will show another. Both are averaged over (the next one alone
    would be a noncentral t, which trusts these seeds): with three seeds and no other noise it takes 2.0
    half-widths, of images alone 1.4. None without an interval, or where it has no width: nothing varied, and
    nothing is known.
    """
    if difference.low is None or difference.high is None or difference.high <= difference.low:
        return None
    half = (difference.high - difference.low) / 2
    share = min((difference.seeds_half or 0.0) / half, 1.0)
    return half * _least_over_half(share, difference.seeds_df)


@functools.cache
def _least_over_half(seeds_share: float, df: int) -> float:
    """The least difference where half the interval is 1 and its part of seeds, of `df`, is `seeds_share`."""
    if not df or not seeds_share:
        return 1 + NORMAL.inv_cdf(POWER) / NORMAL_975
    t, images_half, spreads = t_quantile(0.975, df), math.sqrt(1 - seeds_share**2), _spreads(df)
    true = seeds_share / t / spreads[:, None]  # what these seeds may have come from, each as likely
    error = np.hypot(images_half / NORMAL_975, true)
    half = np.hypot(images_half, t * true * spreads)  # (60, 60), of the next experiment
    low, high = 0.0, 10.0
    for _ in range(30):
        middle = (low + high) / 2
        power = _normal_cdf((middle - half) / error).mean()
        low, high = (middle, high) if power < POWER else (low, middle)
    return low


@functools.cache
def _spreads(df: int) -> NDArray[np.float64]:
    """60 equally likely standard deviations that seeds of `df` show where the true one is 1."""
    spread = np.linspace(0, 1 + 6 / math.sqrt(df), 4001)
    density = spread ** (df - 1) * np.exp(-df * spread**2 / 2)  # of chi over the root of df
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp((np.arange(60) + 0.5) / 60, total / total[-1], spread)


@functools.cache
def _normal_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z = np.linspace(-8, 8, 3201)
    return z, np.array([NORMAL.cdf(value) for value in z.tolist()])


def _normal_cdf(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.interp(z, *_normal_table())
