"""Figures of the comparison of mask heads, with intervals that hold image sampling and seed noise.

The paper's finding is an interaction: heads that are equal on seen classes differ on unseen ones. So beside
a row's seen and unseen figure stands unseen - seen, and beside the difference of two rows on seen and on
unseen classes the difference of these differences. Two rows are paired by seed. The noise of seeds is that of
each figure's own seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from deepmac_distill.evaluation.means import Floats, Means, interval, known
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.evaluation.sizes import BySize, Size, of_size
from deepmac_distill.experiments.mask_head_results import HeadRun, Ious, Results
from deepmac_distill.experiments.mask_head_rows import PAIRS, Pair

T = TypeVar("T")
U = TypeVar("U")
FLOORS = ("ellipse", "box")  # rows that look at no image
RESAMPLES = 1000  # of images


@dataclass(frozen=True, slots=True)
class SeenUnseen(Generic[T]):
    """One value for classes whose masks were shown, one for the others, one for unseen - seen."""

    seen: T
    unseen: T
    gap: T

    def map(self, function: Callable[[T], U]) -> SeenUnseen[U]:
        """`function` of each value."""
        return SeenUnseen(function(self.seen), function(self.unseen), function(self.gap))


@dataclass(frozen=True, slots=True)
class RowFigures:
    """One row: IoU in given boxes, means over classes and seeds."""

    seeds: tuple[int, ...]  # none of a row that looks at no image
    iou: SeenUnseen[Interval]
    unseen_of_each_seed: tuple[float | None, ...]
    minus_ellipse: SeenUnseen[Interval]
    unseen_by_size: BySize[float | None]
    boundary_iou: SeenUnseen[float | None]
    missed: float  # share of the objects of IoU 0
    training_loss: float | None  # mean over the seeds; None of a row that does not learn


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Two rows, the first minus the second, paired by seed; the gap is the interaction."""

    pair: Pair
    seeds: tuple[int, ...]  # that both have
    difference: SeenUnseen[Interval]


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """Everything that the comparison finds."""

    rows: Mapping[str, RowFigures]
    pairs: tuple[PairFigures, ...]


Draws = SeenUnseen[Floats]  # each (1 + R,): of the data, and of resampled images


@dataclass(frozen=True)
class _Measured:
    """Class means of every run and floor, all on the same resampled images."""

    results: Results
    resamples: int

    @cached_property
    def runs(self) -> dict[str, dict[int, HeadRun]]:
        """Row -> seed -> run."""
        found: dict[str, dict[int, HeadRun]] = {}
        for run in self.results.runs:
            found.setdefault(run.row, {})[run.seed] = run
        return found

    @cached_property
    def draws(self) -> dict[tuple[str, int], Draws]:
        """(Row or floor, seed) -> class means."""
        kept = self.results.instances
        columns: dict[tuple[str, int], Ious] = {("ellipse", 0): kept.ellipse, ("box", 0): kept.box}
        columns |= {(run.row, run.seed): run.iou for run in self.results.runs}
        return dict(zip(columns, self.class_means(list(columns.values()), self.resamples), strict=True))

    def class_means(
        self, columns: Sequence[Ious], resamples: int = 0, size: Size | None = None
    ) -> list[Draws]:
        """Of IoUs, one an instance; of one size alone where it is named."""
        kept = self.results.instances
        names = [str(position) for position in range(len(columns))]
        table = pa.table(
            {
                "image_id": pa.array(kept.image_id, pa.int64()),
                "category_id": pa.array(kept.category_id, pa.int32()),
                "area": pa.array(kept.area, pa.int64()),
                **dict(zip(names, map(pa.array, columns), strict=True)),
            }
        )
        table = of_size(table, size) if size else table
        means = Means.of(table, names, kept.classes, resamples, seed=0).class_means
        return [
            SeenUnseen(seen, unseen, unseen - seen)
            for seen, unseen in zip(means.seen.T, means.unseen.T, strict=True)
        ]


def figures_of(results: Results, resamples: int = RESAMPLES) -> HeadFigures:
    """Of every row that is there, and of every pair of which both are."""
    measured = _Measured(results, resamples)
    return HeadFigures(
        rows={row: _row(measured, row) for row in (*measured.runs, *FLOORS)},
        pairs=tuple(_pair(measured, pair) for pair in PAIRS if _common(measured, pair)),
    )


def _row(measured: _Measured, row: str) -> RowFigures:
    runs = measured.runs.get(row, {})
    seeds = tuple(runs) or (0,)
    each = [measured.draws[row, seed] for seed in seeds]
    ellipse, kept = measured.draws["ellipse", 0], measured.results.instances
    floors = {"ellipse": (kept.ellipse, kept.ellipse_boundary), "box": (kept.box, kept.box_boundary)}
    ious, boundaries = zip(
        *([(run.iou, run.boundary_iou) for run in runs.values()] or [floors[row]]), strict=True
    )
    losses = [run.training_loss for run in runs.values() if run.training_loss is not None]
    return RowFigures(
        seeds=tuple(runs),
        iou=_intervals(each),
        unseen_of_each_seed=tuple(known(_values(one).unseen) for one in each) if runs else (),
        minus_ellipse=_intervals([_minus(one, ellipse) for one in each]),
        unseen_by_size=BySize.of(
            lambda size: known(_values(_mean(measured.class_means(ious, size=size))).unseen)
        ),
        boundary_iou=_values(_mean(measured.class_means(boundaries))).map(known),
        missed=float(np.mean(np.array(ious) == 0)),
        training_loss=float(np.mean(losses)) if losses else None,
    )


def _pair(measured: _Measured, pair: Pair) -> PairFigures:
    seeds = _common(measured, pair)
    each = [_minus(measured.draws[pair.a, seed], measured.draws[pair.b, seed]) for seed in seeds]
    return PairFigures(pair, seeds, _intervals(each))


def _common(measured: _Measured, pair: Pair) -> tuple[int, ...]:
    ours, theirs = (measured.runs.get(row, {}) for row in (pair.a, pair.b))
    return tuple(seed for seed in ours if seed in theirs)


def _intervals(each: Sequence[Draws]) -> SeenUnseen[Interval]:
    """Of the mean over some seeds."""
    return SeenUnseen(
        interval(np.stack([one.seen for one in each], axis=1)),
        interval(np.stack([one.unseen for one in each], axis=1)),
        interval(np.stack([one.gap for one in each], axis=1)),
    )


def _mean(each: Sequence[Draws]) -> Draws:
    return SeenUnseen(
        np.mean([one.seen for one in each], axis=0),
        np.mean([one.unseen for one in each], axis=0),
        np.mean([one.gap for one in each], axis=0),
    )


def _minus(a: Draws, b: Draws) -> Draws:
    return SeenUnseen(a.seen - b.seen, a.unseen - b.unseen, a.gap - b.gap)


def _values(draws: Draws) -> SeenUnseen[float]:
    """Of the data themselves."""
    return draws.map(lambda values: float(values[0]))
