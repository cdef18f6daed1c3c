"""One summary of an evaluation, with intervals from resampled images.

The primary number is the mean over classes of the mean over a class's instances. Deep-MAC
(arXiv:2104.00613) does not state how it averages, but the overall mIOU of its HG-20 head (table 4) and of
both rows of table 7 is 20/80 of the VOC and 60/80 of the non-VOC figure, as no mean over instances would be.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.means import Means, class_sums, interval, known
from deepmac_distill.evaluation.results import (
    AveragePrecision,
    ClassRow,
    Detected,
    Evaluation,
    MeanIoU,
    Pair,
    PairedIoU,
    SizeIoU,
    Sizes,
    SplitIoU,
)
from deepmac_distill.evaluation.splits import BySplit, Split, split_classes

MASKS = ("iou", "box_baseline_iou", "ellipse_iou")  # columns of the model, the box and the ellipse
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, None)}  # truth area in px, half-open


def summarize(
    classes: Classes,
    ious: pa.Table,
    *,
    segm: AveragePrecision | None = None,
    bbox: AveragePrecision | None = None,
    shown_elsewhere: frozenset[str] = frozenset(),
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Everything that is known of one model; a part that was not measured is None.

    Args:
        ious: from `mask_iou.given_box_ious`.
        segm, bbox: from `average_precision.coco_average_precision`.
        shown_elsewhere: names of classes whose masks the model saw elsewhere (see `splits`).
    """
    splits = split_classes(classes, shown_elsewhere)
    return Evaluation(
        given_boxes=summarize_given_boxes(ious, classes, resamples, seed, shown_elsewhere=shown_elsewhere),
        detected=Detected(segm.splits if segm else None, bbox.splits if bbox else None),
        per_class=_per_class(classes, splits, ious, segm, bbox),
    )


def summarize_given_boxes(
    ious: pa.Table,
    classes: Classes,
    resamples: int = 1000,
    seed: int = 0,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
) -> BySplit[SplitIoU]:
    """Mean IoU of the model, the box and the ellipse a split, and the model's paired lead with intervals."""
    splits = split_classes(classes, shown_elsewhere)
    whole = Means.of(ious, MASKS, classes, resamples, seed, splits)
    sizes = {name: Means.of(_sized(ious, name), MASKS, classes, 0, seed, splits) for name in SIZES}

    def figures(split: Split, members: NDArray[np.int64]) -> SplitIoU:
        model, box, ellipse = whole.class_means[split].T
        return SplitIoU(
            *_means(whole, split),
            truth_outside_boxes=_outside_fraction(ious, classes, members),
            model=interval(model),
            model_minus_box=interval(model - box),
            model_minus_ellipse=interval(model - ellipse),
            by_size=Sizes(**{name: SizeIoU(*_means(means, split)) for name, means in sizes.items()}),
        )

    return splits.map_named(figures)


def compare_given_boxes(
    ious_a: pa.Table,
    ious_b: pa.Table,
    classes: Classes,
    resamples: int = 1000,
    seed: int = 0,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
) -> BySplit[PairedIoU]:
    """Paired difference of two models' class-mean IoU on the same instances, with a 95 % interval.

    Raises:
        DataError: the two were not evaluated on the same instances.
    """
    both = paired_ious({"a": ious_a, "b": ious_b})
    splits = split_classes(classes, shown_elsewhere)
    means = Means.of(both, ("a", "b"), classes, resamples, seed, splits)

    def figures(split: Split, _: NDArray[np.int64]) -> PairedIoU:
        of_classes, of_instances = means.class_means[split], means.instance_means[split]
        return PairedIoU(
            class_mean_iou=Pair(*map(known, of_classes[0])),
            instance_mean_iou=Pair(*map(known, of_instances[0])),
            instances=means.instances[split],
            classes=means.classes[split],
            a_minus_b=interval(of_classes @ np.array([1.0, -1.0])),
        )

    return splits.map_named(figures)


def paired_ious(ious: Mapping[str, pa.Table]) -> pa.Table:
    """Several models' IoUs of the same instances, side by side: `image_id`, `category_id`, a column a model.

    Args:
        ious: name of the model -> its table of `mask_iou.IOU_SCHEMA` on one truth, in any order of rows.

    Raises:
        DataError: they were not evaluated on the same instances.
    """
    first, *others = (table.sort_by("row") for table in ious.values())
    for other in others:
        if not first["row"].equals(other["row"]):
            raise DataError(
                f"models evaluated on other instances: got {len(first)} and {len(other)}, expected the same"
            )
    paired = first.select(["image_id", "category_id"])
    for name, table in zip(ious, (first, *others), strict=True):
        paired = paired.append_column(name, table["iou"])
    return paired


def _means(means: Means, split: Split) -> tuple[MeanIoU, MeanIoU, int, int]:
    """Means over classes and over instances of the data themselves, and over how many of each."""
    return (
        MeanIoU(*map(known, means.class_means[split][0])),
        MeanIoU(*map(known, means.instance_means[split][0])),
        means.instances[split],
        means.classes[split],
    )


def _outside_fraction(ious: pa.Table, classes: Classes, members: NDArray[np.int64]) -> float | None:
    ids = [classes.category_ids[index] for index in members]
    inside = ious.filter(pc.is_in(ious["category_id"], pa.array(ids, pa.int32())))
    area: int | None = pc.sum(inside["area"]).as_py()
    return float(pc.sum(inside["outside_box"]).as_py() / area) if area else None


def _sized(ious: pa.Table, name: str) -> pa.Table:
    low, high = SIZES[name]
    inside = pc.greater_equal(ious["area"], low)
    return ious.filter(inside if high is None else pc.and_(inside, pc.less(ious["area"], high)))


def _per_class(
    classes: Classes,
    splits: BySplit[NDArray[np.int64]],
    ious: pa.Table,
    segm: AveragePrecision | None,
    bbox: AveragePrecision | None,
) -> tuple[ClassRow, ...]:
    sums, counts = class_sums(ious, MASKS, classes, 0, 0)
    means = sums[0] / np.maximum(counts[0], 1)
    elsewhere = set() if splits.shown_elsewhere is None else set(splits.shown_elsewhere.tolist())
    rows = []
    for index, (name, category_id) in enumerate(zip(classes.names, classes.category_ids, strict=True)):
        instances = int(counts[0, index, 0])
        model, box, ellipse = (known(mean) if instances else None for mean in means[index])
        rows.append(
            ClassRow(
                *(name, category_id, classes.seen[index], instances, model, box, ellipse),
                segm_AP=segm.per_class[index] if segm else None,
                bbox_AP=bbox.per_class[index] if bbox else None,
                shown_elsewhere=index in elsewhere,
            )
        )
    return tuple(rows)
