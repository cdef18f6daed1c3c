"""Intervals that hold training noise beside image sampling.

A figure of n trainings that differ in their seed alone is their mean. It has two errors: other images would
have given another figure, and so would other seeds. Half the width h of its 95 % interval holds both,

    h^2 = h_images^2 + (t s_seeds)^2 / n,

where h_images is the half-width from resampled images alone and s_seeds the standard deviation of one
training's figure, pooled over the rows of one table, with its degrees of freedom in t. Each half-width is
right by itself before they are added: Zou & Donner 2008, "Construction of confidence limits about effect
measures: a general approach". One t quantile for the sum, with Welch-Satterthwaite degrees of freedom,
covers too little with two or three seeds, since a spread that is small by chance counts twice there; the
tests hold the simulated coverage. Resampled images of a mean over seeds show what seeds and images do
together (one seed is better on some images), and so does the spread of seeds on these images; it is taken
out of the former.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from deepmac_distill.evaluation.results import Interval, Ratio

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Noise:
    """How far one training's figure is from the mean of all seeds."""

    variance: float
    df: int  # degrees of freedom of the estimate; 0: one seed, and nothing is known

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of one training's figure from seeds alone."""
        return t_quantile(0.975, self.df) * math.sqrt(self.variance) if self.df else 0.0


UNKNOWN = Noise(0.0, 0)


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


def pooled_noise(rows: Sequence[Mapping[int, float]]) -> Noise:
    """Noise of a figure, pooled over the rows of one table.

    Args:
        rows: seed -> figure of one training, for each row.

    >>> pooled_noise([{0: 0.1, 1: 0.3}, {0: 0.5, 1: 0.5}])
    Noise(variance=0.01, df=2)
    """
    groups = [list(row.values()) for row in rows if len(row) > 1]
    df = sum(len(group) - 1 for group in groups)
    squares = sum((len(group) - 1) * statistics.variance(group) for group in groups)
    return Noise(round(squares / df, 15), df) if df else UNKNOWN


def paired_noise(rows: Sequence[Mapping[int, float]]) -> Noise:
    """Noise of the difference of two rows with the same seed, pooled over the rows of one table.

    What a seed does to all rows alike is no noise of a difference: figures are fitted by a row's and a seed's
    own effect, and a difference has twice the variance of what is left. Of two rows this is the variance of
    their difference.

    >>> paired_noise([{0: 0.1, 1: 0.3}, {0: 0.5, 1: 0.7}]).variance
    0.0
    >>> round(paired_noise([{0: 0.1, 1: 0.3}, {0: 0.5, 1: 0.6}]).variance, 6)  # differences 0.4 and 0.3
    0.005
    """
    cells = [(at, seed, value) for at, row in enumerate(rows) for seed, value in row.items()]
    seeds = sorted({seed for _, seed, _ in cells})
    design = np.zeros((len(cells), len(rows) + len(seeds)))
    for line, (at, seed, _) in enumerate(cells):
        design[line, [at, len(rows) + seeds.index(seed)]] = 1.0
    values = np.array([value for _, _, value in cells])
    fit, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    df = len(cells) - int(rank)
    if df <= 0:
        return UNKNOWN
    return Noise(round(2 * float(np.square(values - design @ fit).sum()) / df, 15), df)


def widened(whole: Interval, each: Sequence[Interval], noise: Noise) -> Interval:
    """The interval of a mean over seeds, from resampled images and from seeds.

    Args:
        whole: of the mean over seeds, resampled images alone. Returned as it is where `noise` is unknown.
        each: of each seed, from the same resampled images.
    """
    images = image_half_width(whole, each)
    if whole.value is None or images is None or not noise.df:
        return whole
    half = math.hypot(images, noise.half_width / math.sqrt(max(len(each), 1)))
    return Interval(whole.value, whole.value - half, whole.value + half)


def image_half_width(whole: Interval, each: Sequence[Interval]) -> float | None:
    """Half the interval from images alone, without what seeds and images do together; None without one."""
    widths = [_half(one) for one in each]
    half = _half(whole)
    if half is None or any(width is None for width in widths):
        return None
    if len(each) < 2:
        return half
    together = (statistics.fmean(cast(float, width) ** 2 for width in widths) - half**2) / (len(each) - 1)
    return math.sqrt(max(half**2 - max(together, 0.0), 0.0))


def fieller(numerator: Interval, denominator: Interval, rest: Interval, name: str) -> Ratio:
    """A ratio with its 95 % interval: every ratio r for which numerator - r denominator may be 0.

    Fieller 1954. The three intervals are symmetric and hold the same kinds of noise.

    Args:
        rest: denominator - numerator, from whose width the covariance of the two follows.
        name: the denominator's, for the reason why there is no ratio.
    """
    undefined = why_undefined(denominator, name)
    halves = [_half(one) for one in (numerator, denominator, rest)]
    if undefined is not None or numerator.value is None or denominator.value is None:
        return Ratio(None, undefined=undefined)
    n, d = numerator.value, denominator.value
    q_n, q_d, q_rest = (cast(float, half) ** 2 for half in halves)
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


def over_seeds(wholes: Sequence[R], each: Sequence[Mapping[int, R]]) -> list[R]:
    """Results of one type, each of a mean over seeds, with every interval in them widened by seeds.

    A row that is the same in every seed learns nothing; it has no noise, and none of its calm is pooled.

    Args:
        wholes: of each row of one table, measured on the mean over seeds.
        each: of each row, by seed.
    """
    learns = [len(by_seed) < 2 or not _are_equal(list(by_seed.values())) for by_seed in each]
    rows = list(zip(wholes, each, learns, strict=True))
    pooled = iter(
        _over_seeds([whole for whole, _, does in rows if does], [one for _, one, does in rows if does])
    )
    return [next(pooled) if does else _over_seeds([whole], [by_seed])[0] for whole, by_seed, does in rows]


def _are_equal(results: Sequence[object]) -> bool:
    return all(result == results[0] for result in results)


def _over_seeds(wholes: Sequence[R], each: Sequence[Mapping[int, R]]) -> list[R]:
    results = [*wholes, *(result for by_seed in each for result in by_seed.values())]
    if len({type(result) for result in results}) != 1 or not dataclasses.is_dataclass(results[0]):
        return list(wholes)
    if isinstance(results[0], Interval):
        return cast(list[R], _widened_rows(cast(Sequence[Interval], wholes), cast(Any, each)))
    parts: dict[str, list[Any]] = {
        field.name: _over_seeds(
            [getattr(whole, field.name) for whole in wholes],
            [{seed: getattr(one, field.name) for seed, one in by_seed.items()} for by_seed in each],
        )
        for field in dataclasses.fields(results[0])
    }
    return [
        cast(R, dataclasses.replace(cast(Any, whole), **{name: part[at] for name, part in parts.items()}))
        for at, whole in enumerate(wholes)
    ]


def mean_over_seeds(each: Sequence[R]) -> R:
    """Results of one type, their numbers averaged; for what cannot be measured on a mean of masks.

    The image half-width of an interval is the root of the mean square: as if images and seeds did nothing
    together, which is wider than the truth. What is no float, or not a number in one of them, is the first's.
    """
    first: Any = each[0]
    if len(each) == 1:
        return each[0]
    if isinstance(first, Interval):
        value = mean_over_seeds([cast(Interval, one).value for one in each])
        widths = [_half(cast(Interval, one)) for one in each]
        if value is None or None in widths:
            return cast(R, Interval(value))
        half = math.sqrt(statistics.fmean(cast(float, width) ** 2 for width in widths))
        return cast(R, Interval(value, value - half, value + half))
    if dataclasses.is_dataclass(first) and all(type(one) is type(first) for one in each):
        parts = {
            field.name: mean_over_seeds([getattr(one, field.name) for one in each])
            for field in dataclasses.fields(first)
        }
        return cast(R, dataclasses.replace(cast(Any, first), **parts))
    if isinstance(first, tuple) and len({len(cast(Any, one)) for one in each}) == 1:
        return cast(R, tuple(mean_over_seeds(list(parts)) for parts in zip(*cast(Any, each), strict=True)))
    if isinstance(first, float) and all(isinstance(one, float) for one in each):
        return cast(R, statistics.fmean(cast(Sequence[float], each)))
    return cast(R, None) if None in each else cast(R, first)


def _widened_rows(wholes: Sequence[Interval], each: Sequence[Mapping[int, Interval]]) -> list[Interval]:
    noise = pooled_noise(
        [{seed: one.value for seed, one in by_seed.items() if one.value is not None} for by_seed in each]
    )
    rows = zip(wholes, each, strict=True)
    return [widened(whole, list(by_seed.values()), noise) for whole, by_seed in rows]


def _half(one: Interval) -> float | None:
    return None if one.low is None or one.high is None else (one.high - one.low) / 2
