"""One summary of an evaluation, with intervals from resampled images.

The primary number is the mean over classes of the mean over a class's instances. Deep-MAC
(arXiv:2104.00613) does not state how it averages, but the overall mIOU of its HG-20 head (table 4) and of
both rows of table 7 is 20/80 of the VOC and 60/80 of the non-VOC figure, as no mean over instances would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.means import Floats, Means, class_sums, interval, known
from deepmac_distill.evaluation.results import (
    AveragePrecision,
    BoundaryIoU,
    ClassRow,
    Detected,
    Evaluation,
    MeanIoU,
    Pair,
    PairedIoU,
    PairedMeans,
    PairedSize,
    SizeIoU,
    SplitIoU,
)
from deepmac_distill.evaluation.sizes import BySize, of_size
from deepmac_distill.evaluation.splits import NO_SPLITS, BySplit, Named, Split, split_classes

MASKS = ("iou", "box_baseline_iou", "ellipse_iou")  # columns of the model, the box and the ellipse
BOUNDARIES = ("boundary_iou", "box_boundary_iou", "ellipse_boundary_iou")  # of the same
MEASURES = ("iou", "boundary_iou")  # of the model alone
OfSeeds: TypeAlias = (
    pa.Table | Sequence[pa.Table]
)  # of `mask_iou.IOU_SCHEMA`: of one training, or of each seed of it


def summarize(
    classes: Classes,
    ious: pa.Table,
    *,
    segm: AveragePrecision | None = None,
    bbox: AveragePrecision | None = None,
    shown_elsewhere: frozenset[str] = frozenset(),
    named: Named = NO_SPLITS,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Everything that is known of one model; a part that was not measured is None.

    Args:
        ious: from `mask_iou.given_box_ious`.
        segm, bbox: from `average_precision.coco_average_precision`.
        shown_elsewhere: names of classes whose masks the model saw elsewhere (see `splits`).
        named: classes of more splits, each with figures of its own.
    """
    splits = split_classes(classes, shown_elsewhere, named)
    return Evaluation(
        given_boxes=summarize_given_boxes(
            ious, classes, resamples, seed, shown_elsewhere=shown_elsewhere, named=named
        ),
        detected=Detected(segm.splits if segm else None, bbox.splits if bbox else None),
        per_class=_per_class(classes, splits, ious, segm, bbox),
    )


def summarize_given_boxes(
    ious: OfSeeds,
    classes: Classes,
    resamples: int = 1000,
    seed: int = 0,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
    named: Named = NO_SPLITS,
) -> BySplit[SplitIoU]:
    """Mean IoU of the model, the box and the ellipse a split, and the model's paired lead with intervals.

    Raises:
        DataError: seeds were not evaluated on the same instances.
    """
    splits = split_classes(classes, shown_elsewhere, named)
    table = paired_ious({"": ious}, MASKS + BOUNDARIES)

    def means_of(table: pa.Table) -> Means:
        return means_over_seeds(table, classes, resamples, seed, splits)

    whole, sizes = means_of(table), BySize.of(lambda size: means_of(of_size(table, size)))

    def figures(split: Split, members: NDArray[np.int64]) -> SplitIoU:
        model, box, ellipse = columns_of(whole.class_means[split][:, :3])
        return SplitIoU(
            *_means(whole, split),
            truth_outside_boxes=_outside_fraction(each_seed(ious)[0], classes, members),
            model=interval(model),
            model_minus_box=interval(model - box),
            model_minus_ellipse=interval(model - ellipse),
            by_size=sizes.map(lambda means: _size(means, split)),
            boundary=_boundary(whole, split),
        )

    return splits.map_named(figures)


def compare_given_boxes(
    ious_a: OfSeeds,
    ious_b: OfSeeds,
    classes: Classes,
    resamples: int = 1000,
    seed: int = 0,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
    named: Named = NO_SPLITS,
) -> BySplit[PairedIoU]:
    """Paired difference of two models' class-mean IoU on the same instances, with a 95 % interval.

    Of several seeds the two are paired by seed, in the order given.

    Raises:
        DataError: the two were not evaluated on the same instances.
    """
    both = paired_ious({"a": ious_a, "b": ious_b}, MEASURES)
    splits = split_classes(classes, shown_elsewhere, named)

    def means_of(table: pa.Table) -> Means:
        return means_over_seeds(table, classes, resamples, seed, splits)

    whole, sizes = means_of(both), BySize.of(lambda size: means_of(of_size(both, size)))

    def figures(split: Split, _: NDArray[np.int64]) -> PairedIoU:
        mask = _paired(whole, split, 0)
        return PairedIoU(
            class_mean_iou=mask.class_mean_iou,
            instance_mean_iou=mask.instance_mean_iou,
            instances=whole.instances[split],
            classes=whole.classes[split],
            a_minus_b=mask.a_minus_b,
            boundary=_paired(whole, split, 1),
            by_size=sizes.map(lambda means: _paired_size(means, split)),
        )

    return splits.map_named(figures)


def each_seed(ious: OfSeeds) -> Sequence[pa.Table]:
    """The tables of each seed; one training is one seed."""
    return [ious] if isinstance(ious, pa.Table) else ious


def paired_ious(ious: Mapping[str, OfSeeds], measures: Sequence[str] = ("iou",)) -> pa.Table:
    """Several models' IoUs of the same instances, side by side.

    Args:
        ious: name of the model -> its tables on one truth, in any order of rows; as many of each.
        measures: columns of these tables.

    Returns:
        `image_id`, `category_id`, `area`, and for each measure, model and seed a column
        "MEASURE MODEL SEED", the seed counted from 0.

    Raises:
        DataError: they were not evaluated on the same instances.
    """
    ordered = {name: [table.sort_by("row") for table in each_seed(one)] for name, one in ious.items()}
    first, *others = (table for tables in ordered.values() for table in tables)
    for other in others:
        if not first["row"].equals(other["row"]):
            raise DataError(
                f"models evaluated on other instances: got {len(first)} and {len(other)}, expected the same"
            )
    paired = first.select(["image_id", "category_id", "area"])
    for measure in measures:
        for name, tables in ordered.items():
            for seed, table in enumerate(tables):
                paired = paired.append_column(f"{measure} {name} {seed}", table[measure])
    return paired


def means_over_seeds(
    paired: pa.Table, classes: Classes, resamples: int, seed: int, splits: BySplit[NDArray[np.int64]]
) -> Means:
    """Means of a table of `paired_ious`, (1 + R, V, S): V measures and models in its order, S seeds."""
    names = paired.column_names[3:]
    seeds = 1 + max(int(name.rsplit(" ", 1)[1]) for name in names)
    return Means.of(paired, names, classes, resamples, seed, splits).of_seeds(seeds)


def columns_of(means: Floats) -> Iterator[Floats]:
    """Each of the V columns of (1 + R, V, S), as (1 + R, S)."""
    return (means[:, column] for column in range(means.shape[1]))


def _means(means: Means, split: Split) -> tuple[MeanIoU, MeanIoU, int, int]:
    """Means over classes and over instances of the data themselves, and over how many of each."""
    return (
        MeanIoU(*_of_data(means.class_means[split][:, :3])),
        MeanIoU(*_of_data(means.instance_means[split][:, :3])),
        means.instances[split],
        means.classes[split],
    )


def _size(means: Means, split: Split) -> SizeIoU:
    model, _, ellipse = columns_of(means.class_means[split][:, :3])
    return SizeIoU(*_means(means, split), interval(model - ellipse), _boundary(means, split))


def _boundary(means: Means, split: Split) -> BoundaryIoU:
    model, _, ellipse = columns_of(means.class_means[split][:, 3:])
    return BoundaryIoU(
        class_mean_iou=MeanIoU(*_of_data(means.class_means[split][:, 3:])),
        instance_mean_iou=MeanIoU(*_of_data(means.instance_means[split][:, 3:])),
        model=interval(model),
        model_minus_ellipse=interval(model - ellipse),
    )


def _paired(means: Means, split: Split, measure: int) -> PairedMeans:
    """Of one of `MEASURES`, by its position."""
    pair = slice(2 * measure, 2 * measure + 2)
    a, b = columns_of(means.class_means[split][:, pair])
    return PairedMeans(
        class_mean_iou=Pair(*_of_data(means.class_means[split][:, pair])),
        instance_mean_iou=Pair(*_of_data(means.instance_means[split][:, pair])),
        a_minus_b=interval(a - b),
    )


def _of_data(means: Floats) -> Iterator[float | None]:
    """Of (1 + R, V, S) the V means of the data themselves, over the seeds."""
    return map(known, means[0].mean(axis=-1))


def _paired_size(means: Means, split: Split) -> PairedSize:
    mask, boundary = (_paired(means, split, position) for position in range(len(MEASURES)))
    return PairedSize(means.instances[split], means.classes[split], mask, boundary)


def _outside_fraction(ious: pa.Table, classes: Classes, members: NDArray[np.int64]) -> float | None:
    ids = [classes.category_ids[index] for index in members]
    inside = ious.filter(pc.is_in(ious["category_id"], pa.array(ids, pa.int32())))
    area: int | None = pc.sum(inside["area"]).as_py()
    return float(pc.sum(inside["outside_box"]).as_py() / area) if area else None


def _per_class(
    classes: Classes,
    splits: BySplit[NDArray[np.int64]],
    ious: pa.Table,
    segm: AveragePrecision | None,
    bbox: AveragePrecision | None,
) -> tuple[ClassRow, ...]:
    sums, counts = class_sums(ious, (*MASKS, "boundary_iou"), classes, 0, 0)
    means = sums[0] / np.maximum(counts[0], 1)
    elsewhere = set() if splits.shown_elsewhere is None else set(splits.shown_elsewhere.tolist())
    rows = []
    for index, (name, category_id) in enumerate(zip(classes.names, classes.category_ids, strict=True)):
        instances = int(counts[0, index, 0])
        model, box, ellipse, boundary = (known(mean) if instances else None for mean in means[index])
        rows.append(
            ClassRow(
                *(name, category_id, classes.seen[index], instances, model, box, ellipse),
                segm_AP=segm.per_class[index] if segm else None,
                bbox_AP=bbox.per_class[index] if bbox else None,
                shown_elsewhere=index in elsewhere,
                boundary=boundary,
            )
        )
    return tuple(rows)
