"""One JSON-ready summary of a run, with intervals from resampled images.

The primary number is the mean over classes of the mean over a class's instances. Deep-MAC
(arXiv:2104.00613) does not say how it averages, but the overall mIOU of its HG-20 head (table 4) and of
both rows of table 7 is 20/80 of the VOC and 60/80 of the non-VOC figure, as no mean over instances would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.splits import SPLITS, split_classes

MASKS = {"model": "iou", "box": "box_iou", "ellipse": "ellipse_iou"}  # name in the summary: column
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, None)}  # truth area in px, half-open
RESAMPLES_AT_ONCE = 32  # bounds memory


def summarize(
    classes: Classes,
    *,
    ious: pa.Table | None = None,
    segm: dict[str, Any] | None = None,
    bbox: dict[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All that is known about a run; a part that was not measured is None.

    Args:
        ious: from `mask_iou.given_box_ious`.
        segm, bbox: from `average_precision.coco_average_precision`.

    Returns:
        {"given_boxes": from `summarize_given_boxes`,
         "detected": {"segm" | "bbox": {split: {the 12 COCO numbers, "instances", "ignored"}}},
         "per_class": [{"name", "category_id", "seen", "instances", "model", "box", "ellipse",
                        "segm_AP", "bbox_AP"}, ...] in label order}
        IoU and AP are fractions, None where there is nothing to average.
    """
    detected = {"segm": segm, "bbox": bbox}
    return {
        "given_boxes": None if ious is None else summarize_given_boxes(ious, classes, resamples, seed),
        "detected": {
            kind: None if found is None else {split: found[split] for split in SPLITS}
            for kind, found in detected.items()
        },
        "per_class": _per_class(classes, ious, detected),
    }


def summarize_given_boxes(
    ious: pa.Table, classes: Classes, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Mean IoU of the model, the box and the ellipse per split, and the model's paired lead with intervals.

    Returns:
        {split: {"class_mean_iou" | "instance_mean_iou": {"model", "box", "ellipse"},
                 "model", "model_minus_box", "model_minus_ellipse": {"value", "low", "high"},
                 "truth_outside_boxes": share of the truth's pixels that lie outside the given boxes,
                 "instances", "classes",
                 "by_size": {"small" | "medium" | "large": {the two means, "instances", "classes"}}}}
        "model", "model_minus_*" are class means; low and high bound 95 % of the resampled values.
    """
    whole = Means.of(ious, MASKS.values(), classes, resamples, seed)
    sizes = {name: Means.of(_sized(ious, name), MASKS.values(), classes, 0, seed) for name in SIZES}
    result = {}
    for split in SPLITS:
        model, box, ellipse = whole.class_means[split].T
        result[split] = {
            **whole.point(split, MASKS),
            "truth_outside_boxes": _outside_fraction(ious, classes, split),
            "model": interval(model),
            "model_minus_box": interval(model - box),
            "model_minus_ellipse": interval(model - ellipse),
            "by_size": {name: means.point(split, MASKS) for name, means in sizes.items()},
        }
    return result


def compare_given_boxes(
    ious_a: pa.Table, ious_b: pa.Table, classes: Classes, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Paired difference of two runs' class-mean IoU on the same instances, with a 95 % interval.

    Returns:
        {split: {"class_mean_iou" | "instance_mean_iou": {"a", "b"}, "a_minus_b": {"value", "low", "high"},
                 "instances", "classes"}}

    Raises:
        DataError: the two were not judged on the same instances.
    """
    both = paired_ious({"a": ious_a, "b": ious_b})
    means = Means.of(both, ("a", "b"), classes, resamples, seed)
    return {
        split: {
            **means.point(split, ("a", "b")),
            "a_minus_b": interval(means.class_means[split] @ np.array([1.0, -1.0])),
        }
        for split in SPLITS
    }


def paired_ious(ious: Mapping[str, pa.Table]) -> pa.Table:
    """Several runs' IoUs of the same instances, side by side: `image_id`, `category_id`, a column a run.

    Args:
        ious: name of the run -> its table of `mask_iou.IOU_SCHEMA`, in any order of rows.

    Raises:
        DataError: they were not judged on the same instances.
    """
    first, *others = ious.values()
    ids = first["annotation_id"]
    judged = set(ids.to_pylist())
    for other in others:
        if set(other["annotation_id"].to_pylist()) != judged:
            raise DataError(
                f"runs judged on other instances: got {len(ids)} and {len(other)}, expected the same"
            )
    paired = first.select(["image_id", "category_id"])
    for name, run in ious.items():
        paired = paired.append_column(name, run["iou"].take(pc.index_in(ids, run["annotation_id"])))
    return paired


@dataclass(frozen=True)
class Means:
    """Means of V columns per split; row 0 is the data itself, the R rows after it are resampled.

    Every column is resampled alike, so functions of several columns have intervals too.
    """

    class_means: dict[str, np.ndarray]  # (1 + R, V), NaN where there is no instance
    instance_means: dict[str, np.ndarray]  # (1 + R, V)
    instances: dict[str, int]
    classes: dict[str, int]  # with at least one instance

    @classmethod
    def of(
        cls, table: pa.Table, columns: Sequence[str], classes: Classes, resamples: int, seed: int
    ) -> Means:
        """Means of columns of a table that has `image_id` and `category_id` too."""
        sums, counts = _class_sums(table, columns, classes, resamples, seed)
        splits = split_classes(classes)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no instance, no mean
            means = np.where(counts > 0, sums / counts, 0.0)
            present = {split: (counts[:, labels] > 0).sum(axis=1) for split, labels in splits.items()}
            return cls(
                {split: means[:, labels].sum(axis=1) / present[split] for split, labels in splits.items()},
                {split: sums[:, k].sum(axis=1) / counts[:, k].sum(axis=1) for split, k in splits.items()},
                {split: int(counts[0, labels].sum()) for split, labels in splits.items()},
                {split: int(count[0, 0]) for split, count in present.items()},
            )

    def point(self, split: str, names: Sequence[str]) -> dict[str, Any]:
        """The data's own means, and over how much they were taken."""
        return {
            "class_mean_iou": dict(zip(names, map(known, self.class_means[split][0]), strict=True)),
            "instance_mean_iou": dict(zip(names, map(known, self.instance_means[split][0]), strict=True)),
            "instances": self.instances[split],
            "classes": self.classes[split],
        }


def _class_sums(
    table: pa.Table, columns: Sequence[str], classes: Classes, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums (1 + R, K, V) and counts (1 + R, K, 1) a class, of the data and of R resamplings of its images.

    Images, not instances, are drawn: instances of one image are not independent. An image's draws weigh its
    sums, so a resampling costs one pass over the (class, image) pairs that occur.
    """
    labels = pc.index_in(table["category_id"], pa.array(classes.category_ids, pa.int32())).to_numpy()
    _, images = np.unique(table["image_id"].to_numpy(), return_inverse=True)
    total = int(images.max(initial=-1)) + 1
    values = np.stack([table[name].to_numpy() for name in columns] + [np.ones(len(table))], axis=1)
    pairs, inverse = np.unique(labels.astype(np.int64) * total + images, return_inverse=True)
    cells = np.stack([np.bincount(inverse, v, len(pairs)) for v in values.T], axis=1)  # (P, V + 1)
    present, starts = np.unique(pairs // max(total, 1), return_index=True)
    result = np.zeros((1 + resamples, len(classes.names), values.shape[1]))
    if total:
        rng = np.random.default_rng(seed)
        for first in range(0, 1 + resamples, RESAMPLES_AT_ONCE):
            rows = result[first : first + RESAMPLES_AT_ONCE]
            draws = rng.multinomial(total, np.full(total, 1 / total), size=len(rows)).astype(float)
            draws[: first == 0] = 1.0
            rows[:, present] = np.add.reduceat(draws[:, pairs % total, None] * cells, starts, axis=1)
    return result[..., :-1], result[..., -1:]


def interval(values: np.ndarray) -> dict[str, float | None]:
    """Row 0 of (1 + R,) as "value", the 95 % percentile interval of the other rows as "low" and "high"."""
    drawn = values[1:][np.isfinite(values[1:])]  # a resampling may hold no instance of a small split
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn.size else (np.nan, np.nan)
    return {"value": known(values[0]), "low": known(low), "high": known(high)}


def _outside_fraction(ious: pa.Table, classes: Classes, split: str) -> float | None:
    ids = [classes.category_ids[label] for label in split_classes(classes)[split]]
    inside = ious.filter(pc.is_in(ious["category_id"], pa.array(ids, pa.int32())))
    area = pc.sum(inside["area"]).as_py()
    return pc.sum(inside["outside_box"]).as_py() / area if area else None


def known(value: float) -> float | None:
    """A number for JSON; None for what is not finite."""
    return float(value) if np.isfinite(value) else None


def _sized(ious: pa.Table, name: str) -> pa.Table:
    low, high = SIZES[name]
    inside = pc.greater_equal(ious["area"], low)
    return ious.filter(inside if high is None else pc.and_(inside, pc.less(ious["area"], high)))


def _per_class(
    classes: Classes, ious: pa.Table | None, detected: dict[str, dict[str, Any] | None]
) -> list[dict[str, Any]]:
    if ious is None:
        sums, counts = np.full((1, len(classes.names), 3), np.nan), np.zeros((1, len(classes.names), 1))
    else:
        sums, counts = _class_sums(ious, MASKS.values(), classes, 0, 0)
    means = sums[0] / np.maximum(counts[0], 1)
    rows = []
    for label, (name, category_id) in enumerate(zip(classes.names, classes.category_ids, strict=True)):
        instances = int(counts[0, label, 0])
        values = [known(v) if instances else None for v in means[label]]
        found = {f"{kind}_AP": f and f["per_class"][category_id] for kind, f in detected.items()}
        row = {"name": name, "category_id": category_id, "seen": classes.seen[label], "instances": instances}
        rows.append(row | dict(zip(MASKS, values, strict=True)) | found)
    return rows
