"""Intervals that hold training noise beside image sampling.

A figure of n trainings that differ in their seed alone is their mean. It has two errors: other images would
have given another figure, and so would other seeds. Half the width h of its 95 % interval holds both,

    h^2 = h_images^2 + (t s)^2 / n,

where h_images is the half-width from resampled images alone, s the standard deviation of this figure over
its own seeds and t Student's quantile with n - 1 degrees of freedom. Nothing is borrowed from other rows of a
table: rows of one seed are not independent (a student learns from its teacher's masks) and need not vary
alike, and a spread pooled over them covers too little. The price is a wide interval of few seeds: t is 12.7
of two, 4.3 of three, 2.8 of five. Each half-width is right by itself before they are added: Zou & Donner
2008, "Construction of confidence limits about effect measures: a general approach". One t quantile for the
sum, with Welch-Satterthwaite degrees of freedom, covers too little with two or three seeds, since a spread
that is small by chance counts twice there. Resampled images of a mean over seeds show what seeds and images
do together (one seed is better on some images), and so does the spread of seeds on these images; it is taken
out of the former. What is taken out is itself an estimate, and a few seeds may be alike by chance. So no
interval is narrower than the one that resampled images alone give.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from deepmac_distill.evaluation.power import t_quantile
from deepmac_distill.evaluation.results import Interval, Ratio


def over_seeds(whole: Interval, each: Sequence[Interval]) -> Interval:
    """The interval of a mean over seeds, from resampled images and from seeds.

    Args:
        whole: of the mean over seeds, resampled images alone. Returned as it is where there is one seed.
        each: of each seed, from the same resampled images.
    """
    figures = [one.value for one in each if one.value is not None]
    images = image_half_width(whole, each)
    if whole.value is None or images is None or len(figures) < len(each) or len(each) < 2:
        return whole
    df = len(figures) - 1
    seeds = t_quantile(0.975, df) * statistics.stdev(figures) / math.sqrt(len(figures))
    half = max(math.hypot(images, seeds), half_width(whole) or 0.0)
    return Interval(whole.value, whole.value - half, whole.value + half, seeds, df)


def seeds_alone(figures: Sequence[float | None]) -> Interval:
    """The mean of a figure over seeds and its interval of training noise, where images are not resampled.

    >>> seeds_alone([0.5]), seeds_alone([0.5, None])
    (Interval(value=0.5, low=None, high=None, seeds_half=None, seeds_df=0), Interval(value=None, low=None, \
high=None, seeds_half=None, seeds_df=0))
    """
    known = [figure for figure in figures if figure is not None]
    if len(known) < len(figures) or not known:
        return Interval(None)
    mean, df = statistics.fmean(known), len(known) - 1
    if not df:
        return Interval(mean)
    half = t_quantile(0.975, df) * statistics.stdev(known) / math.sqrt(len(known))
    return Interval(mean, mean - half, mean + half, half, df)


def image_half_width(whole: Interval, each: Sequence[Interval]) -> float | None:
    """Half the interval from images alone, without what seeds and images do together; None without one."""
    widths = [width for one in each if (width := half_width(one)) is not None]
    half = half_width(whole)
    if half is None or len(widths) < len(each):
        return None
    if len(each) < 2:
        return half
    together = (statistics.fmean(width**2 for width in widths) - half**2) / (len(each) - 1)
    return math.sqrt(max(half**2 - max(together, 0.0), 0.0))


def mean_interval(each: Sequence[Interval]) -> Interval:
    """`over_seeds` of intervals of one seed each, where the resampled images are not kept.

    Half the interval from images is the root of the mean square: as if images and seeds did nothing together,
    which is wider than the truth.
    """
    values = [one.value for one in each if one.value is not None]
    widths = [width for one in each if (width := half_width(one)) is not None]
    if len(each) == 1:
        return each[0]
    if len(values) < len(each):
        return Interval(None)
    mean = statistics.fmean(values)
    if len(widths) < len(each):
        return Interval(mean)
    half = math.sqrt(statistics.fmean(width**2 for width in widths))
    return over_seeds(Interval(mean, mean - half, mean + half), each)


def half_width(one: Interval) -> float | None:
    """Half the width of an interval; None without one."""
    return None if one.low is None or one.high is None else (one.high - one.low) / 2


def fieller(numerator: Interval, denominator: Interval, rest: Interval, name: str) -> Ratio:
    """A ratio with its 95 % interval: every ratio r for which numerator - r denominator may be 0.

    Fieller 1954. The three intervals are symmetric and hold the same kinds of noise.

    Args:
        rest: denominator - numerator, from whose width the covariance of the two follows.
        name: the denominator's, for the reason why there is no ratio.
    """
    undefined = why_undefined(denominator, name)
    halves = [half for one in (numerator, denominator, rest) if (half := half_width(one)) is not None]
    if undefined is not None or numerator.value is None or denominator.value is None or len(halves) < 3:
        return Ratio(None, undefined=undefined)
    n, d = numerator.value, denominator.value
    q_n, q_d, q_rest = (half**2 for half in halves)
    covariance = (q_n + q_d - q_rest) / 2
    a, b, c = d * d - q_d, n * d - covariance, n * n - q_n
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Ratio(n / d, (b - root) / a, (b + root) / a)


def why_undefined(denominator: Interval, name: str) -> str | None:
    """Why nothing may be divided by a figure with this interval; None where it may."""
    value, low, high = denominator.value, denominator.low, denominator.high
    if value is None or low is None or high is None:
        return f"{name}: nothing to evaluate"
    if min(value, low) > 0:
        return None
    return f"{name} = {value:.4f} [{low:.4f}, {high:.4f}]: expected an interval above zero"
