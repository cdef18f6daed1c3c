"""Means over classes and instances, of the data and of resamplings of their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.evaluation.seed_noise import over_seeds
from deepmac_distill.evaluation.splits import BySplit, split_classes

RESAMPLES_AT_ONCE = 32  # bounds memory

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Means:
    """Means of V columns a split; row 0 is the data itself, the R rows after it are resampled.

    Every column is resampled alike, so functions of several columns have intervals too.
    """

    class_means: BySplit[Floats]  # (1 + R, V), or (1 + R, V, S) of S seeds; NaN where there is no instance
    instance_means: BySplit[Floats]  # the same shape
    instances: BySplit[int]
    classes: BySplit[int]  # with at least one instance

    @classmethod
    def of(
        cls,
        table: pa.Table,
        columns: Sequence[str],
        classes: Classes,
        resamples: int,
        seed: int,
        splits: BySplit[NDArray[np.int64]] | None = None,
    ) -> Means:
        """Means of columns of a table that has `image_id` and `category_id` too."""
        splits = splits or split_classes(classes)
        sums, counts = class_sums(table, columns, classes, resamples, seed)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no instance, no mean
            means = np.where(counts > 0, sums / counts, 0.0)
            return cls(
                splits.map(lambda k: means[:, k].sum(axis=1) / (counts[:, k] > 0).sum(axis=1)),
                splits.map(lambda k: sums[:, k].sum(axis=1) / counts[:, k].sum(axis=1)),
                splits.map(lambda k: int(counts[0, k].sum())),
                splits.map(lambda k: int((counts[0, k] > 0).sum())),
            )

    def of_seeds(self, seeds: int) -> Means:
        """The last `seeds` columns beside each other are one measure: (1 + R, V, S)."""
        return replace(
            self,
            class_means=self.class_means.map(lambda means: means.reshape(len(means), -1, seeds)),
            instance_means=self.instance_means.map(lambda means: means.reshape(len(means), -1, seeds)),
        )


def image_draws(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each image counts, (r, images) at a time: once in the first row, then as it was drawn."""
    rng = np.random.default_rng(seed)
    for first in range(0, 1 + resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, 1 + resamples - first)
        draws = rng.multinomial(images, np.full(images, 1 / images), size=rows).astype(float)
        draws[: first == 0] = 1.0
        yield draws


def class_sums(
    table: pa.Table, columns: Sequence[str], classes: Classes, resamples: int, seed: int
) -> tuple[Floats, Floats]:
    """Sums (1 + R, K, V) and counts (1 + R, K, 1) a class, of the data and of R resamplings of its images.

    Images, not instances, are drawn: instances of one image are not independent. An image's draws weigh its
    sums, so a resampling costs one pass over the (class, image) pairs that occur.
    """
    indices = pc.index_in(table["category_id"], pa.array(classes.category_ids, pa.int32())).to_numpy()
    _, images = np.unique(table["image_id"].to_numpy(), return_inverse=True)
    total = int(images.max(initial=-1)) + 1
    values = np.stack([table[name].to_numpy() for name in columns] + [np.ones(len(table))], axis=1)
    pairs, inverse = np.unique(indices.astype(np.int64) * total + images, return_inverse=True)
    cells = np.stack([np.bincount(inverse, v, len(pairs)) for v in values.T], axis=1)  # (P, V + 1)
    present, starts = np.unique(pairs // max(total, 1), return_index=True)
    result = np.zeros((1 + resamples, len(classes.names), values.shape[1]))
    if total:
        done = 0
        for draws in image_draws(total, resamples, seed):
            rows = result[done : done + len(draws)]
            rows[:, present] = np.add.reduceat(draws[:, pairs % total, None] * cells, starts, axis=1)
            done += len(draws)
    return result[..., :-1], result[..., -1:]


def interval(values: Floats) -> Interval:
    """A figure's 95 % interval: of resampled images and, where there are several seeds, of training noise.

    Args:
        values: (1 + R,) of one seed, or (1 + R, S) of several on the same images; row 0 the images
            themselves, the others resampled.
    """
    if values.ndim == 1:
        return _percentiles(values)
    return over_seeds(_percentiles(values.mean(axis=1)), [_percentiles(one) for one in values.T])


def _percentiles(values: Floats) -> Interval:
    """Row 0 of (1 + R,) and the 95 % percentile interval of the other rows."""
    drawn = values[1:][np.isfinite(values[1:])]  # a resampling may hold no instance of a small split
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn.size else (np.nan, np.nan)
    return Interval(known(values[0]), known(low), known(high))


def known(value: float) -> float | None:
    """A finite number; None for any other.

    >>> known(0.5), known(float("nan"))
    (0.5, None)
    """
    return float(value) if np.isfinite(value) else None
