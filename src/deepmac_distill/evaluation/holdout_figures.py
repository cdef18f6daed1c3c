"""Figures of a hold-out: means over hidden classes with intervals of images, classes and folds, and a winner.

A figure is the mean over K classes of the mean over their masks. Other images would have given another one,
other classes too, and other trainings: the classes of a fold share the teacher that saw none of them.
Images are drawn with replacement, and classes among the K, for each resampling anew. What percentiles of few
classes lack is made up by t / z * sqrt(K / (K - 1)). The part of folds is added in squares,

    s^2 * sum((K_f / K)^2),

where s^2 is by how much the means of folds vary more than classes alone explain (analysis of variance of one
random factor, never below 0). Two folds know little of it; of a teacher that is not trained it is none. It is
read from the lead over the ellipse, which no training moves and which knows how hard a class is: that folds
hold other kinds of objects is no noise of a training. Of two trained teachers it is read from their
difference. `benchmarks/holdout_coverage.py` measures the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.holdout_masks import HIDDEN, HoldoutMasks
from deepmac_distill.evaluation.holdout_results import HeldOut, HeldOutClass, HeldOutPair, Holdout
from deepmac_distill.evaluation.means import Floats, class_sums, interval, known
from deepmac_distill.evaluation.power import NORMAL_975, t_quantile
from deepmac_distill.evaluation.results import Interval

_FIGURES = ("iou", "boundary_iou")


@dataclass(frozen=True)
class _ClassMeans:
    """Means of every class, of the data (row 0) and of R resamplings of its images."""

    names: tuple[str, ...]  # K
    folds: NDArray[np.int64]  # (K,) in which each is hidden
    counts: NDArray[np.int64]  # (K,) masks
    sums: Mapping[str, Floats]  # column -> (K,) sums over masks
    means: Mapping[str, Floats]  # column -> (1 + R, K); NaN where a resampling has no mask
    hidden: Mapping[str, NDArray[np.bool_]]  # teacher -> (K,)
    seed: int

    def over(self, column: Floats, kept: NDArray[np.bool_], of_folds: Floats | None) -> Interval:
        """The mean of (1 + R, K) class values over some classes, with its interval.

        Args:
            of_folds: (K,) values from which the part of folds is read; None: nobody is trained.
        """
        values, folds = column[:, kept], self.folds[kept]
        n = values.shape[1]
        if not n:
            return Interval(None)
        drawn = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), size=len(values))
        drawn[0] = 1
        weights = np.where(np.isnan(values), 0, drawn)
        with np.errstate(invalid="ignore"):  # no class of a resampling has a mask: no mean
            means = np.nansum(weights * values, axis=1) / weights.sum(axis=1)
        if n < 2:
            return Interval(known(means[0]))
        found = _widened(interval(means), t_quantile(0.975, n - 1) / NORMAL_975 * math.sqrt(n / (n - 1)))
        return _with_noise(found, 0.0 if of_folds is None else NORMAL_975 * fold_error(of_folds[kept], folds))

    def lead(self, teacher: str) -> Floats:
        """(1 + R, K) IoU of a teacher less that of the ellipse."""
        return self.means[f"{teacher}/iou"] - self.means["ellipse_iou"]

    def of_folds(self, teachers: Sequence[str]) -> Floats | None:
        """(K,) values in which folds of up to two teachers that are trained differ, and little else does."""
        if not teachers:
            return None
        first, *others = (self.lead(name)[0] for name in teachers)
        return np.asarray(first - others[0] if others else first)

    @cached_property
    def every(self) -> NDArray[np.bool_]:
        """(K,) all classes."""
        return np.ones(len(self.names), bool)


def fold_error(values: Floats, folds: NDArray[np.int64]) -> float:
    """Standard error of a mean over classes from what their folds have in common.

    Args:
        values, folds: (K,) of each class.

    >>> round(fold_error(np.array([0.5, 0.6, 0.7, 0.8]), np.array([0, 0, 1, 1])), 3)
    0.094
    >>> fold_error(np.array([0.5, 0.8, 0.6, 0.7]), np.array([0, 0, 1, 1]))
    0.0
    """
    numbers, which, sizes = np.unique(folds, return_inverse=True, return_counts=True)
    n, groups = len(values), len(numbers)
    if groups < 2 or n <= groups:
        return 0.0
    means = np.bincount(which, values) / sizes
    within = ((values - means[which]) ** 2).sum() / (n - groups)
    between = (sizes * (means - values.mean()) ** 2).sum() / (groups - 1)
    usual = (n - (sizes**2).sum() / n) / (groups - 1)
    variance = max((between - within) / usual, 0.0)
    return math.sqrt(variance * ((sizes / n) ** 2).sum())


def holdout_figures(masks: HoldoutMasks, seconds: Mapping[str, float], resamples: int) -> Holdout:
    """Every figure of the masks that teachers drew of classes hidden from them.

    Args:
        seconds: what each teacher took, by which a tie goes to the cheaper one.
        resamples: behind each interval.
    """
    record = masks.record
    found = _class_means(masks, resamples)
    trained = {teacher.name: teacher.trained for teacher in record.teachers}
    teachers = tuple(_held_out(found, name, trained[name], seconds[name]) for name in masks.teachers)
    ranked = [teacher.name for teacher in teachers if teacher.ranked]
    learned = {name for name in ranked if trained[name]}
    pairs = tuple(_pair(found, a, b, learned) for a, b in combinations(ranked, 2))
    best = best_of(teachers, pairs)
    return Holdout(
        folds=record.folds,
        quick=record.quick,
        seed=record.seed,
        ellipse=known(found.means["ellipse_iou"][0].mean()) if found.names else None,
        teachers=teachers,
        pairs=pairs,
        per_class=tuple(_class_row(found, k, masks.teachers) for k in range(len(found.names))),
        winner=best[0] if best else None,
        tied=best if len(best) > 1 else (),
    )


def best_of(teachers: Sequence[HeldOut], pairs: Sequence[HeldOutPair]) -> tuple[str, ...]:
    """The ranked teachers that are as good as the best one, the cheapest first.

    One is as good where the interval of its paired difference to the best holds 0. What needs no training
    is cheaper than what does; then seconds count.
    """
    ranked = {teacher.name: teacher for teacher in teachers if teacher.ranked}
    if not ranked:
        return ()
    top = max(ranked, key=lambda name: ranked[name].iou.value or 0.0)
    behind = {
        pair.b if pair.a == top else pair.a
        for pair in pairs
        if top in (pair.a, pair.b) and not _holds_zero(pair.a_minus_b)
    }
    as_good = [teacher for name, teacher in ranked.items() if name not in behind]
    order = sorted(as_good, key=lambda teacher: (teacher.trained, teacher.seconds))
    return tuple(teacher.name for teacher in order)


def _holds_zero(one: Interval) -> bool:
    return one.low is None or one.high is None or one.low <= 0 <= one.high


def _class_means(masks: HoldoutMasks, resamples: int) -> _ClassMeans:
    """Classes that have a mask, in the order of folds; all teachers drew the same boxes in one order."""
    first = masks.of(masks.teachers[0], None)
    columns: dict[str, Sequence[float] | NDArray[np.float64]] = {
        "ellipse_iou": first["ellipse_iou"].to_numpy()
    }
    held = np.array(first["category_name"].to_pylist(), dtype=object)
    names = tuple(name for fold in masks.record.folds for name in fold if (held == name).any())
    index = {name: k for k, name in enumerate(names)}
    hidden = {}
    for teacher in masks.teachers:
        rows = masks.of(teacher, None)
        if not rows["annotation_id"].equals(first["annotation_id"]):
            raise ValueError(
                f"hold-out: {teacher}: expected the same masks in the same order for all teachers"
            )
        columns |= {f"{teacher}/{figure}": rows[figure].to_numpy() for figure in _FIGURES}
        shown = set(rows.filter(pc.not_equal(rows["split"], HIDDEN))["category_name"].to_pylist())
        hidden[teacher] = np.array([name not in shown for name in names], dtype=bool)
    ids = pa.array([index[name] for name in held], pa.int32())
    table = pa.table({"image_id": first["image_id"], "category_id": ids, **columns})
    classes = Classes(names, tuple(range(len(names))), (False,) * len(names))
    sums, counts = class_sums(table, list(columns), classes, resamples, masks.record.seed)
    with np.errstate(invalid="ignore"):
        means = sums / counts  # (1 + R, K, V)
    fold_of = {name: number for number, fold in enumerate(masks.record.folds) for name in fold}
    return _ClassMeans(
        names=names,
        folds=np.array([fold_of[name] for name in names], dtype=np.int64),
        counts=counts[0, :, 0].astype(np.int64),
        sums={name: sums[0, :, v] for v, name in enumerate(columns)},
        means={name: means[:, :, v] for v, name in enumerate(columns)},
        hidden=hidden,
        seed=masks.record.seed,
    )


def _held_out(found: _ClassMeans, name: str, trained: bool, seconds: float) -> HeldOut:
    own, hidden = found.means[f"{name}/iou"], found.hidden[name]
    masks, folds = int(found.counts[hidden].sum()), found.of_folds([name] if trained else [])
    return HeldOut(
        name=name,
        trained=trained,
        seconds=round(seconds, 1),
        classes=int(hidden.sum()),
        instances=masks,
        iou=found.over(own, hidden, folds),
        instance_mean_iou=float(found.sums[f"{name}/iou"][hidden].sum() / masks) if masks else None,
        minus_ellipse=found.over(found.lead(name), hidden, folds),
        boundary_iou=_mean(found.means[f"{name}/boundary_iou"][0, hidden]),
        elsewhere_classes=int((~hidden).sum()),
        elsewhere_iou=_mean(own[0, ~hidden]),
    )


def _pair(found: _ClassMeans, a: str, b: str, learned: Set[str]) -> HeldOutPair:
    difference = found.means[f"{a}/iou"] - found.means[f"{b}/iou"]
    folds = found.of_folds([name for name in (a, b) if name in learned])
    return HeldOutPair(a, b, len(found.names), found.over(difference, found.every, folds))


def _class_row(found: _ClassMeans, k: int, teachers: Sequence[str]) -> HeldOutClass:
    return HeldOutClass(
        name=found.names[k],
        fold=int(found.folds[k]),
        instances=int(found.counts[k]),
        ellipse=float(found.means["ellipse_iou"][0, k]),
        iou={name: float(found.means[f"{name}/iou"][0, k]) for name in teachers},
        shown_elsewhere_to=tuple(name for name in teachers if not found.hidden[name][k]),
    )


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _widened(one: Interval, factor: float) -> Interval:
    """Both ends further from the value by a factor."""
    if one.value is None or one.low is None or one.high is None:
        return one
    low, high = (one.value + factor * (end - one.value) for end in (one.low, one.high))
    return replace(one, low=low, high=high)


def _with_noise(one: Interval, half: float) -> Interval:
    """Both ends further from the value by an error that is independent of what they hold."""
    if one.value is None or one.low is None or one.high is None or not half:
        return one
    low = one.value - math.hypot(one.value - one.low, half)
    return replace(one, low=low, high=one.value + math.hypot(one.high - one.value, half))
